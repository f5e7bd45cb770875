# One ssh for a whole host: both of circusd's endpoints, forwarded to Unix sockets that only
# those users can connect to who are meant to, and opened again whenever the ssh ends.
#
# Not to TCP ports, through which everybody on this machine could give circusd commands. Each user
# who may connect has a pair of sockets of his own with mode 0600, as connecting takes the right to
# write. The directory stays ours, so that no plugin can put anything in their place; its mode is
# 0700, or 0711 if others have to reach their sockets in it.
#
# Owner: the keeping thread alone starts and awaits the ssh. `_lock` guards `_process`, which is
# there as long as its number is the ssh's and nobody else's; `close` ends it from any thread.

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import zmq

from .._errors import HostError
from .._logs import logger
from .endpoints import Link
from .ssh_command import READY, destination, ssh_command, target

#: How long an opening may take, in seconds.
OPEN_WAIT = 20.0
#: The wait before another try grows from the first to the second, in seconds.
RETRY_DELAY, RETRY_DELAY_MAX = 0.2, 15.0
#: How long an ssh that was told to end is waited for before it is killed, in seconds.
_END_WAIT = 1.0
#: Of what ssh says last, so many bytes are told.
_WORDS_LIMIT = 1000

_ENDS = ("commands", "events")


class Tunnel:
    """A host's two sockets, tunnelled through an ssh server by a thread of its own.

    The addresses stay the same when the ssh is started anew. What fails before the tunnel stood
    once ends it; after that it is tried again until `close`.

    Args:
        server: ``user@host:port``.
        endpoint: Where circusd takes commands, as it is seen from the ssh server.
        pubsub_endpoint: The same for its events.
        context: Goes into the link.
        uids: Users who have to get in besides this process's own. Only root can let others in,
            and only root can run plugins as somebody else; for all others these are ignored.
        on_up: Called when the tunnel stands the first time, on the tunnel's thread.
        on_failed: Called with the reason, in ssh's own words, when it does not come to stand, on
            the tunnel's thread. After `close` neither is called.

    Raises:
        HostError: An endpoint cannot be tunnelled, or `server` is not one.
    """

    def __init__(
        self,
        server: str,
        endpoint: str,
        pubsub_endpoint: str,
        context: zmq.Context[Any] | None = None,
        uids: Iterable[int] = (),
        *,
        on_up: Callable[[], object] = lambda: None,
        on_failed: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._server = server
        self._targets = [target(endpoint), target(pubsub_endpoint)]
        self._destination = destination(server)
        self._context = context
        self._uids = sorted(set(uids) - {os.geteuid()}) if os.geteuid() == 0 else []
        self._on_up = on_up
        self._on_failed = on_failed
        self._directory = self._ssh = ""
        self._was_up = False
        self._failure: str | None = None
        self._told = threading.Event()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name="ssh-tunnel", daemon=True)

    # From any thread.

    def start(self) -> None:
        """Begin to open the tunnel; returns at once.

        Raises:
            HostError: There is no ssh here, or no place for the sockets.
        """
        ssh = shutil.which("ssh")
        if ssh is None:
            raise HostError("'ssh_server' needs the ssh command; install an OpenSSH client")
        self._ssh = ssh
        try:
            self._directory = tempfile.mkdtemp(prefix="circusplug-")
            if self._uids:
                os.chmod(self._directory, 0o711)
            self._thread.start()
        except (OSError, RuntimeError) as error:  # no space, no more threads
            self.close()
            raise HostError(f"no ssh tunnel through {self._server}: {error}") from None

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the tunnel stands; without a timeout, until it does or fails.

        Raises:
            HostError: It failed, was closed, or is not there within `timeout` seconds.
        """
        failure = self._failure if self._told.wait(timeout) else f"not ready after {timeout:g} s"
        if failure is not None:
            raise HostError(f"no ssh tunnel through {self._server}: {failure}")

    def link(self, uid: int | None = None) -> Link:
        """What to connect to instead.

        Args:
            uid: The user who connects; None: this process's own.

        Raises:
            HostError: The tunnel was opened without this user.
        """
        if uid in (None, os.geteuid()) or os.geteuid() != 0:
            uid = None
        elif uid not in self._uids:
            raise HostError(f"the ssh tunnel was opened without user {uid}; start the host again")
        commands, events = (f"ipc://{path}" for path in self._sockets(uid))
        return Link(commands, events, self._context)

    def close(self) -> None:
        """End the tunnel at once, also one that is still opening."""
        self._closing.set()
        self._tell("closed")
        self._end_ssh()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(_END_WAIT)
            self._end_ssh(by_force=True)
            self._thread.join(_END_WAIT)
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)

    # On the keeping thread.

    def _keep(self) -> None:
        delay, began = RETRY_DELAY, time.monotonic()
        while not self._closing.is_set():
            try:
                up, reason = self._run()
                final = True
            except OSError as error:  # no process or descriptor left just now
                up, reason = False, f"ssh cannot be run: {error.strerror or error}"
                final = time.monotonic() - began > OPEN_WAIT
            if self._closing.is_set():
                return
            if not self._was_up and final:
                self._tell(reason)
                self._on_failed(reason)
                return
            delay = RETRY_DELAY if up else min(delay * 2, RETRY_DELAY_MAX)
            logger.warning(
                "ssh tunnel through %s is down: %s; next try in %g s", self._server, reason, delay
            )
            self._closing.wait(delay)

    def _run(self) -> tuple[bool, str]:
        """Run one ssh to its end; returns whether it was up, and its last words."""
        with self._lock:
            if self._closing.is_set():
                return False, ""
            process = self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the host, which ends this last
            )
        try:
            up, words = self._attend(process)
        finally:
            self._end_ssh()
            with self._lock:
                self._process = None
            try:
                process.wait(_END_WAIT)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            with process:
                pass
        return up, words or f"ssh exited with status {process.returncode}"

    def _attend(self, process: subprocess.Popen[bytes]) -> tuple[bool, str]:
        """Read what an ssh says until its end; returns whether it was up, and its last words."""
        assert process.stdout is not None
        output = process.stdout.fileno()
        poll = select.poll()
        poll.register(output, select.POLLIN)
        up, words, rest = False, b"", b""
        deadline = time.monotonic() + OPEN_WAIT
        while poll.poll(None if up else max(0.0, deadline - time.monotonic()) * 1000):
            data = os.read(output, 4096)
            *lines, rest = (rest + (data or b"\n")).split(b"\n")
            for line in filter(None, map(bytes.strip, lines)):
                if line == READY:
                    up = True
                    self._stand()
                else:
                    words = line[:_WORDS_LIMIT]
            rest = rest[-_WORDS_LIMIT:]
            if not data:
                return up, words.decode(errors="replace")
        return False, f"not ready after {OPEN_WAIT:g} s"

    def _stand(self) -> None:
        """Let the others in, and tell that the tunnel stands, unless it is to end."""
        for uid in self._uids:
            for path in self._sockets(uid):
                os.chown(path, uid, -1, follow_symlinks=False)
        if self._was_up:
            logger.info("ssh tunnel through %s is up again", self._server)
            return
        self._was_up = True
        if not self._closing.is_set():
            self._tell(None)
            self._on_up()

    # On either.

    def _command(self) -> list[str]:
        forwards = {
            path: far
            for uid in (None, *self._uids)
            for path, far in zip(self._sockets(uid), self._targets, strict=True)
        }
        return ssh_command(self._ssh, self._destination, forwards, self._directory)

    def _end_ssh(self, by_force: bool = False) -> None:
        """End the ssh, if there is one; by force with all that it has started."""
        with self._lock:
            process = self._process
            if process is None:
                return
            if by_force:
                # Its own session, so this gets the ssh as well as the shell around it.
                os.killpg(process.pid, signal.SIGKILL)
            elif process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):  # it has ended already
                    os.write(process.stdin.fileno(), b"\n")

    def _sockets(self, uid: int | None) -> list[str]:
        suffix = "" if uid is None else f"-{uid}"
        return [os.path.join(self._directory, end + suffix) for end in _ENDS]

    def _tell(self, failure: str | None) -> None:
        """Let those who wait go on, with the first word on how it went."""
        with self._lock:
            if not self._told.is_set():
                self._failure = failure
                self._told.set()


@contextlib.contextmanager
def open_tunnel(
    server: str,
    endpoint: str,
    pubsub_endpoint: str,
    context: zmq.Context[Any] | None,
    uids: Iterable[int] = (),
) -> Iterator[Link]:
    """Tunnel a host's two sockets for a ``with`` block; returns when the tunnel stands.

    The arguments are those of `Tunnel`.

    Yields:
        What this process's own user connects to instead.

    Raises:
        HostError: There is no ssh here, an endpoint cannot be tunnelled, or the ssh server
            does not let us; in ssh's own words.
    """
    tunnel = Tunnel(server, endpoint, pubsub_endpoint, context, uids)
    tunnel.start()
    try:
        tunnel.wait()
        yield tunnel.link()
    finally:
        tunnel.close()
