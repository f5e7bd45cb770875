# How an isolated plugin's process stops: in which time, and what becomes of it after that.

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from typing import Any

import pytest
from child_here import Runner, child_of, heard

from circusplug._isolated import child_main, messages
from circusplug._runners.runner import Kind, Notice


class Timer:
    """Stands for `threading.Timer`: notes what it is to do, and does not do it."""

    made: list[Any]
    daemon = False

    def __init__(self, seconds: float, *what: Any) -> None:
        self.made.append((seconds, what))

    def start(self) -> None:
        assert self.daemon
        self.made.append("started")


@pytest.fixture(autouse=True)
def timers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the timers do that are made instead of real ones."""
    made: list[Any] = []
    monkeypatch.setattr(Timer, "made", made, raising=False)
    monkeypatch.setattr(threading, "Timer", Timer)
    return made


def test_one_that_does_not_come_to_its_end_kills_itself(timers: list[Any]) -> None:
    """The host may be gone, or not know of the stop."""
    runner: Any = Runner()
    runner.finish_stop = lambda _: timers.append("handle_stop")
    near, far = socket.socketpair()
    with near, far, child_of(near) as child:
        child._stop_within(10.0)
        child._parked = True
        child._stop(runner)
    (seconds, what), *rest = timers
    assert (what, rest) == ((os.killpg, (0, signal.SIGKILL)), ["started", "handle_stop"])
    assert child_main.LAST_WAIT < seconds <= 10.0 + child_main.LAST_WAIT


def test_one_that_has_no_thread_left_for_its_end_stops_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(timer: Timer) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Timer, "start", fail)
    runner: Any = Runner()
    near, far = socket.socketpair()
    with near, far, child_of(near) as child:
        child._parked = True
        child._stop(runner)
    assert [what for what, _ in runner.done] == ["begin", "begin", "finish"]


def test_its_handle_stop_has_its_turn_when_the_event_in_hand_has_had_its_grace() -> None:
    runner: Any = Runner()
    near, far = socket.socketpair()
    with near, far, child_of(near, graceful_timeout=0.0) as child:
        child._stop_within(1000.0)
        child._stop(runner)
        assert heard(far) == [messages.Parked()]
        assert runner.done == [(what, child._stop_by) for what in ("begin", "begin", "finish")]


def test_a_host_that_is_gone_is_not_looked_at_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would keep a core busy for as long as the plugin takes to stop."""
    monkeypatch.setattr(child_main, "let_go_of_host", lambda options: None)
    near, far = socket.socketpair()
    with near, child_of(near, graceful_timeout=0.05) as child:
        looks: list[None] = []
        read = child._read_control
        monkeypatch.setattr(child, "_read_control", lambda: (looks.append(None), read()))
        far.close()
        child._take(None)
        child._stop(Runner())
        assert len(looks) <= 2


def test_one_that_stops_can_be_given_less_time() -> None:
    runner: Any = Runner()
    near, far = socket.socketpair()
    with near, far, child_of(near, graceful_timeout=1000.0) as child:
        near.setblocking(False)
        child._stop_within(1000.0)
        long = child._stop_by
        far.sendall(messages.encode(messages.Stop(0.0)))
        child._stop(runner)
        assert child._stop_by < long
        assert runner.done == [
            ("begin", long),
            ("begin", child._stop_by),
            ("finish", child._stop_by),
        ]


def test_one_that_has_ended_while_it_was_to_stop_is_not_waited_for() -> None:
    runner: Any = Runner()
    near, far = socket.socketpair()
    with near, far, child_of(near, graceful_timeout=1000.0) as child:
        child._stop_within(1000.0)
        child._mailbox.put(Notice(runner, Kind.ENDED, "why"))
        child._stop(runner)
    assert [what for what, _ in runner.done] == ["begin", "begin", "finish"]


def test_what_it_hands_over_is_said_after_its_stop() -> None:
    runner: Any = Runner()
    runner.saved = {"number": 1}
    near, far = socket.socketpair()
    with near, far, child_of(near) as child:
        child._parked = True
        child._stop(runner)
        assert heard(far) == [messages.Parked(), messages.Saved('{"number": 1}')]


@pytest.mark.parametrize("ask", ["stop", Kind.STOP_ASKED])
def test_a_stop_that_the_host_has_not_asked_for_may_take_as_long_as_one_that_it_has(
    ask: Any,
) -> None:
    near, far = socket.socketpair()
    with near, far, child_of(near, graceful_timeout=1000.0) as child:
        before = time.monotonic()
        child._mailbox.put(ask if ask == "stop" else Notice(child, ask))
        child._take(None)
        assert before + 1100.0 <= child._stop_by <= time.monotonic() + 1100.0
