# What a plugin has called again and again.

from __future__ import annotations

import asyncio

import pytest
from fixture_types import Run
from noting_plugins import Noting, Seen
from patience import PATIENCE


def test_periodic_calls_back_until_it_is_stopped(run_plugin: Run, seen: Seen) -> None:
    class Ticks(Noting):
        def handle_init(self) -> None:
            self.count = 0
            self.ticks = self.periodic(self.tick, 0.001)

        def tick(self) -> None:
            self.count += 1
            self.seen.note(self.count)
            if self.count == 3:
                self.ticks.stop()
                self.ticks.stop()
                self.loop.call_later(0.005, self.seen.note, "later")

    plugin = run_plugin(Ticks, seen=seen).plugin
    assert seen.take_all(4) == [1, 2, 3, "later"]
    assert not plugin.ticks.running
    plugin.ticks.start()  # from another thread, and once more
    plugin.ticks.start()
    assert seen.take_all(2) == [4, 5]


def test_a_periodic_coroutine_never_overlaps_itself(run_plugin: Run, seen: Seen) -> None:
    class Ticks(Noting):
        under_way = 0

        def handle_init(self) -> None:
            self.ticks = self.periodic(self.tick, 0.001)

        async def tick(self) -> None:
            self.under_way += 1
            if self.under_way == 1:
                # While it is awaited, neither time passing nor a restart calls it again.
                self.ticks.stop()
                self.ticks.start()
                await asyncio.sleep(0.01)
            self.seen.note(self.under_way)
            self.under_way -= 1

    run_plugin(Ticks, seen=seen)
    assert seen.take_all(10) == [1] * 10


def test_a_periodic_callback_that_fails_is_reported_and_called_again(
    run_plugin: Run, seen: Seen
) -> None:
    class Fails(Noting):
        def handle_init(self) -> None:
            self.periodic(self.fail, 0.001)
            self.periodic(self.fail_later, 0.001)

        def fail(self) -> None:
            raise ZeroDivisionError("now")

        async def fail_later(self) -> None:
            raise ZeroDivisionError("later")

    running = run_plugin(Fails, raise_errors=False, seen=seen)

    def both_again(_: object) -> bool:
        texts = [str(error) for error in running.errors]
        return texts.count("now") > 1 and texts.count("later") > 1

    running.wait(both_again, PATIENCE)


def test_a_periodic_callback_that_is_cancelled_by_its_own_doing_is_called_again(
    run_plugin: Run, seen: Seen
) -> None:
    class Cancelled(Noting):
        def handle_init(self) -> None:
            self.periodic(self.sync, 0.001)
            self.periodic(self.awaited, 0.001)

        def sync(self) -> None:
            self.seen.note("sync")
            raise asyncio.CancelledError

        async def awaited(self) -> None:
            self.seen.note("awaited")
            future = self.loop.create_future()
            future.cancel()
            await future

    run_plugin(Cancelled, raise_errors=False, seen=seen)
    noted: list[str] = []
    while min(noted.count("sync"), noted.count("awaited")) < 3:
        noted.append(seen.take())


@pytest.mark.parametrize("seconds", [0.001, 0.0002])
def test_a_plugin_that_parks_leaves_no_task_undone(
    seconds: float, run_plugin: Run, seen: Seen
) -> None:
    class Ticks(Noting):
        def handle_init(self) -> None:
            self.periodic(self.tick, seconds)
            self.loop.call_later(0, self.make_tasks)

        async def tick(self) -> None:
            self.seen.note("tick")
            await asyncio.sleep(0)

        def make_tasks(self) -> None:
            self.task = self.loop.create_task(self.tick())
            self.loop.call_later(seconds, self.make_tasks)

    for _ in range(20):
        running = run_plugin(Ticks, seen=seen)
        seen.take()
        loop = running.plugin.loop
        running.stop()
        assert asyncio.all_tasks(loop) == set()


def test_a_period_must_be_more_than_zero(run_plugin: Run, seen: Seen) -> None:
    plugin = run_plugin(Noting, seen=seen).plugin
    for seconds in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="more than 0"):
            plugin.periodic(print, seconds)
