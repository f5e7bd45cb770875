# The watch for stalls in an isolated plugin's process, by a clock of the test's, with a watchdog
# that only notes what it is told.

from __future__ import annotations

import faulthandler
from types import SimpleNamespace
from typing import Any

import pytest

from circusplug import Counters, HostOptions
from circusplug._isolated.child_stall_watch import ChildStallWatch


class Runner(SimpleNamespace):
    """What the watch looks at of a runner."""

    __hash__ = object.__hash__  # type: ignore[assignment]


class Bench:
    """A watch, its one runner and its clock, and what it tells the watchdog and the process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stall_timeout: float = 10.0) -> None:
        self.told: list[Any] = []
        monkeypatch.setattr(
            faulthandler,
            "dump_traceback_later",
            lambda seconds, file: self.told.append((seconds, file)),
        )
        monkeypatch.setattr(
            faulthandler, "cancel_dump_traceback_later", lambda: self.told.append("cancelled")
        )
        self.now = 100.0
        self.watch = ChildStallWatch(stall_timeout, 7, self.told.append)
        self.watch._watch._clock = lambda: self.now
        self.runner: Any = Runner(
            spec=SimpleNamespace(host=HostOptions(stall_timeout=stall_timeout)),
            counters=Counters(),
            busy_since=0.0,
            running=True,
            measure_lag=lambda: None,
            stack=lambda: "its stack",
        )

    def look(self) -> list[str]:
        """Let the time of the next look come, and look."""
        assert self.watch.next_look is not None
        self.now = self.watch.next_look
        return list(self.watch.look(self.runner))


def test_the_watchdog_watches_from_the_first_activity_until_all_is_quiet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch)
    bench.watch.activity()
    bench.watch.activity()
    assert bench.told == [(12.5, 7), "watch"]
    bench.watch.begin(bench.runner)
    bench.runner.busy_since = bench.now
    assert bench.watch.look(bench.runner) == []  # not the time yet
    assert bench.told == [(12.5, 7), "watch"]
    assert bench.look() == []
    assert bench.told[2:] == [(12.5, 7)]  # each look puts it off
    bench.runner.busy_since = 0.0
    bench.look()
    assert (bench.told[3:], bench.watch.next_look) == (["cancelled"], None)
    assert bench.watch.look(bench.runner) == []
    assert len(bench.told) == 4


def test_a_callback_that_runs_for_too_long_is_told_with_its_stack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch)
    bench.watch.activity()
    bench.watch.begin(bench.runner)
    bench.runner.busy_since = bench.now
    found = [stack for _ in range(8) for stack in bench.look()]
    assert found == ["its stack"]


def test_nothing_is_watched_before_there_is_a_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.watch.begin(None)
    assert bench.watch.next_look is None


def test_a_plugin_that_may_take_any_time_has_no_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, stall_timeout=0.0)
    bench.watch.activity()
    assert bench.told == ["watch"]
