# What an isolated plugin's process does when it is told to stop, or its host is gone.

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from circusplug import HostOptions
from circusplug._isolated import child_main


@contextlib.contextmanager
def child_of(control: socket.socket) -> Iterator[Any]:
    """The main thread's part of such a process, before there is a plugin in it."""
    before = signal.set_wakeup_fd(-1)
    child: Any = child_main._Child(control)
    child._launch = SimpleNamespace(host=HostOptions())
    try:
        yield child
    finally:
        signal.set_wakeup_fd(before)
        child._mailbox.close()


def test_a_second_request_to_stop_gives_it_less_time_and_never_more() -> None:
    near, far = socket.socketpair()
    with near, far, child_of(near) as child:
        child._stop_within(10.0)
        soon = child._stop_by
        child._stop_within(100.0)
        assert child._stop_by == soon
        child._stop_within(1.0)
        assert child._stop_by < soon


def test_when_the_host_is_gone_what_is_printed_vanishes_before_it_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    near, far = socket.socketpair()
    with near, child_of(near) as child:
        stops_by: list[Any] = []
        monkeypatch.setattr(
            child_main, "let_go_of_host", lambda options: stops_by.append(child._stop_by)
        )
        far.close()
        child._read_control()
        assert stops_by == [None]
        assert child._stop_by is not None


def test_a_host_that_does_not_read_is_not_taken_for_one_that_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(child_main, "_SEND_WAIT", 0.01)
    near, far = socket.socketpair()
    with near, far, child_of(near) as child:
        child._send(bytes(10_000_000))  # more than a socket holds
        child._read_control()
        assert child._stop_by is None


def test_one_that_does_not_come_to_its_end_kills_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host may be gone, or not know of the stop."""

    class Timer:
        daemon = False

        def __init__(self, seconds: float, *what: Any) -> None:
            timers.append((seconds, what))

        def start(self) -> None:
            timers.append("started")

    timers: list[Any] = []
    runner: Any = SimpleNamespace(
        begin_stop=lambda _: None, finish_stop=lambda _: timers.append("handle_stop"), saved=None
    )
    monkeypatch.setattr(threading, "Timer", Timer)
    near, far = socket.socketpair()
    with near, far, child_of(near) as child:
        child._stop_within(10.0)
        child._parked = True
        child._stop(runner)
    (seconds, what), *rest = timers
    assert (what, rest) == ((os.killpg, (0, signal.SIGKILL)), ["started", "handle_stop"])
    assert 0.0 < seconds <= 10.0 + child_main.LAST_WAIT
