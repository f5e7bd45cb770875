# The program that CircusdProcess starts: it starts circusd in turn, waits for it, and sees
# to it that nothing of circusd's outlives either.
#
#     host ── guard ── circusd ── watchers' processes
#
# Circus gives every watcher process a session of its own, so once circusd is gone nothing
# ties them to it. The guard does: it is their subreaper, so whatever circusd or a watcher
# leaves behind becomes the guard's child, and nothing but circusd's tree ever does. (The
# host can't be that itself: it has children and orphans of its own, from isolated plugins,
# and no way to tell them apart.) Who watches whom, all without polling:
#
# - the guard waits for circusd with SIGCHLD, and then clears everything below itself;
# - the guard sees the host's death on a pipe and, on Linux, on a pidfd as well, since a
#   process that a plugin forked may hold the pipe open; then it stops circusd cleanly;
# - circusd sees the guard's death on a pipe that only the guard can write to, and quits.
#
# It is run by its path, not with -m: so it never imports the package, nor anything but a
# few modules of the standard library, and stays as small as a bare interpreter.
#
# The host reads lines from the report pipe: "ready PID" and "failed REASON" from circusd's
# process, "exit STATUS" from here. Its end means that circusd is gone.

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from typing import Any

#: Seconds between two requests to quit, at first and at most: circusd drops one that comes
#: while it is busy with a command that excludes others, such as starting its watchers.
FIRST_NUDGE = 0.1
NUDGE_INTERVAL = 1.0
#: How long processes may take to go after SIGKILL, in seconds.
KILL_TIMEOUT = 5.0

_PR_SET_CHILD_SUBREAPER = 36


