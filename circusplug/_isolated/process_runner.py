# The runner that gives a plugin a process of its own, forked from multiprocessing's
# forkserver: never from the host, which has threads whose locks would stay locked in a copy.
#
# Owner: what the child says comes in on the reading thread of `Children`, which is the only
# writer of the counters and the state; `_start` runs on a thread of its own, and
# everything else on the supervising thread. `_lock` guards that the child is told to begin
# before anything else, and that its end is told once. A child is reaped by the forkserver; the
# sentinel tells of its end.

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import multiprocessing
import os
import pickle
import signal
import socket
import threading
import time
from dataclasses import replace
from typing import Any

from .. import _logs
from .._config.specs import PluginSpec
from .._runners.runner import Kind, Notice, Surroundings
from .._status import Counters
from . import child_main
from .forkserver import Child, describe_status, read_status
from .line_buffer import LineBuffer
from .messages import Report
from .pipes import Children, lowest_level

#: How long a signal is given before the next one, and a killed process to be gone, in seconds.
_SIGNAL_WAIT = 1.0
_KILL_WAIT = 2.0
#: What part of the time for stopping is kept for the signals, if a second is more than that.
_SIGNAL_PART = 0.25
#: What a signal has in any case, and a process to stop by itself, in seconds.
_SIGNAL_LEAST = 0.02
_STOP_LEAST = 0.5
_ORPHANED = "the forkserver died"


