# What runs in an isolated plugin's process: the same runner on a thread of its own, and this, on
# the main thread, which talks to the host and runs `handle_stop`.
#
# Owner: the main thread reads the control socket and writes to it; nobody else does, but that
# one thread waits for its end, which is how it notices that the host has died.

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

from .._errors import describe
from .._logs import logger
from .._loop.mailbox import Mailbox
from .._plugin import edited_code
from .._plugin.load import load_problems
from .._plugin.status import Counters
from .._runners.runner import Kind, Notice, Surroundings
from .._runners.thread_runner import ThreadRunner
from .._signals import ignore, take_signal
from . import messages
from .child_stall_watch import ChildStallWatch
from .line_buffer import LineBuffer
from .process_setup import import_main, let_go_of_host, log_to, redirect, set_up

#: How long a process may take beyond the time it was given to stop, in seconds.
LAST_WAIT = 1.5
#: How long the host may take to read what is said to it, in seconds.
_SEND_WAIT = 1.0


def main(fds: Sequence[int]) -> int:
    """Live one isolated plugin's life; the first thing that a forked process does.

    Args:
        fds: The control socket; pipes for log records, standard output, standard error and what
            the watchdog finds.

    Returns:
        The exit status.
    """
    forkserver = os.getppid()
    os.setsid()
    # The host alone decides what these mean. Handlers, since a plugin's programs would inherit
    # that they are ignored.
    for ignored in (signal.SIGINT, signal.SIGHUP):
        take_signal(ignored, ignore)
    child = _Child(socket.socket(fileno=fds[0]))
    status = child.live(fds[1:])
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if os.getppid() != forkserver:
        os.killpg(0, signal.SIGKILL)  # what the plugin has started, as the forkserver would do
    return status


