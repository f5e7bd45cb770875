# The process that isolated plugins' processes are forked from: one thread, all that they need
# imported once, and nothing of any plugin.
#
# Its parent, the host, sends a request with descriptors for each process. This process alone
# reaps them, and it kills what a process has started before that: as long as the dead leader of
# a process group is not reaped, its number cannot be another's, so the group is certainly the
# one that is meant.
#
# Owner: a single thread.

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import signal
import socket
import struct
import sys
import time
import traceback

from .._signals import ignore, take_signal
from . import child_main

#: A request: how long the process may go on after the host's end, in seconds. It comes with two
#: descriptors for the forkserver and the process, and then those for `child_main.main` alone.
REQUEST = struct.Struct("!d")
#: An answer: one of the kinds below, and a number.
ANSWER = struct.Struct("!cq")
#: The process is forked: its number. A descriptor of it comes along, where there are such things.
FORKED = b"f"
#: It cannot be forked: the error's number.
FAILED = b"x"
#: It is stopped by a signal, or goes on; the number is the signal's.
STOPPED = b"s"
CONTINUED = b"c"
#: It has ended: its exit status, negative for a signal.
ENDED = b"e"

#: The descriptors of a request: where the answers go, the control socket, and four pipes.
DESCRIPTORS = 6

#: The signals that come to the whole group of a terminal or a service: only the host decides then.
_GROUP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Process:
    """A process that was forked here and is not reaped yet."""

    def __init__(self, pid: int, answers: socket.socket, grace: float) -> None:
        self.pid = pid
        self.answers = answers
        self.grace = grace

    def tell(self, kind: bytes, number: int) -> None:
        with contextlib.suppress(OSError):  # the host is gone, or has given it up
            self.answers.send(ANSWER.pack(kind, number))

    def signal_group(self, number: int) -> None:
        """Signal its process group; only to be called while it is not reaped."""
        with contextlib.suppress(ProcessLookupError):  # it has not made its group yet
            os.killpg(self.pid, number)


class ForkServer:
    """Forks, reaps and outlives processes for one host.

    Args:
        requests: The socket of the host's requests. Its end is the end of the host.
    """

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._children: dict[int, Process] = {}
        self._host_ended_at: float | None = None
        self._poll = select.poll()

    def serve(self) -> None:
        """Serve until the host and all processes have ended."""
        deaths, wakeup = os.pipe()
        os.set_blocking(deaths, False)
        os.set_blocking(wakeup, False)
        signal.signal(signal.SIGCHLD, ignore)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        self._wakeup = deaths, wakeup
        self._poll.register(deaths, select.POLLIN)
        self._poll.register(self._requests, select.POLLIN)
        while self._host_ended_at is None or self._children:
            ready = [fd for fd, _ in self._poll.poll(self._time_left())]
            if deaths in ready:
                os.read(deaths, 4096)
                self._look_after_children()
            if self._requests.fileno() in ready:
                self._take_request()
            self._end_what_outlives_host()

    def _take_request(self) -> None:
        data, fds = receive(self._requests, REQUEST.size, DESCRIPTORS)
        if not data:
            self._host_ended_at = time.monotonic()
            self._poll.unregister(self._requests)
            return
        try:
            if len(fds) == DESCRIPTORS:
                (grace,) = REQUEST.unpack(data)
                self._fork(fds, grace)
            elif fds:  # there was no room here for the rest; without any the host sees an end
                with socket.socket(fileno=fds[0]) as answers:
                    Process(0, answers, 0.0).tell(FAILED, errno.EMFILE)
        finally:
            for fd in fds[1:]:
                os.close(fd)

    def _fork(self, fds: list[int], grace: float) -> None:
        answers = socket.socket(fileno=fds[0])
        child = Process(0, answers, grace)
        try:
            child.pid = os.fork()
        except OSError as error:  # too many processes, no memory: that one fails, and no other
            child.tell(FAILED, error.errno or errno.EAGAIN)
            answers.close()
            return
        if child.pid == 0:
            answers.close()
            self._become_child(fds[1:])
        self._children[child.pid] = child
        handle = _open_handle(child.pid)
        with contextlib.suppress(OSError):
            socket.send_fds(answers, [ANSWER.pack(FORKED, child.pid)], handle)
        for fd in handle:
            os.close(fd)

    def _become_child(self, fds: list[int]) -> None:
        """Run a plugin's process in what was just forked; does not return."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for fd in self._wakeup:
                os.close(fd)
            for line in (self._requests, *(child.answers for child in self._children.values())):
                line.close()
            status = child_main.main(fds)
        except BaseException:  # noqa: BLE001 - it must not go on as a second forkserver
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)

    def _look_after_children(self) -> None:
        what = os.WEXITED | os.WSTOPPED | os.WCONTINUED | os.WNOHANG
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, what | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                return
            child = self._children[found.si_pid]
            if found.si_code in (os.CLD_EXITED, os.CLD_KILLED, os.CLD_DUMPED):
                child.signal_group(signal.SIGKILL)
                os.waitpid(child.pid, 0)
                exited = found.si_code == os.CLD_EXITED
                child.tell(ENDED, found.si_status if exited else -found.si_status)
                child.answers.close()
                del self._children[child.pid]
            elif found := os.waitid(os.P_PID, child.pid, what & ~os.WEXITED):
                stopped = found.si_code != os.CLD_CONTINUED
                child.tell(STOPPED if stopped else CONTINUED, found.si_status)

    def _end_what_outlives_host(self) -> None:
        """Kill the processes that have not stopped by themselves some time after the host's end."""
        if self._host_ended_at is not None:
            past = time.monotonic() - self._host_ended_at
            for child in self._children.values():
                if child.grace <= past:
                    child.signal_group(signal.SIGKILL)

    def _time_left(self) -> float | None:
        """How long to wait for the next thing to do, in milliseconds; None: for ever."""
        if self._host_ended_at is None:
            return None
        past = time.monotonic() - self._host_ended_at
        due = [child.grace - past for child in self._children.values() if child.grace > past]
        return min(due) * 1000 + 1 if due else None


def receive(sock: socket.socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """Receive bytes, and up to so many descriptors that no program will inherit."""
    data, fds, _, _ = socket.recv_fds(sock, size, most)  # which passes over its `flags`
    for fd in fds:
        os.set_inheritable(fd, False)
    return data, fds


def _open_handle(pid: int) -> list[int]:
    """A descriptor of a process, by which it can be signalled whoever reaps it."""
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            return [os.pidfd_open(pid)]
    return []


def main(fd: int) -> None:
    """Be the forkserver of the process at the other end of a socket."""
    for number in _GROUP_SIGNALS:
        take_signal(number, ignore)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.closerange(fd + 1, os.sysconf("SC_OPEN_MAX"))  # what the host has let be inherited
    # What is there by now is never freed, so that the processes go on sharing those pages.
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=fd) as requests:
        ForkServer(requests).serve()
