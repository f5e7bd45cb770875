# Callbacks, coroutines and timeouts on the loop, under the names of Tornado's IOLoop.

from __future__ import annotations

import asyncio
import datetime
import gc
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from loop_runs import run
from patience import PATIENCE

from circusplug._loop.plugin_loop import PluginLoop


def test_a_callback_for_a_closed_loop_is_dropped() -> None:
    loop = PluginLoop()
    loop.close()
    loop.add_callback(pytest.fail, "called")
    loop.add_callback_from_signal(pytest.fail, "called")


def test_callbacks_come_from_any_thread_in_order(loop: PluginLoop) -> None:
    seen: list[Any] = []

    def add() -> None:
        for number in range(100):
            loop.add_callback(seen.append, number)
        loop.add_callback_from_signal(seen.append, "signal")
        loop.spawn_callback(lambda *, word: seen.append(word), word="word")
        loop.add_callback(loop.stop)

    thread = threading.Thread(target=add)
    thread.start()
    run(loop)
    thread.join(PATIENCE)
    assert seen == [*range(100), "signal", "word"]


def test_a_callback_may_be_a_coroutine_function_and_its_failure_is_reported(
    loop: PluginLoop,
) -> None:
    reported: list[Any] = []

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    def report(_: object, context: dict[str, Any]) -> None:
        reported.append(context["exception"])
        loop.stop()

    loop.set_exception_handler(report)
    loop.add_callback(fail)
    run(loop)
    assert [type(error) for error in reported] == [ZeroDivisionError]


def test_a_coroutine_that_nobody_else_keeps_is_finished(loop: PluginLoop) -> None:
    awaited: list[weakref.ref[asyncio.Future[None]]] = []

    async def wait() -> None:
        future = loop.create_future()
        awaited.append(weakref.ref(future))
        loop.stop()
        await future
        loop.stop()

    loop.add_callback(wait)
    run(loop)
    gc.collect()
    future = awaited[0]()
    assert future is not None
    future.set_result(None)
    run(loop)


def test_a_cancelled_coroutine_is_no_failure(loop: PluginLoop) -> None:
    reported: list[Any] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))

    async def cancel() -> None:
        loop.add_callback(loop.stop)
        raise asyncio.CancelledError

    loop.add_callback(cancel)
    run(loop)
    assert reported == []


def test_a_later_call_may_have_arguments_of_any_kind(loop: PluginLoop) -> None:
    seen: list[Any] = []
    loop.call_later(0, lambda *args, **named: seen.append((args, named)), 1, word="word")
    loop.call_later(0.001, loop.stop)
    run(loop)
    assert seen == [((1,), {"word": "word"})]


@pytest.mark.parametrize(
    "deadline",
    [
        lambda loop: datetime.timedelta(milliseconds=1),
        lambda loop: time.time() + 0.001,
        lambda loop: loop.time() + 0.001,
        lambda loop: datetime.timedelta(seconds=-1),
        lambda loop: time.time() - 1,
    ],
    ids=["timedelta", "time.time()", "loop.time()", "past timedelta", "past time.time()"],
)
def test_a_timeout_may_be_given_in_every_way(
    deadline: Callable[[PluginLoop], Any], loop: PluginLoop
) -> None:
    seen: list[Any] = []

    def note(*arguments: Any, **named: Any) -> None:
        seen.append((arguments, named))
        loop.stop()

    loop.add_timeout(deadline(loop), note, 1, word="word")
    run(loop)
    assert seen == [((1,), {"word": "word"})]


@pytest.mark.parametrize("clock", [time.time, None], ids=["time.time()", "loop.time()"])
def test_a_timeout_far_away_is_far_away(
    clock: Callable[[], float] | None, loop: PluginLoop
) -> None:
    timer = loop.add_timeout((clock or loop.time)() + 3600, loop.stop)
    assert timer.when() == pytest.approx(loop.time() + 3600, abs=60)
    timer.cancel()


def test_a_removed_timeout_does_not_come(loop: PluginLoop) -> None:
    seen: list[str] = []
    timeouts = [
        loop.add_timeout(datetime.timedelta(0), seen.append, "add_timeout"),
        loop.call_later(0, seen.append, "call_later"),
        loop.call_at(loop.time(), seen.append, "call_at"),
    ]
    for timeout in timeouts:
        loop.remove_timeout(timeout)
        loop.remove_timeout(timeout)
    done = loop.add_timeout(datetime.timedelta(milliseconds=1), loop.stop)
    run(loop)
    loop.remove_timeout(done)
    assert seen == []


def test_add_future_calls_back_with_the_future(loop: PluginLoop) -> None:
    future = loop.create_future()
    seen: list[Any] = []
    loop.add_future(future, seen.append)
    loop.add_future(future, lambda _: loop.stop())
    future.set_result("done")
    run(loop)
    assert seen == [future]


def test_an_exception_being_handled_can_be_reported(loop: PluginLoop) -> None:
    reported: list[Any] = []
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        loop.handle_callback_exception(print)
    assert [type(error) for error in reported] == [ZeroDivisionError]
