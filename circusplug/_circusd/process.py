# A real circusd as a managed child, for `circusplug up`. What it promises: no process of
# circusd's outlives the host, the guard or circusd, whichever dies first and however; the
# guard between the two sees to that, see guard_main.py. Threads: one per CircusdProcess,
# which reads the report pipe and owns it; everything else is called by the owner's thread.

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from .._errors import CircusdError

#: How long circusd may take to start, and to stop its watchers, in seconds.
START_TIMEOUT = 30.0
GRACE = 10.0
#: How long circusd holds its watchers back at most, in seconds.
LONGEST_HOLD = 10.0
#: What the guard may need beyond the time it was given to stop circusd, in seconds: it then
#: gives killed processes this long to go.
_GUARD_MARGIN = 6.0

_HERE = Path(__file__).resolve().parent
_GUARD = str(_HERE / "guard_main.py")
_CHILD = str(_HERE / "circusd_main.py")


class CircusdProcess:
    """A circusd that runs as a child of this process; a context manager.

    circusd and its guard run in a session of their own, so a Ctrl-C at the terminal
    reaches the host alone, which then decides. Their output goes where the host's goes.

    Every process that circusd or one of its watchers started ends with circusd: those that
    detached themselves as well.

    Args:
        ini: The text of circus.ini that circusd shall run, without plugin sections and
            includes; or the text of a `CircusdPlan`.
        source: What to call that text in an error, usually the path it comes from.
        grace: How long circusd may take to stop its watchers when the host is killed, or
            when the guard gets a SIGTERM, in seconds.
        start_timeout: How long it may take to start, in seconds.
        holds_back: Whether it starts its watchers only after `let_go`, or `LONGEST_HOLD`.
    """

    def __init__(
        self,
        ini: str,
        *,
        source: str = "circus.ini",
        grace: float = GRACE,
        start_timeout: float = START_TIMEOUT,
        holds_back: bool = False,
    ) -> None:
        self._ini = ini
        self._source = source
        self._grace = grace
        self._start_timeout = start_timeout
        self._hold = LONGEST_HOLD if holds_back else 0.0
        self._path = ""
        self._guard: subprocess.Popen[bytes] | None = None
        self._control = self._file = -1
        self._reader: threading.Thread | None = None
        # What the report said; written by the reader thread, under this condition.
        self._changed = threading.Condition()
        self._pid: int | None = None
        self._failure: str | None = None
        self._exit_status: int | None = None
        self._gone = False
        self._callbacks: list[Callable[[int | None], None]] = []

    @property
    def pid(self) -> int | None:
        """circusd's process id; None until it is ready."""
        return self._pid

    @property
    def guard_pid(self) -> int | None:
        """The guard's process id; None before the start."""
        return self._guard.pid if self._guard else None

    @property
    def has_quit(self) -> bool:
        """Whether it has ended as one that was told to: by ``circusctl quit`` or a signal.

        One that crashed, was killed, or whose guard was, has not.
        """
        return self._exit_status == 0

    def start(self) -> None:
        """Start circusd; it is not ready yet when this returns.

        Raises:
            CircusdError: circus is not installed, or the process cannot be started.
        """
        if self._guard is not None:
            raise CircusdError("this circusd was started before")
        if importlib.util.find_spec("circus") is None:
            raise CircusdError(
                "circusplug up needs circus itself; pip install 'circusplug[circusd]'"
            )
        try:
            self._start()
        except OSError as error:
            raise CircusdError(f"{self._source}: cannot start circusd: {error}") from error

    def _start(self) -> None:
        with contextlib.ExitStack() as undo:
            control, control_write = os.pipe()
            undo.callback(os.close, control_write)
            with contextlib.ExitStack() as theirs:
                theirs.callback(os.close, control)
                report, report_write = os.pipe()
                undo.callback(os.close, report)
                theirs.callback(os.close, report_write)
                # In memory: whoever is killed, no file is left, and nobody else can read it.
                file = self._file = os.memfd_create("circus.ini")
                undo.callback(os.close, file)
                self.rewrite(self._ini)
                self._path = f"/proc/self/fd/{file}"
                numbers = self._grace, os.getpid(), control, report_write, self._hold
                self._guard = subprocess.Popen(
                    [sys.executable, _GUARD, _CHILD, self._path, *map(str, numbers)],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(control, report_write, file),
                    start_new_session=True,
                )
            self._control = control_write
            undo.pop_all()
        self._reader = threading.Thread(
            target=self._read_report, args=(report,), name="circusd-report", daemon=True
        )
        self._reader.start()

    def let_go(self) -> None:
        """Let a circusd that holds its watchers back start them, once it is ready."""
        self._order("go")

    def _order(self, line: str) -> None:
        if self._control >= 0:
            with contextlib.suppress(OSError):  # the guard has ended
                os.write(self._control, f"{line}\n".encode())

    def rewrite(self, ini: str) -> None:
        """Change the text that circusd reads for ``reloadconfig``."""
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, ini.encode("utf-8"), 0)

    def wait_ready(self, timeout: float = START_TIMEOUT) -> None:
        """Wait until circusd has bound its sockets and answers.

        The word comes from the process itself, so another circusd that has the same
        endpoint is never taken for it.

        Args:
            timeout: In seconds.

        Raises:
            CircusdError: It exited instead, or it was not ready in time.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._pid or self._gone, timeout)
            if self._failure is not None:
                reason = self._failure or "see its log above"
                raise CircusdError(f"{self._source}: circusd did not start: {reason}")
            if self._gone:
                status = describe_status(self._exit_status)
                raise CircusdError(f"{self._source}: circusd {status}; see its log above")
            if not self._pid:
                raise CircusdError(f"{self._source}: circusd was not ready within {timeout:g} s")

    def on_exit(self, callback: Callable[[int | None], None]) -> None:
        """Have *callback* called once, as soon as circusd is gone, whatever the reason.

        It is called on a thread of its own, or right here if circusd is gone already. What
        circusd left running may still be on its way out then; `stop` waits for that.

        Args:
            callback: Gets circusd's exit status: negative for the signal that killed it,
                None if unknown.
        """
        with self._changed:
            if not self._gone:
                self._callbacks.append(callback)
                return
        callback(self._exit_status)

    def stop(self, timeout: float = GRACE) -> int | None:
        """Stop circusd and everything it started, and clear up; may be called again.

        circusd is asked to quit, which stops its watchers; what is left when the time is up
        is killed.

        Args:
            timeout: In seconds. Killing and clearing up may take a few more.

        Returns:
            circusd's exit status, negative for the signal that killed it, None if unknown.
        """
        guard = self._guard
        if guard is None:
            return None
        deadline = time.monotonic() + timeout
        self._order(f"stop {timeout:.3f}")
        try:
            guard.wait(timeout + _GUARD_MARGIN)
        except subprocess.TimeoutExpired:
            guard.kill()
            guard.wait()
        if self._reader is not None and self._reader is not threading.current_thread():
            # A guard that was killed may have left circusd behind, on its way out by itself.
            self._reader.join(max(0.0, deadline - time.monotonic()))
            if not self._gone:
                self._kill_circusd()
            self._reader.join(_GUARD_MARGIN)
        for number in (self._control, self._file):
            if number >= 0:
                os.close(number)
        self._control = self._file = -1
        return self._exit_status

    def __enter__(self) -> CircusdProcess:
        self.start()
        try:
            self.wait_ready(self._start_timeout)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _read_report(self, fd: int) -> None:
        with open(fd, encoding="utf-8", errors="replace") as report:
            for line in report:
                word, _, rest = line.rstrip("\n").partition(" ")
                with self._changed:
                    if word == "ready":
                        self._pid = int(rest)
                    elif word == "failed":
                        self._failure = rest.replace(self._path, self._source)
                    elif word == "exit":
                        self._exit_status = int(rest)
                    self._changed.notify_all()
        with self._changed:
            self._gone = True
            callbacks, self._callbacks = self._callbacks, []
            self._changed.notify_all()
        for callback in callbacks:
            callback(self._exit_status)

    def _kill_circusd(self) -> None:
        # circusd holds the report pipe, which has not ended: the process id is still its own.
        if self._pid is None:
            return
        import psutil

        with contextlib.suppress(psutil.Error):
            circusd = psutil.Process(self._pid)
            for process in (circusd, *circusd.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    process.kill()


def describe_status(status: int | None) -> str:
    """Say an exit status as it reads after "circusd": "was killed by SIGKILL"."""
    if status is None:
        return "ended"
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
