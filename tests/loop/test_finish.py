# The end of a plugin's loop: what is in hand is finished, all else is cancelled.

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from circusplug._loop.plugin_loop import PluginLoop


def begin(loop: PluginLoop) -> None:
    """Let tasks that were made begin."""
    loop.run_until_complete(asyncio.sleep(0))


def test_what_is_in_hand_is_finished_and_the_rest_is_cancelled(loop: PluginLoop) -> None:
    said: list[str] = []

    async def in_hand() -> None:
        await asyncio.sleep(0)
        loop.stop()  # as a plugin may say, which ends nothing before its time
        for _ in range(3):
            await asyncio.sleep(0)
        said.append("finished")

    async def other() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            said.append("cancelled")

    task, rest = loop.create_task(in_hand()), loop.create_task(other())
    begin(loop)
    assert not loop.settling
    loop.finish(task, 10.0)
    assert said == ["finished", "cancelled"]
    assert (task.cancelled(), rest.cancelled(), loop.settling) == (False, True, True)


def test_what_is_in_hand_may_fail(loop: PluginLoop) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    task = loop.create_task(fail())
    loop.finish(task, 10.0)
    assert isinstance(task.exception(), ZeroDivisionError)


def test_who_will_not_be_cancelled_has_so_long_and_no_longer(loop: PluginLoop) -> None:
    cancelled = 0

    async def stubborn() -> None:
        nonlocal cancelled
        while cancelled < 1000:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                cancelled += 1

    task = loop.create_task(stubborn())
    begin(loop)
    loop.finish(None, 0.0)
    assert not task.done()
    assert 1 <= cancelled < 1000
    cancelled = 1000
    loop.finish(None, 10.0)
    assert task.done()


def test_tasks_that_cancelled_ones_make_are_cancelled_too(loop: PluginLoop) -> None:
    made: list[asyncio.Task[None]] = []

    async def makes_more() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            if len(made) < 5:
                made.append(loop.create_task(makes_more()))
                await asyncio.sleep(0)  # so that it has begun

    loop.create_task(makes_more())
    begin(loop)
    loop.finish(None, 10.0)
    assert [task.cancelled() for task in made] == [True] * 5
    assert asyncio.all_tasks(loop) == set()


def test_what_generators_make_in_their_end_is_cancelled_too(loop: PluginLoop) -> None:
    made: list[asyncio.Task[None]] = []

    async def last() -> None:
        await asyncio.sleep(1000)

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            made.append(loop.create_task(last()))

    generator = numbers()

    async def take_one() -> int:
        return await anext(generator)

    assert loop.run_until_complete(take_one()) == 1
    loop.finish(None, 10.0)
    assert [task.cancelled() for task in made] == [True]
