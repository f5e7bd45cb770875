# The end of a `handle_stop` that does not return, and what is as before after it.

from __future__ import annotations

import signal
import sys
import threading
from types import SimpleNamespace

import pytest

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
