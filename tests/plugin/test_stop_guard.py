# The end of a `handle_stop` that does not return, and what is as before after it.

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from types import SimpleNamespace

import pytest
from members import in_thread

from circusplug._plugin import stop_guard
from circusplug._plugin.stop_guard import StopGuard


def test_code_that_swallows_its_end_is_ended_and_leaves_no_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The more, the more surely it is not interrupted while it deals with the one before.
    for name in ("_AGAIN", "_AT_LAST"):
        monkeypatch.setattr(stop_guard, name, 0.2)
    swallowed = []

    def stubborn() -> None:
        while True:
            try:
                while True:
                    pass
            except BaseException as error:
                swallowed.append(error)

    before = sys.gettrace(), signal.getsignal(signal.SIGALRM)
    with pytest.raises(TimeoutError, match="did not return"):
        StopGuard(0.01).run(stubborn)
    assert len(swallowed) >= 2
    assert (sys.gettrace(), signal.getsignal(signal.SIGALRM)) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_one_that_overruns_in_good_time_costs_the_next_ones_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(stop_guard, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(stop_guard, "_LEAST", 0.2)
    guard = StopGuard(600.0)
    guard.begin(0.1)
    for now in (0.0, 1.0):  # noqa: B007 - the clock's
        with pytest.raises(TimeoutError, match=r"within 0\.2 s$"):
            guard.run(threading.Event().wait)


def test_those_that_behave_cost_the_next_ones_nothing_however_late_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert stop_guard._LEAST == 1.0  # "one second at least"
    monkeypatch.setattr(stop_guard, "_LEAST", 0.2)
    guard = StopGuard(600.0)
    guard.begin(0.0)
    for _ in range(3):
        guard.run(lambda: None)
    with pytest.raises(TimeoutError, match=r"within 0\.2 s$"):
        guard.run(threading.Event().wait)


def test_no_time_at_all_is_not_time_without_end() -> None:
    with pytest.raises(TimeoutError, match="did not return"):
        StopGuard(0.0).run(threading.Event().wait)


def test_each_one_that_hangs_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stop_guard, "_AGAIN", 0.2)  # to tell takes less, on a busy machine as well

    def twice() -> None:
        with contextlib.suppress(stop_guard.StopOverrun):
            threading.Event().wait()
        threading.Event().wait()

    guard = StopGuard(0.01)
    for times in (1, 2):
        with pytest.raises(TimeoutError):
            guard.run(twice)
        assert caplog.text.count("handle_stop takes too long; it is at") == times


def test_off_the_main_thread_it_runs_even_if_no_thread_is_left_to_watch_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left(self: threading.Timer) -> None:
        raise RuntimeError("can't start new thread")

    ran: list[bool] = []
    guard = StopGuard(600.0)
    in_thread(lambda: guard.run(lambda: ran.append(True)))  # and its watch ends with it

    def run() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Timer, "start", none_left)
            guard.run(lambda: ran.append(True))

    in_thread(run)
    assert ran == [True, True]
