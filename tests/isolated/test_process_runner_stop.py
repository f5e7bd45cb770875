# How the runner of an isolated plugin stops its process, by a clock of the test's own.

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from process_runners import new_runner

from circusplug._isolated import messages, process_runner
from circusplug._runners.runner import Notice


class Stopping:
    """A runner whose process runs, at a moment of the test's, and what it does to stop it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.runner = new_runner([], **options)
        self.now = 1000.0
        self.done: list[Any] = []
        self.timers: list[tuple[float, Callable[[], object]]] = []
        self.runner._life.stage = process_runner._Stage.ALIVE
        child, note = self.runner._child, self.done.append
        monkeypatch.setattr(process_runner, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(self.runner._reader, "call_at", lambda *it: self.timers.append(it))
        monkeypatch.setattr(child, "send", note)
        monkeypatch.setattr(child, "signal", lambda number: note(signal.Signals(number).name))
        monkeypatch.setattr(child, "kill", lambda: note("killed"))
        monkeypatch.setattr(self.runner, "_wait", self._wait)

    def _wait(self, predicate: Callable[[], bool], until: float) -> bool:
        self.done.append(round(until - 1000.0, 6))
        self.now = max(self.now, until)
        return predicate()


def test_one_that_does_not_stop_gets_its_signal_and_is_killed_in_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stopping = Stopping(monkeypatch, graceful_timeout=3.0, stop_signal=int(signal.SIGUSR1))
    assert stopping.runner.finish_stop(1020.0) is False
    # Its grace and an answer; a second for the signal; and for its end when it is killed.
    order = messages.Stop(19.0)
    assert stopping.done == [order, 3.5, "SIGUSR1", 4.5, "killed", 6.5]
    assert [record.getMessage() for record in caplog.records] == [
        "one is still busy after 3.5 s; sending SIGUSR1",
        "one does not end; killing it",
    ]
    assert [moment for moment, _ in stopping.timers] == [1003.5]


def test_one_whose_handle_stop_has_its_turn_has_all_the_time_but_that_for_signals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopping = Stopping(monkeypatch, graceful_timeout=3.0)
    stopping.runner.heard(messages.Parked())
    assert stopping.runner.finish_stop(1020.0) is False
    assert stopping.done[1:5] == [3.5, 19.0, "SIGTERM", 20.0]


def test_its_grace_counts_from_the_first_time_that_it_was_asked_to_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopping = Stopping(monkeypatch, graceful_timeout=3.0)
    stopping.runner.begin_stop(1020.0)
    stopping.now = 1002.0
    stopping.runner.finish_stop(1020.0)
    assert stopping.done[2] == 3.5


def test_one_whose_time_is_over_has_a_moment_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    stopping = Stopping(monkeypatch)
    stopping.runner.finish_stop(999.0)
    least = process_runner._SIGNAL_LEAST
    assert stopping.done[:3] == [messages.Stop(0.0), -0.5, "SIGTERM"]
    assert stopping.done[3] == pytest.approx(least, abs=1e-6)
    stopping = Stopping(monkeypatch)
    stopping.runner.finish_stop(1000.4)
    assert stopping.done[:4] == [messages.Stop(pytest.approx(0.3)), 0.5, "SIGTERM", 0.6]


@pytest.mark.parametrize("by", ["signal", "kill"])
def test_one_that_ends_at_last_is_not_left_behind(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stopping = Stopping(monkeypatch)
    monkeypatch.setattr(stopping.runner._child, by, lambda *_: stopping.runner.ended(-15))
    assert stopping.runner.finish_stop(1020.0) is True
    assert ("SIGTERM" in stopping.done, "killed" in stopping.done) == (by == "kill", False)
    assert stopping.runner.finish_stop(1020.0) is True


def test_one_that_was_never_started_has_nothing_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    stopping = Stopping(monkeypatch)
    stopping.runner._life.stage = process_runner._Stage.NEW
    assert stopping.runner.finish_stop(1020.0) is True
    assert stopping.done == stopping.timers == []


def test_one_that_says_that_it_is_the_turn_of_its_handle_stop_is_no_silent_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[Notice] = []
    stopping = Stopping(monkeypatch)
    stopping.runner._around = dataclasses.replace(stopping.runner._around, notify=told.append)
    stopping.runner.begin_stop(1020.0)
    stopping.runner.begin_stop(1019.0)
    ((_, look),) = stopping.timers  # the second asks for no second look
    stopping.runner.heard(messages.Parked())
    look()
    assert told == []


def test_an_orphan_is_asked_to_stop_and_killed_if_it_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopping = Stopping(monkeypatch, graceful_timeout=3.0)
    stopping.runner.orphaned()
    ((moment, kill),) = stopping.timers
    assert (stopping.done, moment) == ([messages.Stop(3.0)], 1004.0)
    kill()
    assert stopping.done[1:] == ["killed"]
