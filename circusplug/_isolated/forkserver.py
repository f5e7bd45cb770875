# The host's end of the forkserver: one process for all hosts of this process, started when it is
# first needed, and again should it have died.
#
# It is not multiprocessing's, which dies when it cannot fork, is found by a path in TMPDIR that
# may be cleaned and stays when the host is killed, shares its list of modules with the rest of
# the program, and reaps a process before anybody can kill what that has started.
#
# Owner: any thread may ask for a process; `_lock` guards the forkserver's own socket and number.

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading

from .forkserver_main import REQUEST

#: The exit status of a process whose import of the main script would start a second host.
NO_GUARD = 78

#: What the forkserver needs of the host's environment. The processes of other users are forked
#: from it, and shall not find the rest of that anywhere in their memory.
_NEEDED = ("PYTHON", "LC_", "LD_", "DYLD_", "MALLOC_", "LANG", "TZ", "PATH")

_PROGRAM = (
    "import sys; fd = int(sys.argv.pop(1)); sys.path[:] = sys.argv[1:]; del sys.argv[1:]; "
    "from circusplug._isolated.forkserver_main import main; main(fd)"
)
_FD = 3
#: How long a forkserver that hangs may take to make room for a request, in seconds.
_SEND_WAIT = 5.0
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class ForkServerProcess:
    """The forkserver, as seen by the process that it serves."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.pid: int | None = None
        os.register_at_fork(after_in_child=self._forget)

    def start(self) -> None:
        """Start it, unless it runs.

        Raises:
            OSError: It cannot be started.
        """
        with self._lock:
            self._start()

    def request(self, fds: list[int], grace: float) -> None:
        """Ask for a process; whatever comes of it is told on the first of the descriptors.

        Args:
            fds: See `forkserver_main.DESCRIPTORS`; they stay open here.
            grace: How long the process may go on after this process's end, in seconds.

        Raises:
            OSError: The forkserver cannot be started.
        """
        with self._lock:
            self._start()
            try:
                self._send(fds, grace)
            except ConnectionError:  # it has died just now
                self._bury()
                self._start()
                self._send(fds, grace)

    def _send(self, fds: list[int], grace: float) -> None:
        assert self._socket is not None
        socket.send_fds(self._socket, [REQUEST.pack(grace)], fds)

    def _start(self) -> None:
        if self.pid is not None and not _has_ended(self.pid):
            return
        if self._socket is not None:
            self._socket.close()
        self._socket = self.pid = None
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as undo:
            undo.enter_context(ours)
            ours.settimeout(_SEND_WAIT)
            self.pid = _spawn(theirs.fileno())
            self._socket = ours
            undo.pop_all()

    def _bury(self) -> None:
        """Wait for a forkserver that refused a request to exit, so that a new one can start."""
        if self.pid is not None:
            with contextlib.suppress(ChildProcessError):  # somebody else has reaped it
                os.waitpid(self.pid, 0)
            self.pid = None

    def _forget(self) -> None:
        """In a process forked from this one: a copy of the socket would hide this one's end."""
        if self._socket is not None:
            self._socket.close()
        self._lock = threading.Lock()
        self._socket = self.pid = None

    @property
    def descriptors(self) -> list[int]:
        """What is open here because of it."""
        return [] if self._socket is None else [self._socket.fileno()]


#: The one forkserver of this process.
FORKSERVER = ForkServerProcess()


def start_forkserver() -> None:
    """Start the process that isolated plugins' processes are forked from, unless it runs.

    Raises:
        OSError: It cannot be started.
    """
    FORKSERVER.start()


def _spawn(fd: int) -> int:
    """Start a forkserver that has one end of a socket; returns its number."""
    path = [entry for entry in sys.path if entry]  # the current directory is not for imports
    if _ROOT not in path:
        path.append(_ROOT)
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    environment = {key: text for key, text in os.environ.items() if key.startswith(_NEEDED)}
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, fd, _FD),
    ]
    return os.posix_spawn(
        sys.executable,
        [sys.executable, *flags, "-c", _PROGRAM, str(_FD), *path],
        environment,
        file_actions=actions,
        # Until it can ignore them itself; what this process ignores is no matter of its own.
        setsigmask=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
        setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD],
    )


def _has_ended(pid: int) -> bool:
    """Whether a child of this process has ended; it is reaped then."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:  # somebody else has reaped it
        return True


def describe_status(status: int) -> str:
    """Say how a process ended that did not say so itself."""
    if status < 0:
        known = {int(item): item.name for item in signal.Signals}
        return f"its process was killed by {known.get(-status, f'signal {-status}')}"
    if status == NO_GUARD:
        return (
            "its process imports the script that started the host, and that starts a host again; "
            "put the start below  if __name__ == '__main__':"
        )
    return f"its process ended without a word, exit status {status}"
