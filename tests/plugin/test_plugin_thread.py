# The stop of a plugin's thread: how long is waited for what, by a clock of the test's own.

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from circusplug._plugin import plugin_thread
from circusplug._plugin.plugin_thread import PARK_WAIT, PluginThread

NOW = 1000.0


class Parked:
    """An event that answers as it is told, and notes how long it was waited for."""

    def __init__(self, *answers: bool) -> None:
        self._answers = [*answers]
        self.waits: list[float] = []

    def wait(self, timeout: float) -> bool:
        self.waits.append(round(timeout, 6))
        return self._answers.pop(0)


class Worker:
    """What a thread sees of a worker."""

    name = "one"
    abandoned = False

    def __init__(self, *parks: bool) -> None:
        self.parked = Parked(*parks)
        self.told: list[str] = []
        self.client = SimpleNamespace(refuse=lambda why: self.told.append(f"refuse: {why}"))

    def park(self) -> None:
        self.told.append("park")

    def cancel_in_hand(self) -> None:
        self.told.append("cancel")

    def abandon(self) -> None:
        self.told.append("abandon")
        self.abandoned = True

    def end(self) -> None:
        self.told.append("end")


class Thread:
    """A thread that does not end until it is joined."""

    ident = None

    def __init__(self, ends: bool) -> None:
        self._ends = ends
        self.alive = True
        self.joins: list[float] = []

    def join(self, timeout: float) -> None:
        self.joins.append(round(timeout, 6))
        self.alive = not self._ends

    def is_alive(self) -> bool:
        return self.alive


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_thread, "time", SimpleNamespace(monotonic=lambda: NOW))


def made(worker: Worker, ends: bool = True) -> tuple[Any, Thread]:
    ours: Any = PluginThread(worker, lambda: None)  # type: ignore[arg-type]
    ours._thread = thread = Thread(ends)
    return ours, thread


@pytest.mark.parametrize(
    ("stops", "waited"),
    [
        ([(5.0, 10.0)], 5.0),
        ([(5.0, 3.0)], 3.0),
        ([(0.0, 10.0)], PARK_WAIT),
        ([(5.0, -1.0)], PARK_WAIT),
        ([(5.0, 10.0), (8.0, 10.0)], 5.0),
        ([(5.0, 10.0), (2.0, 10.0)], 2.0),
        ([], 0.0),
    ],
    ids=["grace", "deadline", "no grace", "too late", "later stop", "earlier stop", "no stop"],
)
def test_an_event_in_hand_has_its_grace_within_the_deadline_and_no_second_stop_prolongs_it(
    stops: list[tuple[float, float]], waited: float
) -> None:
    worker = Worker(True)
    thread, _ = made(worker)
    for grace, deadline in stops:
        thread.begin_stop(grace, NOW + deadline)
    assert thread.finish_stop(NOW + 10.0, lambda: worker.told.append("handle_stop"))
    assert worker.parked.waits == [waited]
    assert worker.told == [*["park"] * len(stops), "handle_stop", "end"]


@pytest.mark.parametrize(("left", "waited"), [(10.0, 0.5), (0.2, 0.2), (-5.0, 0.0)])
def test_one_that_overstays_is_cancelled_and_has_a_moment_more(left: float, waited: float) -> None:
    worker = Worker(False, True)
    thread, _ = made(worker)
    thread.begin_stop(5.0, NOW + 10.0)
    assert thread.finish_stop(NOW + left, lambda: None)
    assert worker.parked.waits == [5.0, waited]
    assert worker.told == ["park", "cancel", "end"]


def test_one_that_is_stuck_is_left_behind_and_its_handle_stop_runs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = Worker(False, False)
    thread, fake = made(worker, ends=False)
    thread.begin_stop(5.0, NOW + 10.0)
    assert not thread.finish_stop(NOW + 10.0, lambda: worker.told.append("handle_stop"))
    refused = "refuse: the plugin's thread is stuck and was left behind"
    assert worker.told == ["park", "cancel", refused, "abandon", "handle_stop", "end"]
    assert fake.joins == []
    assert "one is still busy and is left behind" in caplog.text


@pytest.mark.parametrize(("left", "joined"), [(60.0, 5.0), (2.0, 2.0), (-1.0, 0.5)])
def test_the_end_of_the_thread_is_waited_for_within_bounds(
    left: float, joined: float, caplog: pytest.LogCaptureFixture
) -> None:
    for ends in (True, False):
        thread, fake = made(Worker(True), ends)
        assert thread.finish_stop(NOW + left, lambda: None) is ends
        assert fake.joins == [joined]
    assert caplog.text.count("one has stopped, but its thread does not end") == 1


def test_it_keeps_no_process_from_ending_and_says_whose_it_is() -> None:
    thread: Any = PluginThread(Worker(), lambda: None)  # type: ignore[arg-type]
    assert (thread._thread.daemon, thread._thread.name) == (True, "plugin:one")
    assert (thread.thread, thread.stack()) == (None, "")