class ProcessRunner:
    """One life of one plugin, in a process of its own."""

    def __init__(
        self, spec: PluginSpec, around: Surroundings, counters: Counters, children: Children
    ) -> None:
        self.spec = spec
        self.counters = counters
        self._around = around
        self._children = children
        self._control: socket.socket | None = None
        self._child: Child | None = None
        self._lock = threading.Lock()
        self._pid: int | None = None
        self._report = Report(counters)
        self._failure: str | None = None
        self._said_end = False
        self._permanent = self._retry = False
        self._stop_order: dict[str, Any] | None = None
        self._running = self._over = self._cancelled = False
        self._control_gone = self._sentinel_gone = False
        self._told: set[Kind] = set()
        self._next_stall = 0.0
        self._asked_at = 0.0
        self._orphan_timer: threading.Timer | None = None
        self._started, self._ended = threading.Event(), threading.Event()
        self._refreshed = threading.Event()

    def start(self) -> None:
        # On a thread: a forkserver that hangs shall not make the host hang.
        name = f"start:{self.spec.name}"
        threading.Thread(target=self._start, name=name, daemon=True).start()

    def begin_stop(self, deadline: float) -> None:
        left = max(0.0, deadline - time.monotonic())
        for_signals = min(_SIGNAL_WAIT, left * _SIGNAL_PART)
        limit = left - for_signals
        grace = min(self.spec.host.graceful_timeout, limit)
        with self._lock:  # if its process is not there yet, it is told as soon as it is
            self._stop_order = {"do": "stop", "grace": grace, "limit": limit}
            self._tell(self._stop_order)

    def finish_stop(self, deadline: float) -> bool:
        for_signals = min(_SIGNAL_WAIT, max(_SIGNAL_LEAST, deadline - time.monotonic()))
        self._ended.wait(max(_STOP_LEAST, deadline - for_signals - time.monotonic()))
        if not self._started.is_set():
            self.abandon()
        elif not self._ended.is_set():
            _logs.logger.error(
                "%s is still busy; sending %s",
                self.spec.name,
                signal.Signals(self.spec.host.stop_signal).name,
            )
            self._signal(self.spec.host.stop_signal)
            self._ended.wait(for_signals)
        if not self._ended.is_set():
            _logs.logger.error("%s does not end; killing it", self.spec.name)
            self._kill()
            self._ended.wait(_KILL_WAIT)
        return self._ended.is_set()

    def abandon(self) -> None:
        self._cancelled = True  # what is not started yet will be killed as soon as it is
        if self._started.is_set():
            self._kill()
            self._ended.wait(_KILL_WAIT)

    def run_handle_stop(self) -> None:
        """Nothing to do: the child has done it, or is gone."""

    def stack(self) -> str:
        """Not known here: the child reports the stack of its thread with the stall."""
        return "(in its process)"

    def refresh(self) -> threading.Event | None:
        if Kind.BEGUN not in self._told or self._over:
            return None
        self._refreshed.clear()
        self._asked_at = self._asked_at or time.monotonic()
        self._tell({"do": "counters"})
        return self._refreshed

    def measure_lag(self) -> None:
        """Nothing to do: its process measures for itself."""

    @property
    def failure(self) -> str | None:
        return self._failure

    @property
    def running(self) -> bool:
        return self._running and not self._over

    @property
    def connected(self) -> bool:
        return self._report.connected and not self._over

    @property
    def awaits_circusd(self) -> bool:
        return self._report.awaits_circusd and not self._over

    @property
    def last_error(self) -> str | None:
        return self._failure or self._report.last_error

    @property
    def thread(self) -> threading.Thread | None:
        return None

    @property
    def pid(self) -> int | None:
        return None if self._over else self._pid

    @property
    def busy_since(self) -> float:
        """As the child has told; one that does not answer is busy since it was asked."""
        return self._report.busy_since or self._asked_at

    @property
    def instance(self) -> object | None:
        return None

    # Starting, on a thread of its own.

    def _start(self) -> None:
        try:
            with contextlib.ExitStack() as stack:
                self._launch(stack)
        except Exception as error:  # noqa: BLE001 - whatever it is, this plugin has failed
            self._end(f"its process cannot be started: {type(error).__name__}: {error}")
        finally:
            self._started.set()
            if self._cancelled:
                self._kill()

    def _launch(self, stack: contextlib.ExitStack) -> None:
        around = self._around
        config, link = replace(around.config, plugins=()), replace(around.link, context=None)
        plugin = pickle.dumps((self.spec, config, link))
        orders = child_main.Orders(self.spec.host, config.stop_timeout, plugin, lowest_level())
        ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
        pipes = [multiprocessing.Pipe(duplex=False) for _ in range(3)]
        for end in itertools.chain(*pipes):
            stack.enter_context(end)
        self._child = Child(
            f"plugin:{self.spec.name}",
            child_main.main,
            (orders, theirs, [write for _, write in pipes]),
            with_main=b"__main__" in plugin,
        )
        self._pid = self._child.pid
        ours.setblocking(False)
        with self._lock:
            self._control = ours.dup()
            if self._stop_order is not None:
                self._tell(self._stop_order)
        name, show = self.spec.name, self._children.print_lines
        log = functools.partial(self._children.log_lines, name, self._pid)
        self._watch(pipes[0][0].fileno(), log)
        self._watch(pipes[1][0].fileno(), lambda lines: show(name, lines, False))
        self._watch(pipes[2][0].fileno(), lambda lines: show(name, lines, True))
        self._watch(ours.fileno(), self._hear, self._control_closed)
        self._children.watch(os.dup(self._child.sentinel), self._exit_status, self._sentinel_closed)

    def _watch(self, fd: int, take: Any, on_end: Any = None) -> None:
        lines = LineBuffer()
        on_end = on_end or (lambda: take(lines.flush()))
        self._children.watch(os.dup(fd), lambda data: take(lines.feed(data)), on_end)

    # On the reading thread.

    def _hear(self, lines: list[bytes]) -> None:
        for line in lines:
            try:
                said = json.loads(line)
                what = said["is"]
            except (ValueError, TypeError, KeyError):
                self._children.print_lines(self.spec.name, [line[:200]], True)
            else:
                self._take_in(what, said)

    def _take_in(self, what: str, said: dict[str, Any]) -> None:
        self._report.take(said)
        error = said.get("error")
        if what == "counters":
            self._asked_at = 0.0
            self._refreshed.set()
        elif what == "ended":
            self._said_end = True
            self._failure = str(error) if error else None
            self._permanent = said.get("permanent") is True
            self._retry = said.get("retry") is True
            if self._sentinel_gone:  # then it was told to end, see there
                self._end(self._failure or _ORPHANED)
        elif what in (Kind.BEGUN.value, Kind.WAITING.value):
            self._notify(Kind(what), None)
        elif what == Kind.RUNNING.value:
            self._running = True
            self._notify(Kind.RUNNING, None)
        elif what == Kind.TOO_MANY_ERRORS.value:
            self._notify(Kind.TOO_MANY_ERRORS, str(error))
        elif what == Kind.STALLED.value and time.monotonic() >= self._next_stall:
            # The next one cannot come any sooner, so one that does is no stall.
            self._next_stall = time.monotonic() + self.spec.host.stall_timeout
            self._around.notify(Notice(self, Kind.STALLED, str(error)))

    def _notify(self, kind: Kind, error: str | None) -> None:
        """Tell the supervisor what happens once in a life; a child may say it for ever."""
        if kind not in self._told:
            self._told.add(kind)
            self._around.notify(Notice(self, kind, error))

    def _exit_status(self, data: bytes) -> None:
        """The forkserver tells how the child ended."""
        status = read_status(data)
        told = self._said_end and status >= 0
        self._end(self._failure if told else describe_status(status))

    def _control_closed(self) -> None:
        self._control_gone = True
        if self._sentinel_gone:
            self._end(_ORPHANED)

    def _sentinel_closed(self) -> None:
        self._sentinel_gone = True
        if self._control_gone:
            self._end(_ORPHANED)
        elif self._said_end:
            self._end(self._failure)
        elif not self._over:
            # The forkserver is gone, and nobody will tell when the child ends. It is told to
            # stop, and closes its line when it does; if it does not, it is killed.
            grace = self.spec.host.graceful_timeout
            self._tell({"do": "stop", "grace": grace, "limit": grace + _SIGNAL_WAIT})
            self._orphan_timer = threading.Timer(grace + _SIGNAL_WAIT, self._kill)
            self._orphan_timer.daemon = True
            self._orphan_timer.start()

    def _end(self, error: str | None) -> None:
        with self._lock:
            if self._over:
                return
            self._over = True
        self._failure = error
        self._kill()  # what it has started and left behind
        for thing in (self._control, self._child):
            if thing is not None:
                thing.close()
        if self._orphan_timer is not None:
            self._orphan_timer.cancel()
        for event in (self._refreshed, self._ended):
            event.set()
        told = self._said_end
        permanent, retry = self._permanent and told, self._retry and told
        self._around.notify(Notice(self, Kind.ENDED, error, permanent, retry))

    # From any thread.

    def _tell(self, order: dict[str, Any]) -> None:
        control = self._control
        if control is not None:
            # One that is stopped or gone does not read; the signals that follow do without.
            with contextlib.suppress(OSError):
                control.send(json.dumps(order).encode() + b"\n")

    def _signal(self, number: int) -> None:
        if self._pid is not None and not self._over:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self._pid, number)

    def _kill(self) -> None:
        """Kill the child and everything in its session's group."""
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)
            self._signal(signal.SIGKILL)
