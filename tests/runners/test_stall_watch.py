# The watch for callbacks that run too long, with runners and a clock of the test's own.

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from patience import PATIENCE

from circusplug import Arbiter, CircusPlugin, Counters, HostOptions, PluginSpec
from circusplug._runners.stall_watch import StallWatch
from circusplug._runners.thread_runner import ThreadRunner
from circusplug.testing import FakeCircusd


class Runner:
    """What the watch looks at of a runner, and nothing else."""

    def __init__(self, stall_timeout: float = 10.0) -> None:
        self.spec = SimpleNamespace(host=HostOptions(stall_timeout=stall_timeout))
        self.counters = Counters()
        self.busy_since = 0.0
        self.running = True
        self.pings = 0

    def measure_lag(self) -> None:
        self.pings += 1


class Bench:
    """A watch, its clock, and how often it asked to be woken."""

    def __init__(self, *runners: Runner) -> None:
        self.runners: Any = runners
        self.now = 1000.0
        self.wakes = 0
        self.watch = StallWatch(self._wake, lambda: self.now)

    def _wake(self) -> None:
        self.wakes += 1

    def begin(self) -> None:
        """What a supervisor does after a wake."""
        self.watch.activity()
        self.watch.begin(self.runners)

    def look(self) -> list[tuple[Any, float]]:
        """Let the time of the next look come, and look."""
        assert self.watch.next_look is not None
        self.now = max(self.now, self.watch.next_look)
        return list(self.watch.look(self.runners))

    def look_for(self, seconds: float) -> list[tuple[Any, float]]:
        """All that is found in so many seconds."""
        end, found = self.now + seconds, []
        while self.watch.next_look is not None and self.watch.next_look <= end:
            found += self.look()
        self.now = end
        return found


def test_an_idle_host_is_not_looked_at() -> None:
    bench = Bench(Runner())
    assert bench.watch.next_look is None
    bench.now += 1000.0
    assert list(bench.watch.look(bench.runners)) == []


def test_the_first_activity_wakes_the_watcher_once() -> None:
    bench = Bench(Runner())
    for _ in range(5):
        bench.watch.activity()
    assert bench.wakes == 1
    assert bench.watch.next_look is None  # not before the watcher has been woken


def test_a_callback_that_runs_too_long_is_found_once_per_stall() -> None:
    runner = Runner(stall_timeout=10.0)
    bench = Bench(runner)
    bench.begin()
    runner.busy_since = bench.now
    assert bench.look_for(10.0) == []
    ((found, seconds),) = bench.look_for(10.0)
    assert found is runner
    assert 10.0 < seconds <= 12.5
    assert bench.look_for(100.0) == []
    runner.busy_since = bench.now  # the next callback
    assert [item for item, _ in bench.look_for(20.0)] == [runner]


def test_a_loop_that_goes_on_does_not_stall() -> None:
    runner = Runner(stall_timeout=10.0)
    bench = Bench(runner)
    bench.begin()
    for _ in range(100):
        runner.busy_since = bench.now
        assert bench.look_for(9.0) == []


def test_when_every_loop_waits_again_the_watch_rests_until_the_next_activity() -> None:
    runner, other = Runner(), Runner()
    bench = Bench(runner, other)
    bench.begin()
    runner.busy_since = bench.now
    bench.look()
    assert bench.watch.next_look is not None
    runner.busy_since = 0.0
    bench.look()
    assert bench.watch.next_look is None
    assert bench.wakes == 1
    bench.watch.activity()
    assert bench.wakes == 2


def test_an_activity_during_a_look_is_not_overlooked() -> None:
    class WakesMeanwhile(Runner):
        @property
        def running(self) -> bool:
            bench.watch.activity()
            return True

        @running.setter
        def running(self, value: bool) -> None: ...

    waking = WakesMeanwhile()
    waking.counters.received = 1
    bench = Bench(waking)
    bench.begin()
    bench.look()
    assert bench.wakes == 2
    assert bench.watch.next_look is not None


def test_only_those_are_found_that_run_and_are_to_be_watched() -> None:
    starting, unwatched, stalled = Runner(), Runner(stall_timeout=0.0), Runner()
    starting.running = False
    bench = Bench(starting, unwatched, stalled)
    bench.begin()
    for runner in bench.runners:
        runner.busy_since = bench.now
    assert [runner for runner, _ in bench.look_for(100.0)] == [stalled]