class _Child:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._mailbox: Mailbox[Notice | str] = Mailbox()
        self._mailbox.also_watch(control.fileno())
        signal.set_wakeup_fd(self._mailbox.wakeup_fd, warn_on_full_buffer=False)
        self._lines = LineBuffer()
        self._runner: ThreadRunner | None = None
        self._is_set_up = False
        self._stop_by: float | None = None
        self._ended: Notice | None = None
        self._parked = False

    def live(self, pipes: Sequence[int]) -> int:
        """Get ready, and run the plugin until it is stopped or over; returns the exit status."""
        doing = "be set up"
        try:
            launch = self._launch = messages.receive_launch(self._control.recv)
            self._control.setblocking(False)
            for number in {signal.SIGTERM, launch.host.stop_signal} - _UNCATCHABLE:
                take_signal(number, self._on_signal)
            threading.Thread(target=self._outlive_host, name="circusplug-host", daemon=True).start()
            log_to(pipes[0], launch.log_level)
            set_up(launch)
            redirect(launch.host, pipes)
            doing = "load the plugin's class or options"
            import_main(launch.main)
            edited_code.turn_off()
            spec, config, link, state = pickle.loads(launch.plugin)
            if launch.only_check:
                problem = messages.one_line("; ".join(load_problems(spec)))
                self._say(messages.Ended(problem or None, permanent=bool(problem), retry=False))
                return 0
            doing = "run it"
            self._watch = ChildStallWatch(spec.host.stall_timeout, pipes[3], self._mailbox.put)
            around = Surroundings(config, link, self._mailbox.put, activity=self._watch.activity)
            self._read_control()
            self._is_set_up = True
            if self._stop_by is not None:
                self._say(messages.Ended(None, permanent=False, retry=False))
                return 0
            handed_over = None if state is None else json.loads(state)
            self._runner = ThreadRunner(spec, around, Counters(), handed_over)
            self._runner.start()
        except Exception as error:  # noqa: BLE001 - told to the host, which logs it
            error_text = f"its process cannot {doing}: {describe(error)}"
            self._say(messages.Ended(error_text, permanent=False, retry=False))
            return 1
        return self._run(self._runner)

    def _run(self, runner: ThreadRunner) -> int:
        """Take in what comes, until the plugin has ended or has stopped."""
        while self._ended is None and self._stop_by is None:
            self._take(self._watch.next_look)
            for stack in self._watch.look(runner):
                self._say(self._state(runner))
                self._say(messages.Stalled(stack))
        if self._ended is None:
            self._stop(runner)
        ended = self._ended or Notice(runner, Kind.ENDED, runner.failure)
        runner.run_handle_stop()  # where it has not run yet
        self._say(self._state(runner))
        self._say(messages.Ended(ended.error, ended.permanent, ended.retry))
        return 1 if ended.error else 0

    def _stop(self, runner: ThreadRunner) -> None:
        """Stop in the time there is: the event in hand, then `handle_stop`, then the end."""
        now = time.monotonic()
        stop_by = self._stop_by or now
        kill = threading.Timer(stop_by + LAST_WAIT - now, os.killpg, (0, signal.SIGKILL))
        kill.daemon = True
        with contextlib.suppress(RuntimeError):  # no thread is left for it
            kill.start()  # the host may be gone, or not know of this stop
        runner.begin_stop(stop_by)
        grace_end = now + self._launch.host.graceful_timeout
        while not self._parked and self._ended is None:
            until = min(grace_end, stop_by)
            if until <= time.monotonic():
                break
            self._take(until)  # it may still be asked how it is doing, or be given less time
            stop_by = self._stop_by or stop_by
        self._say(messages.Parked())
        runner.begin_stop(stop_by)
        runner.finish_stop(stop_by)
        if runner.saved is not None:
            self._hand_over(runner)

    def _hand_over(self, runner: ThreadRunner) -> None:
        try:
            line = messages.encode_state(runner.saved)
        except (ValueError, TypeError, RecursionError) as error:
            logger.error("%s: get_state: not handed over: %s", runner.spec.name, describe(error))
        else:
            self._send(line)

    def _take(self, until: float | None) -> None:
        """Wait for something, and take it in."""
        item = self._mailbox.get(None if until is None else max(0.0, until - time.monotonic()))
        if item == "watch":
            self._watch.begin(self._runner)
        elif item == "stop":
            self._stop_within(self._longest_stop)
        elif isinstance(item, Notice):
            self._notice(item)
        else:
            self._read_control()

    def _notice(self, notice: Notice) -> None:
        kind = notice.kind
        if kind is Kind.ENDED:
            self._ended = notice
        elif kind is Kind.PARKED:
            self._parked = True
        elif kind is Kind.STOP_ASKED:
            self._stop_within(self._longest_stop)
        elif kind is Kind.TOO_MANY_ERRORS:
            self._say(messages.TooManyErrors(messages.one_line(notice.error) or ""))
        elif kind in _REPORTED:
            assert self._runner is not None
            self._say(self._state(self._runner))
            self._say(_REPORTED[kind])

    @property
    def _longest_stop(self) -> float:
        return self._launch.host.graceful_timeout + self._launch.stop_timeout

    def _stop_within(self, seconds: float) -> None:
        moment = time.monotonic() + seconds
        self._stop_by = moment if self._stop_by is None else min(moment, self._stop_by)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Stop, unless that is what it does already: a signal may come from anybody."""
        self._mailbox.put("stop")

    # The host's end.

    def _outlive_host(self) -> None:
        """Wait for the host's end, on a thread, as the main one may be busy."""
        poll = select.poll()
        poll.register(self._control.fileno(), 0)  # the end of a socket is told in any case
        poll.poll()
        if not self._is_set_up:
            os.killpg(0, signal.SIGKILL)  # it has nothing to clean up yet
        let_go_of_host(self._launch.host)

    # The control socket.

    def _read_control(self) -> None:
        try:
            data = self._control.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        for line in self._lines.feed(data):
            self._obey(messages.decode(line, messages.ORDERS))
        if not data:
            self._mailbox.unwatch(self._control.fileno())  # its end can be read for ever
            if self._stop_by is None:
                let_go_of_host(self._launch.host)  # here, too, so that handle_stop finds it done
                self._stop_within(self._launch.host.graceful_timeout)

    def _obey(self, order: Any) -> None:
        if isinstance(order, messages.Stop):
            if self._runner is not None:
                self._runner.hands_over = order.hands_over
            self._stop_within(order.seconds)
        elif self._runner is not None and isinstance(order, messages.AskState):
            self._say(self._state(self._runner))
        elif self._runner is not None and isinstance(order, messages.AskStack):
            self._say(messages.Stack(self._runner.stack()))
        elif isinstance(order, messages.LogLevel):
            logging.getLogger().setLevel(order.level)

    def _state(self, runner: ThreadRunner) -> messages.State:
        counters = runner.counters
        return messages.State(
            **{name: getattr(counters, name) for name in messages.COUNTED},
            lag=counters.lag,
            lag_sum=counters.lag_sum,
            lag_counts=counters.lag_counts,
            busy_since=runner.busy_since,
            connected=runner.connected,
            awaits_circusd=runner.awaits_circusd,
            last_error=messages.one_line(runner.last_error),
        )

    def _say(self, report: Any) -> None:
        """Tell the host something; a host that is gone, or does not read, does not matter."""
        self._send(messages.encode(report))

    def _send(self, line: bytes) -> None:
        self._control.settimeout(_SEND_WAIT)
        with contextlib.suppress(OSError):
            self._control.sendall(line)
        self._control.setblocking(False)


_UNCATCHABLE = {signal.SIGKILL, signal.SIGSTOP}
_REPORTED: dict[Kind, Any] = {
    Kind.BEGUN: messages.Begun(),
    Kind.RUNNING: messages.Running(),
    Kind.WAITING: messages.Waiting(),
}
