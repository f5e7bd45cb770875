# What an isolated plugin's process does when its host tells it something, or is gone.

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from types import SimpleNamespace
from typing import Any

import pytest
from child_here import Runner, child_of, heard

from circusplug._isolated import child_main, messages
from circusplug._runners.runner import Kind, Notice


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
        assert child._stop_by <= time.monotonic() + child._launch.host.graceful_timeout
        child._read_control()
        assert stops_by == [None]


def test_a_host_that_has_left_something_unread_is_gone_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(child_main, "let_go_of_host", lambda options: None)
    near, far = socket.socketpair()
    with near, child_of(near) as child:
        child._say(messages.Begun())
        far.close()  # the next look is a reset connection
        child._read_control()
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


@pytest.mark.parametrize("is_set_up", [False, True])
def test_one_that_is_busy_when_its_host_dies_lets_go_of_it_or_ends_if_it_has_nothing_to_clean_up(
    is_set_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Any] = []
    monkeypatch.setattr(os, "killpg", lambda *what: done.append(what))
    monkeypatch.setattr(child_main, "let_go_of_host", done.append)
    near, far = socket.socketpair()
    with near, child_of(near) as child:
        child._is_set_up = is_set_up
        far.close()
        child._outlive_host()
        killed = [] if is_set_up else [(0, signal.SIGKILL)]
        assert done == [*killed, child._launch.host]


def test_it_says_how_its_plugin_is_doing_and_what_it_is_at() -> None:
    near, far = socket.socketpair()
    with near, far, child_of(near) as child:
        near.setblocking(False)
        orders = (messages.AskState(), messages.AskStack())
        far.sendall(b"".join(map(messages.encode, orders)))
        child._read_control()  # there is no plugin yet
        assert heard(far) == []
        runner = child._runner = Runner()
        far.setblocking(True)
        far.sendall(b"".join(map(messages.encode, orders)))
        child._read_control()
        state, stack = heard(far)
    assert stack == messages.Stack("at work")
    assert (state.received, state.handled, state.errors) == (3, 2, 0)
    assert (state.lag, state.lag_sum, state.lag_counts) == (0.5, 0.75, runner.counters.lag_counts)
    assert (state.busy_since, state.last_error) == (12.5, "two lines")
    assert (state.connected, state.awaits_circusd) == (True, True)
    runner.connected = False
    assert child._state(runner).connected is False
    assert child._state(runner).awaits_circusd is True


def test_it_takes_the_hosts_log_level_and_whether_to_hand_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger(), "level", logging.WARNING)
    near, far = socket.socketpair()
    with near, far, child_of(near) as child:
        runner = child._runner = Runner()
        child._obey(messages.LogLevel(7))
        assert logging.getLogger().level == 7
        child._obey(messages.Stop(1.0, hands_over=True))
        assert runner.hands_over
        assert child._stop_by is not None


@pytest.mark.parametrize(
    ("kind", "report"),
    [
        (Kind.BEGUN, messages.Begun()),
        (Kind.RUNNING, messages.Running()),
        (Kind.WAITING, messages.Waiting()),
    ],
)
def test_how_it_is_doing_comes_before_what_has_happened(kind: Kind, report: Any) -> None:
    near, far = socket.socketpair()
    with near, far, child_of(near) as child:
        runner: Any = Runner()
        child._runner = runner
        child._notice(Notice(runner, kind))
        state, said = heard(far)
        assert (type(state), said) == (messages.State, report)
        child._notice(Notice(runner, Kind.TOO_MANY_ERRORS, "two\nlines"))
        assert heard(far) == [messages.TooManyErrors("two lines")]


def test_a_stall_and_the_end_are_told_with_how_it_was_doing() -> None:
    near, far = socket.socketpair()
    with near, far, child_of(near) as child:
        runner: Any = Runner()
        child._runner = runner
        child._watch = SimpleNamespace(next_look=None, look=lambda _: ["its stack"])
        child._mailbox.put(Notice(runner, Kind.ENDED, "why", permanent=True, retry=True))
        assert child._run(runner) == 1
        state, stall, last, end = heard(far)
    assert stall == messages.Stalled("its stack")
    assert type(state) is type(last) is messages.State
    assert end == messages.Ended("why", permanent=True, retry=True)
    assert runner.done == ["handle_stop"]