def test_looks_come_four_times_in_the_shortest_limit_and_at_least_every_few_seconds() -> None:
    for limits, interval in (((10.0, 0.4), 0.1), ((1000.0,), 2.5), ((0.0,), 2.5), ((), 2.5)):
        bench = Bench(*(Runner(limit) for limit in limits))
        bench.begin()
        assert bench.watch.next_look == pytest.approx(bench.now + interval)


def test_beginning_again_does_not_put_off_the_next_look() -> None:
    bench = Bench(Runner())
    bench.begin()
    due = bench.watch.next_look
    bench.now += 1.0
    bench.begin()
    assert bench.watch.next_look == due
    assert list(bench.watch.look(bench.runners)) == []
    assert bench.watch.next_look == due


def test_is_stalled_tells_it_at_any_moment() -> None:
    runner = Runner(stall_timeout=10.0)
    bench = Bench(runner)
    assert not bench.watch.is_stalled(bench.runners[0])
    runner.busy_since = bench.now
    bench.now += 10.0
    assert not bench.watch.is_stalled(bench.runners[0])
    bench.now += 0.1
    assert bench.watch.is_stalled(bench.runners[0])


def test_lag_is_measured_while_something_happens_and_not_by_itself() -> None:
    runner, stopped = Runner(), Runner()
    stopped.running = False
    bench = Bench(runner, stopped)
    bench.begin()
    runner.counters.received = 5
    bench.look()
    assert (runner.pings, stopped.pings) == (1, 0)
    bench.begin()  # the ping's own wake-up
    bench.look()
    assert runner.pings == 1
    runner.counters.received = 6
    bench.begin()
    bench.look()
    assert runner.pings == 2
    runner.busy_since = bench.now  # which may be the reason why nothing comes
    bench.begin()
    bench.look()
    assert (runner.pings, stopped.pings) == (3, 0)


def test_the_lag_that_is_shown_is_the_longest() -> None:
    around: Any = None
    runner = ThreadRunner(PluginSpec("a", CircusPlugin), around, Counters())
    runner._note_lag(time.monotonic() - 100.0)
    runner._note_lag(time.monotonic())
    assert runner.counters.lag >= 100.0
    assert runner.counters.lag_sum >= 100.0
    assert (sum(runner.counters.lag_counts), runner.counters.lag_counts[-1]) == (2, 1)


def test_lags_are_counted_by_length_as_prometheus_counts() -> None:
    counters = Counters()
    for seconds in (0.0, 0.001, 0.002, 0.5, 5.0, 5.1):
        counters.note_lag(seconds)
    assert counters.lag_counts == (2, 1, 0, 0, 0, 1, 0, 1, 1)
    assert list(counters.lag_buckets.items()) == [
        *(("0.001", 2), ("0.005", 3), ("0.01", 3), ("0.05", 3), ("0.1", 3), ("0.5", 4)),
        *(("1.0", 4), ("5.0", 5), ("+Inf", 6)),
    ]


def test_a_runner_that_is_gone_is_forgotten() -> None:
    runner = Runner()
    bench = Bench(runner)
    bench.begin()
    runner.busy_since = 1.0
    assert len(bench.look_for(20.0)) == 1
    bench.runners = ()
    bench.look_for(20.0)
    assert bench.watch.next_look is None
    bench.runners = (runner,)
    bench.begin()
    assert len(bench.look_for(20.0)) == 1


def test_a_host_that_has_come_to_rest_has_nothing_to_wake_up_for(fake_circusd: FakeCircusd) -> None:
    class Quiet(CircusPlugin):
        def handle_recv(self, data: tuple[bytes, bytes]) -> None:
            pass

    options = {"use": Quiet, "host.stall_timeout": 0.05}
    endpoints = fake_circusd.endpoint, fake_circusd.pubsub_endpoint
    with Arbiter([{**options, "name": name} for name in "ab"], *endpoints) as arbiter:
        fake_circusd.wait_subscribed(2, PATIENCE)
        fake_circusd.publish("web", "spawn")
        arbiter.wait(lambda now: all(each.counters.handled for each in now.values()), PATIENCE)
        supervisor = arbiter._started.supervisor
        arbiter.wait(lambda _: supervisor.next_timer() is None, PATIENCE)
