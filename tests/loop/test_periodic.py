# A callback that repeats, on a stand-in for a loop whose time only the test moves.

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from circusplug._loop.periodic import Periodic
from circusplug._loop.plugin_loop import PluginLoop


class Loop:
    """A loop as far as a periodic callback knows one."""

    def __init__(self) -> None:
        self.now = 100.0
        self.settling = False
        self.posted: list[Callable[[], object]] = []
        self.timers: list[Any] = []
        self.reported: list[dict[str, Any]] = []

    def time(self) -> float:
        return self.now

    def post(self, callback: Callable[[], object]) -> None:
        self.posted.append(callback)

    def call_at(self, when: float, callback: Callable[[], object]) -> Any:
        timer = SimpleNamespace(when=when, callback=callback)
        timer.cancel = lambda: self.timers.remove(timer)
        self.timers.append(timer)
        return timer

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.reported.append(context)

    def take_posted(self) -> None:
        """Call what was handed over."""
        posted, self.posted = self.posted, []
        for callback in posted:
            callback()

    def pass_on(self, late: float = 0.0) -> None:
        """Let the moment of the one timer come, and so much more, and call it."""
        (timer,) = self.timers
        self.timers.clear()
        self.now = timer.when + late
        timer.callback()


class Bench:
    """A callback every 10 s, and the moments at which it was called."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.called: list[float] = []
        loop: Any = self.loop
        self.periodic = Periodic(loop, self.call, 10.0)

    def call(self) -> None:
        self.called.append(self.loop.now)

    def start(self) -> None:
        self.periodic.start()
        self.loop.take_posted()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_first_call_comes_in_one_period_and_a_late_one_shifts_no_other(bench: Bench) -> None:
    bench.start()
    for late in (0.0, 4.0, 0.0, 25.0, 0.0):
        bench.loop.pass_on(late)
    assert bench.called == [110.0, 124.0, 130.0, 165.0, 170.0]


def test_a_start_while_it_runs_makes_no_second_one(bench: Bench) -> None:
    bench.periodic.start()
    bench.periodic.start()
    bench.loop.take_posted()
    assert len(bench.loop.timers) == 1
    bench.periodic.stop()
    bench.periodic.start()  # before the loop has heard of either
    bench.loop.take_posted()
    assert len(bench.loop.timers) == 1
    bench.loop.pass_on()
    assert bench.called == [110.0]


def test_a_stop_is_at_once_and_a_start_after_it_begins_anew(bench: Bench) -> None:
    bench.start()
    bench.periodic.stop()
    assert not bench.periodic.running
    (timer,) = bench.loop.timers
    timer.callback()  # it was due in the same moment
    assert bench.called == []
    bench.start()
    bench.periodic.stop()
    bench.loop.take_posted()
    assert bench.loop.timers[1:] == []
    bench.loop.timers.clear()
    bench.loop.now = 104.0
    bench.start()
    assert bench.periodic.running
    bench.loop.pass_on()
    assert bench.called == [114.0]
    bench.loop.now = 119.0
    bench.periodic.stop()
    bench.start()  # at once
    bench.loop.pass_on()
    assert bench.called == [114.0, 129.0]


def test_a_start_that_another_thread_is_heard_of_before_a_stop_counts(bench: Bench) -> None:
    bench.start()
    bench.periodic.stop()
    bench.periodic.start()
    bench.loop.posted.reverse()
    bench.loop.take_posted()
    assert bench.periodic.running
    bench.loop.pass_on()
    assert bench.called == [110.0]


def test_one_that_stops_before_the_loop_hears_of_its_start_is_not_called(bench: Bench) -> None:
    bench.periodic.start()
    bench.periodic.stop()
    bench.loop.take_posted()
    assert bench.loop.timers == []


def test_one_that_stops_itself_is_not_called_again(bench: Bench) -> None:
    loop: Any = bench.loop

    def stop() -> None:
        periodic.stop()

    periodic = Periodic(loop, stop, 10.0)
    periodic.start()
    loop.take_posted()
    loop.pass_on()
    assert loop.timers == []


def test_no_period_begins_while_the_loop_settles(bench: Bench) -> None:
    bench.start()
    bench.loop.settling = True
    bench.loop.pass_on()
    assert (bench.called, bench.loop.timers) == ([], [])


@pytest.mark.parametrize("error", [ValueError("on purpose"), asyncio.CancelledError()])
def test_an_error_is_reported_with_the_callbacks_name_and_the_next_call_comes(
    error: BaseException, bench: Bench
) -> None:
    def fail() -> None:
        raise error

    loop: Any = bench.loop
    periodic = Periodic(loop, fail, 10.0)
    periodic.start()
    loop.take_posted()
    loop.pass_on()
    (context,) = loop.reported
    assert context["exception"] is error
    assert context["message"].startswith("periodic test_an_error_is_reported")
    assert context["message"].endswith("fail")
    assert [timer.when for timer in loop.timers] == [120.0]


def test_a_coroutine_is_awaited_before_the_next_call_is_due(loop: PluginLoop) -> None:
    going: list[asyncio.Future[None]] = []

    async def wait() -> None:
        going.append(loop.create_future())
        await going[-1]

    periodic = Periodic(loop, wait, 1000.0)
    periodic.start()
    loop.run_until_complete(asyncio.sleep(0))
    assert periodic._timer is not None
    periodic._timer.cancel()
    periodic._run()
    loop.run_until_complete(asyncio.sleep(0))
    assert periodic._timer is None
    periodic.stop()
    periodic.start()  # while it is awaited it makes no second one
    loop.run_until_complete(asyncio.sleep(0))
    assert periodic._timer is None
    going[0].set_result(None)
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))
    assert periodic._timer is not None
    assert len(going) == 1
    periodic._timer.cancel()
    periodic._run()
    loop.run_until_complete(asyncio.sleep(0))
    periodic.stop()
    going[1].set_result(None)
    for _ in range(3):
        loop.run_until_complete(asyncio.sleep(0))
    assert periodic._timer is None
    periodic.start()
    loop.run_until_complete(asyncio.sleep(0))
    assert periodic._timer is not None
    periodic._timer.cancel()
