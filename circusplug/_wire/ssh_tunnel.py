# One ssh for a whole host: both of circusd's endpoints, forwarded to Unix sockets in a
# directory that only this user can enter, and opened again whenever the ssh ends.
#
# Not by zmq.ssh: it forwards one port an ssh, forks a terminal in a process that has threads,
# asks for passwords there, and forgets the tunnel once it stands. The system's `ssh` does all
# that is needed, with the user's own keys and configuration. And not to TCP ports, through
# which everybody on this machine could give circusd commands.
#
# Owner: the keeping thread alone starts and awaits the ssh. `_lock` guards `_process`, which
# `close` ends from another thread.

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import zmq

from .._errors import HostError
from .._logs import logger
from .endpoints import Link, connectable

#: How long the first opening may take, in seconds.
OPEN_WAIT = 20.0
#: The wait before another try grows from the first to the second, in seconds.
RETRY_DELAY, RETRY_DELAY_MAX = 0.2, 15.0
#: How long an ssh that was told to end is waited for, in seconds.
_END_WAIT = 2.0

_READY = b"up"
_OPTIONS = {
    "BatchMode": "yes",  # never ask for anything: there is nobody to answer
    "ConnectTimeout": "10",
    "ControlMaster": "no",  # this process is the tunnel, not a client of another one
    "ControlPath": "none",
    "ExitOnForwardFailure": "yes",
    "LocalCommand": f"echo {_READY.decode()}",  # comes when the sockets are listened on
    "LogLevel": "ERROR",
    "PermitLocalCommand": "yes",
    # As between circusd and a plugin on two machines: a silent end is noticed after 4 s.
    "ServerAliveCountMax": "2",
    "ServerAliveInterval": "2",
    "StreamLocalBindUnlink": "yes",
}
_SERVER = re.compile(
    r"(?P<user>[^@\s]+@)?(?P<host>\[[^\]]+\]|[^@:\[\]\s]+|[0-9A-Fa-f:]+)(?::(?P<port>\d+))?"
)
# The ssh ends with this process, however that ends: a subshell waits for the end of our pipe.
_SCRIPT = """\
exec 3<&0
"$0" "$@" </dev/null 3<&- & ssh=$!
(read -r _; kill $ssh) <&3 3<&- >/dev/null 2>&1 & guard=$!
wait $ssh; status=$?
kill $guard 2>/dev/null
exit $status
"""


@contextlib.contextmanager
def open_tunnel(
    server: str,
    endpoint: str,
    pubsub_endpoint: str,
    context: zmq.Context[Any] | None,
    shared: bool = False,
) -> Iterator[Link]:
    """Tunnel a host's two sockets through an ssh server, for a ``with`` block.

    Args:
        server: ``user@host:port``.
        endpoint: Where circusd takes commands, as it is seen from the ssh server.
        pubsub_endpoint: The same for its events.
        context: Goes into the link.
        shared: Whether plugins that run as somebody else have to get in, too.

    Yields:
        What to connect to instead. The addresses stay the same when the ssh is started anew.

    Raises:
        HostError: There is no ssh here, an endpoint cannot be tunnelled, or the ssh server
            does not let us; in ssh's own words.
    """
    ssh = shutil.which("ssh")
    if ssh is None:
        raise HostError("'ssh_server' needs the ssh command; install an OpenSSH client")
    with tempfile.TemporaryDirectory(prefix="circusplug-", ignore_cleanup_errors=True) as directory:
        ends = [os.path.join(directory, name) for name in ("commands", "events")]
        if shared:
            os.chmod(directory, 0o711)
        arguments = [ssh, "-N", "-T", "-o", f"StreamLocalBindMask={'0111' if shared else '0177'}"]
        for option, value in _OPTIONS.items():
            arguments += ["-o", f"{option}={value}"]
        for end, far in zip(ends, (endpoint, pubsub_endpoint), strict=True):
            arguments += ["-L", f"{end}:{_target(far)}"]
        tunnel = _Tunnel([*arguments, *_destination(server)], server)
        try:
            tunnel.open()
            yield Link(f"ipc://{ends[0]}", f"ipc://{ends[1]}", context)
        finally:
            tunnel.close()


def _target(endpoint: str) -> str:
    """An endpoint as `ssh -L` wants it: HOST:PORT, or a socket's path."""
    scheme, _, address = connectable(endpoint).partition("://")
    if scheme == "tcp" or (scheme == "ipc" and address.startswith("/")):
        return address
    raise HostError(
        f"{endpoint} cannot be tunnelled by ssh; only tcp://HOST:PORT and ipc:///PATH can, "
        "as seen from the ssh server"
    )


def _destination(server: str) -> list[str]:
    """``[USER@]HOST[:PORT]`` as arguments of ssh; an IPv6 address with a port is in brackets."""
    found = _SERVER.fullmatch(server)
    if found is None:
        raise HostError(f"'ssh_server': {server!r} is not USER@HOST, nor USER@HOST:PORT")
    port = ["-p", found["port"]] if found["port"] else []
    return [*port, "--", (found["user"] or "") + found["host"].strip("[]")]


class _Tunnel:
    """An ssh that is kept running, by a thread of its own."""

    def __init__(self, command: list[str], server: str) -> None:
        self._command = command
        self._server = server
        self._failure: str | None = None
        self._up_once = False
        self._told = threading.Event()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name="ssh-tunnel", daemon=True)

    def open(self) -> None:
        """Start, and wait until both sockets can be connected to."""
        self._thread.start()
        if not self._told.wait(OPEN_WAIT):
            self._failure = f"not ready after {OPEN_WAIT:g} s"
        if self._failure is not None:
            raise HostError(f"no ssh tunnel through {self._server}: {self._failure}")

    def close(self) -> None:
        """End the ssh and the thread."""
        self._closing.set()
        with self._lock:
            process = self._process
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        if self._thread.ident is None:
            return
        self._thread.join(_END_WAIT)
        if self._thread.is_alive() and process is not None:
            # Its own session, so this gets the ssh as well as the shell around it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            self._thread.join(_END_WAIT)

    def _keep(self) -> None:
        delay = RETRY_DELAY
        while not self._closing.is_set():
            was_up, reason = self._run()
            if self._closing.is_set():
                return
            if not self._up_once:
                self._failure = reason
                self._told.set()
                return
            delay = RETRY_DELAY if was_up else min(delay * 2, RETRY_DELAY_MAX)
            logger.warning(
                "ssh tunnel through %s ended: %s; next try in %g s", self._server, reason, delay
            )
            self._closing.wait(delay)

    def _run(self) -> tuple[bool, str]:
        """Run one ssh to its end; returns whether it was up, and its last words."""
        with self._lock:
            if self._closing.is_set():
                return False, ""
            process = self._process = subprocess.Popen(
                ["/bin/sh", "-c", _SCRIPT, *self._command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the host, which ends this last
            )
        with process:
            assert process.stdout is not None and process.stderr is not None
            up = any(line.strip() == _READY for line in process.stdout)
            if up:
                if self._up_once:
                    logger.info("ssh tunnel through %s is up again", self._server)
                self._up_once = True
                self._told.set()
            lines = process.stderr.read().decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return up, said[-1] if said else f"ssh exited with status {process.returncode}"
