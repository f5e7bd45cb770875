# One isolated plugin's process as the host sees it: its number, sockets and pipes, signals to it,
# and its end. What the process says means nothing here; that is the runner's.
#
# Nobody is ever signalled by a number that may be another's by then. The forkserver, which reaps
# the process, kills its group before that; here the process alone is signalled, by a handle of it
# (see pidfd_open(2)), and its group only if the forkserver is dead.
#
# Owner: `launch` runs on a thread of its own; what comes in, and the end, on the reading thread.
# `_lock` guards the handle, which anybody uses to send a signal.

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from typing import Any, Protocol

from . import messages
from .child_output import ChildOutput
from .forkserver import FORKSERVER
from .forkserver_main import ANSWER, CONTINUED, ENDED, FAILED, STOPPED, receive
from .messages import Launch, decode, encode, send_launch
from .pipe_reader import Action, OnData
from .pipes import Pipes

#: The flag of pidfd_send_signal(2) by which a signal goes to a process group (Linux 6.9).
_PROCESS_GROUP = 4
#: The watchdog writes a stack in many pieces; so long after the first it is whole, in seconds.
_STACK_WAIT = 0.2


class Listener(Protocol):
    """What a process tells of itself; all of it is called on the reading thread."""

    def heard(self, report: Any) -> None:
        """It has said something, one of `messages.REPORTS`."""

    def keeps_still(self, stack: str) -> None:
        """Its watchdog says that even its main thread does not run."""

    def paused(self, is_paused: bool) -> None:
        """A signal has stopped it, or it goes on."""

    def orphaned(self) -> None:
        """The forkserver is dead: nobody tells any more how it ends, or kills what it leaves."""

    def ended(self, status: int | None) -> None:
        """It has ended; its exit status is negative for a signal, and None if nobody knows it."""


