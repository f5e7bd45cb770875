# What an isolated plugin's process does when it is told something, is to stop, or its host is gone.

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from circusplug import HostConfig, HostOptions, PluginSpec
from circusplug._isolated import child_main, messages
from circusplug._plugin.status import Counters
from circusplug._runners.runner import Kind, Notice
from circusplug._wire.endpoints import Link


class Runner:
    """What a process has its plugin do, noted."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.spec = PluginSpec("one", "absent.Plugin")
        self.counters = Counters(received=3, handled=2, lag=0.5, lag_sum=0.75)
        self.hands_over = False
        self.saved: Any = None
        self.failure: str | None = None
        self.busy_since = 12.5
        self.connected = True
        self.awaits_circusd = True
        self.last_error = "two\nlines"

    def begin_stop(self, deadline: float) -> None:
        self.done.append(("begin", deadline))

    def finish_stop(self, deadline: float) -> bool:
        self.done.append(("finish", deadline))
        return True

    def run_handle_stop(self) -> None:
        self.done.append("handle_stop")

    def stack(self) -> str:
        return "at work"


@contextlib.contextmanager
def child_of(control: socket.socket, **options: Any) -> Iterator[Any]:
    """The main thread's part of such a process, before there is a plugin in it."""
    before = signal.set_wakeup_fd(-1)
    child: Any = child_main._Child(control)
    child._launch = SimpleNamespace(host=HostOptions(**options), stop_timeout=100.0)
    try:
        yield child
    finally:
        signal.set_wakeup_fd(before)
        child._mailbox.close()


def heard(far: socket.socket) -> list[Any]:
    """All that such a process has said so far."""
    far.setblocking(False)
    data = b""
    with contextlib.suppress(BlockingIOError):
        while more := far.recv(1_000_000):
            data += more
    return [messages.decode(line, messages.REPORTS) for line in data.splitlines()]


def kinds(said: list[Any]) -> list[str]:
    return [type(report).__name__ for report in said]


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


# What the host asks for, and what it is told.


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


# Its stop.


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


# Before there is a plugin.


class Beginning:
    """What is done before there is a plugin, up to making it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.signals: set[int] = set()
        self.host = HostOptions()
        parts = PluginSpec("one", "absent.Plugin"), HostConfig(), Link(), None
        self._plugin = pickle.dumps(parts)
        for name in ("log_to", "set_up", "redirect", "import_main"):
            monkeypatch.setattr(child_main, name, lambda *_: None)
        monkeypatch.setattr(child_main.edited_code, "turn_off", lambda: None)
        monkeypatch.setattr(child_main._Child, "_outlive_host", lambda _: None)
        monkeypatch.setattr(child_main, "take_signal", lambda number, _: self.signals.add(number))
        monkeypatch.setattr(child_main, "ThreadRunner", lambda *_: pytest.fail("it is made"))
        monkeypatch.setattr(messages, "receive_launch", lambda _: self._launch())

    def _launch(self) -> messages.Launch:
        return messages.Launch(
            self.host, 1.0, [], [], None, {}, log_level=0, main={}, plugin=self._plugin
        )


@pytest.fixture
def beginning(monkeypatch: pytest.MonkeyPatch) -> Beginning:
    return Beginning(monkeypatch)


def test_a_plugin_whose_stop_comes_before_it_is_there_is_not_made(beginning: Beginning) -> None:
    near, far = socket.socketpair()
    with near, far, child_of(near) as child:
        far.sendall(messages.encode(messages.Stop(1.0)))
        assert child.live([0, 0, 0, 0]) == 0
        assert heard(far) == [messages.Ended(None, permanent=False, retry=False)]


def test_a_stop_signal_that_nobody_can_catch_is_left_alone(beginning: Beginning) -> None:
    beginning.host = HostOptions(stop_signal=signal.SIGKILL)
    near, far = socket.socketpair()
    with near, far, child_of(near) as child:
        child._stop_within(1.0)
        assert child.live([0, 0, 0, 0]) == 0
    assert beginning.signals == {signal.SIGTERM}


def test_an_import_that_meets_the_end_of_a_file_is_told_as_any_other_error(
    beginning: Beginning, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise EOFError("marshal data too short")

    monkeypatch.setattr(child_main, "import_main", fail)
    near, far = socket.socketpair()
    with near, far, child_of(near) as child:
        assert child.live([0, 0, 0, 0]) == 1
        (end,) = heard(far)
    assert end.error == (
        "its process cannot load the plugin's class or options: EOFError: marshal data too short"
    )


def test_a_process_whose_host_has_gone_before_it_said_anything_ends(
    beginning: Beginning, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise EOFError("the host is gone")

    monkeypatch.setattr(messages, "receive_launch", fail)
    near, far = socket.socketpair()
    with near, child_of(near) as child:
        far.close()
        assert child.live([0, 0, 0, 0]) == 1