class Guard:
    """Waits for circusd and stops it on request; then clears all that it left behind.

    Args:
        circusd: circusd's process id; a child of this process.
        grace: Seconds a clean stop may take when nobody says otherwise.
        host: The host's process id.
        control: Readable file descriptor; a line ``stop SECONDS`` stops circusd within that
            time, and so does its end, within the grace time; a line ``go`` is passed on.
        report: Writable file descriptor for the report.
        life: Writable end of the pipe by which circusd sees this process's death.
        subreaper: Whether orphans below this process become its children.
    """

    def __init__(
        self,
        circusd: int,
        grace: float,
        host: int,
        control: int,
        report: int,
        life: int,
        subreaper: bool,
    ) -> None:
        self._circusd = circusd
        self._grace = grace
        self._control = control
        self._report = report
        self._life = life
        self._subreaper = subreaper
        self._host = host
        self._status: int | None = None
        self._childless = False
        self._deadline: float | None = None
        self._host_fd = -1
        self._wakeup = -1
        self._poll = select.poll()
        self._before: list[Any] = []

    def run(self) -> int:
        """Return circusd's exit status once it and everything it started is gone."""
        self._watch()
        next_nudge, interval = 0.0, FIRST_NUDGE
        while not self._circusd_gone():
            if self._deadline is None:
                self._wait(None)
                continue
            now = time.monotonic()
            if now >= self._deadline:
                os.kill(self._circusd, signal.SIGKILL)
                self._wait(None)
            elif now >= next_nudge:
                os.kill(self._circusd, signal.SIGTERM)
                next_nudge = now + interval
                interval = min(2 * interval, NUDGE_INTERVAL)
            else:
                self._wait(min(next_nudge, self._deadline))
        with contextlib.suppress(OSError):
            os.write(self._report, b"exit %d\n" % (self._status or 0))
        os.close(self._report)
        if self._deadline is None:
            self._deadline = time.monotonic() + self._grace
        self._clear()
        return self._status or 0

    def _watch(self) -> None:
        self._wakeup, wakeup_write = os.pipe()
        os.set_blocking(self._wakeup, False)
        os.set_blocking(wakeup_write, False)
        os.set_blocking(self._control, False)
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        for signum in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, _noted)
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self._host_fd = os.pidfd_open(self._host)
                self._poll.register(self._host_fd, select.POLLIN)
        if os.getppid() != self._host:
            self._stop_within(self._grace)
        self._poll.register(self._wakeup, select.POLLIN)
        self._poll.register(self._control, select.POLLIN)

    def _wait(self, until: float | None) -> None:
        timeout = None if until is None else max(0.0, until - time.monotonic()) * 1000
        for fd, _ in self._poll.poll(timeout):
            if fd == self._wakeup:
                signals = os.read(fd, 512)
                if signal.SIGTERM in signals or signal.SIGINT in signals:
                    self._stop_within(self._grace)
            elif fd == self._host_fd:
                self._poll.unregister(fd)
                self._stop_within(self._grace)
            else:
                self._obey()

    def _obey(self) -> None:
        orders = os.read(self._control, 512).decode("ascii", "replace").split("\n")
        if orders == [""]:
            self._poll.unregister(self._control)
            self._stop_within(self._grace)
        for order in orders:
            if order.startswith("stop "):
                self._stop_within(float(order[5:]))
            elif order == "go":
                with contextlib.suppress(OSError):  # circusd has just ended
                    os.write(self._life, b"g")

    def _stop_within(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        if self._deadline is None:
            # Without a subreaper this is the last sight of what circusd started.
            self._before = [] if self._subreaper else _descendants()
            self._deadline = deadline
        self._deadline = min(self._deadline, deadline)

    def _circusd_gone(self) -> bool:
        """Reap whatever ended, orphans included, and tell whether circusd was among it."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == self._circusd:
                    self._status = os.waitstatus_to_exitcode(status)
        except ChildProcessError:
            self._childless = True
        return self._status is not None

    def _clear(self) -> None:
        """End every process left: SIGTERM, and SIGKILL when the time is up."""
        asked: set[Any] = set()
        give_up = max(self._deadline or 0.0, time.monotonic()) + KILL_TIMEOUT
        while left := self._left():
            now = time.monotonic()
            deadline = self._deadline or now
            if now >= give_up:
                pids = ", ".join(str(process.pid) for process in left)
                sys.stderr.write(f"circusplug: could not end these processes: {pids}\n")
                return
            for process in left:
                signum = signal.SIGKILL if now >= deadline else signal.SIGTERM
                if signum == signal.SIGKILL or process not in asked:
                    asked.add(process)
                    _send(process, signum)
            # A child's death ends this wait; other changes are seen at the next look.
            self._wait(min(deadline, now + NUDGE_INTERVAL) if now < deadline else now + 0.05)

    def _left(self) -> list[Any]:
        self._circusd_gone()
        found = [process for process in self._before if process.is_running()]
        return found if self._childless else found + _descendants()


def _noted(signum: int, frame: object) -> None:
    """Let the signal reach the wake-up pipe, which is all that is wanted of it."""


def _descendants() -> list[Any]:
    import psutil  # comes with circus; heavy, and seldom needed

    children: list[Any] = psutil.Process().children(recursive=True)
    return children


def _send(process: Any, signum: int) -> None:
    import psutil

    with contextlib.suppress(psutil.Error):
        process.send_signal(signum)


def become_subreaper() -> bool:
    """Make orphans below this process its children; False where the system can't."""
    if sys.platform == "linux":
        import ctypes

        libc = ctypes.CDLL(None)
        return int(libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)) == 0
    else:
        return False


def start_circusd(program: str, ini: str, grace: float, report: int, hold: str) -> tuple[int, int]:
    """Start *program* with the ini file; return its process id, and the end of a pipe to it.

    It gets the read end of a pipe that ends with this process, the report pipe, and the file, which
    is a descriptor that it inherits. It is a subreaper as well, so that it can clear up if this
    process gets killed.
    """
    life, ours = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            become_subreaper()
            os.set_inheritable(life, True)
            os.set_inheritable(report, True)
            arguments = [program, ini, str(grace), str(life), str(report), hold]
            os.execv(sys.executable, [sys.executable, *arguments])
        finally:
            os._exit(127)
    os.close(life)
    return pid, ours


def main() -> int:
    """Run with: circusd's program, its ini file, grace time, host, control and report pipe, and
    for how many seconds at most circusd holds its watchers back.
    """
    program, ini = sys.argv[1:3]
    grace = float(sys.argv[3])
    host, control, report = map(int, sys.argv[4:7])
    os.set_inheritable(control, False)
    os.set_inheritable(report, False)
    # A thread of the host may have blocked signals, and masks are inherited.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    subreaper = become_subreaper()
    circusd, life = start_circusd(program, ini, grace, report, sys.argv[7])
    status = Guard(circusd, grace, host, control, report, life, subreaper).run()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