class ChildProcess:
    """A process that runs one isolated plugin.

    Args:
        name: The plugin's.
        pipes: Reads what it says, and writes what it prints.
        listener: Is told what it says.
    """

    def __init__(self, name: str, pipes: Pipes, listener: Listener) -> None:
        self.pid: int | None = None
        self._reader = pipes.reader
        self._output = ChildOutput(name, pipes.writer)
        self._listener = listener
        self._control: socket.socket | None = None
        self._handle: int | None = None
        self._watched: list[int] = []
        self._lock = threading.Lock()
        self._orphaned = self._control_ended = self._over = False
        self._answers = b""
        self._stack = b""

    def launch(self, launch: Launch, grace: float) -> None:
        """Have it forked, and tell it what to do; waits for the forkserver.

        Args:
            launch: What to do.
            grace: How long it may go on after the host's end, in seconds.

        Raises:
            OSError: It cannot be forked.
        """
        try:
            self._launch(launch, grace)
        except ConnectionError:
            # The forkserver has died over it. It may have forked a process all the same, which ends
            # with its sockets: the next one must not have the same.
            self._launch(launch, grace)

    def _launch(self, launch: Launch, grace: float) -> None:
        with contextlib.ExitStack() as undo:
            theirs = undo.enter_context(contextlib.ExitStack())
            control, far = socket.socketpair()
            undo.enter_context(control)
            fds = [theirs.enter_context(far).fileno()]
            ends = []
            for _ in range(4):
                read, write = os.pipe()
                undo.callback(os.close, read)
                theirs.callback(os.close, write)
                ends.append(read)
                fds.append(write)
            answers = undo.enter_context(self._fork(fds, grace))
            theirs.close()
            with contextlib.suppress(OSError):  # it is dead already, and its end will be told
                send_launch(control.sendall, launch)
            control.setblocking(False)
            self._control = control
            undo.pop_all()
        self._watch_all(control.fileno(), answers.detach(), ends)

    def _fork(self, fds: list[int], grace: float) -> socket.socket:
        """Ask for the process; returns where the forkserver will tell of it."""
        answers, far = socket.socketpair()
        with contextlib.ExitStack() as undo:
            undo.enter_context(answers)
            with far:
                FORKSERVER.request([far.fileno(), *fds], grace)
            data, handles = receive(answers, ANSWER.size, 1)
            if len(data) < ANSWER.size:
                raise ConnectionError("the forkserver died")
            kind, number = ANSWER.unpack(data)
            if kind == FAILED:
                raise OSError(number, os.strerror(number))
            self._handle = handles[0] if handles else None
            self._output.pid = self.pid = number
            undo.pop_all()
            return answers

    def _watch_all(self, control: int, answers: int, ends: list[int]) -> None:
        output, watch = self._output, self._watch
        log, printed, complained, still = ends
        watch(log, *output.lines_of(output.log_lines))
        watch(printed, *output.lines_of(output.print_lines))
        watch(complained, *output.lines_of(lambda lines: output.print_lines(lines, error=True)))
        watch(still, self._take_stack, lambda: None)
        feed, _ = output.lines_of(self._hear)
        watch(os.dup(control), feed, self._end_of_control)
        self._reader.watch(answers, self._take_answer, self._end_of_answers)

    def _watch(self, fd: int, take: OnData, on_end: Action) -> None:
        self._watched.append(fd)

        def end() -> None:
            self._watched.remove(fd)
            on_end()

        self._reader.watch(fd, take, end)

    # From any thread.

    def send(self, order: Any) -> None:
        """Tell it something, one of `messages.ORDERS`."""
        if self._control is not None:
            # One that is stopped or gone does not read; the signals that follow do without.
            with contextlib.suppress(OSError):
                self._control.send(encode(order))

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        with self._lock, contextlib.suppress(ProcessLookupError, PermissionError):
            if self._handle is not None:
                signal.pidfd_send_signal(self._handle, number)
            elif self.pid is not None and not self._over:  # a system without such handles
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it; the forkserver then kills what it has started."""
        if self._orphaned:
            with self._lock, contextlib.suppress(OSError):  # an older kernel cannot do this
                if self._handle is not None:
                    signal.pidfd_send_signal(self._handle, signal.SIGKILL, None, _PROCESS_GROUP)
        self.signal(signal.SIGKILL)

    # On the reading thread.

    def _hear(self, lines: list[bytes]) -> None:
        for line in lines:
            report = decode(line, messages.REPORTS)
            if report is None:
                self._output.print_lines([line[:200]], error=True)
            elif not self._over:
                self._listener.heard(report)

    def _take_stack(self, data: bytes) -> None:
        if not self._stack:
            self._reader.call_at(time.monotonic() + _STACK_WAIT, self._tell_stack)
        self._stack = (self._stack + data)[: messages.TEXT_LIMIT]

    def _tell_stack(self) -> None:
        stack, self._stack = self._stack, b""
        if not self._over:
            self._listener.keeps_still(messages.shown(stack.decode("utf-8", "replace")))

    def _take_answer(self, data: bytes) -> None:
        self._answers += data
        while len(self._answers) >= ANSWER.size:
            kind, number = ANSWER.unpack_from(self._answers)
            self._answers = self._answers[ANSWER.size :]
            if kind == ENDED:
                self._end(number)
            elif kind in (STOPPED, CONTINUED):
                self._listener.paused(kind == STOPPED)

    def _end_of_answers(self) -> None:
        self._orphaned = True
        if self._control_ended:
            self._end(None)
        elif not self._over:
            self._listener.orphaned()

    def _end_of_control(self) -> None:
        self._control_ended = True
        if self._orphaned:
            self._end(None)

    def _end(self, status: int | None) -> None:
        if self._over:
            return
        for fd in list(self._watched):  # what it has said last comes first
            self._reader.read_out(fd)
        if self._orphaned:
            self.kill()  # what it has started and left behind
        with self._lock:
            self._over = True
            handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)
        if self._control is not None:
            self._control.close()
        self._listener.ended(status)
