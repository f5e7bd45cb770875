# Heartbeats of processes, as datagrams: Circus's own words, over UDP or a Unix socket, and
# systemd's ``WATCHDOG=1``, whose sender the system tells.
#
# Owner: the plugin's thread; `close` is for `handle_stop`, when that thread is parked.

from __future__ import annotations

import contextlib
import re
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from circusplug import SpecError

#: How long a heartbeat may be, in bytes.
_LONGEST = 1024
#: How many are read before the loop goes on with other things.
_AT_ONCE = 100
_CREDENTIALS = struct.Struct("3i")  # pid, uid and gid


class Heartbeats:
    """Sockets that take heartbeats.

    Args:
        words: What a heartbeat looks like; the group ``pid`` is whose it is.
        heard: Told the number of a process that lives, and whether it has said that it does not.
    """

    def __init__(self, words: re.Pattern[str], heard: Callable[[int, bool], object]) -> None:
        self._words = words
        self._heard = heard
        self._sockets: list[socket.socket] = []
        self._path: Path | None = None

    def listen_at(self, host: str, port: int) -> int:
        """Take heartbeats over UDP; returns the port.

        Raises:
            SpecError: Nobody can listen there.
        """
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            sock = socket.socket(found[0], socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            self._sockets.append(sock)
            sock.bind(found[4])
        except OSError as error:
            raise SpecError(f"cannot listen at {host}, port {port}: {error}", key="port") from None
        bound: int = sock.getsockname()[1]
        return bound

    def listen_on(self, path: Path) -> None:
        """Take heartbeats at a Unix socket, which any user may write to.

        Raises:
            SpecError: Nobody can listen there.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._sockets.append(sock)
        try:
            if path.is_socket():  # of one before that was killed
                path.unlink()
            sock.bind(str(path))
            path.chmod(0o666)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        except OSError as error:
            raise SpecError(f"'socket': {path}: {error.strerror}", key="socket") from None
        self._path = path

    def filenos(self) -> Iterator[int]:
        """The descriptors to wait for; `read` takes what has come."""
        return (sock.fileno() for sock in self._sockets)

    def read(self, fileno: int) -> None:
        """Take what has come."""
        sock = next(sock for sock in self._sockets if sock.fileno() == fileno)
        for _ in range(_AT_ONCE):
            try:
                data, extra, _, _ = sock.recvmsg(
                    _LONGEST, socket.CMSG_SPACE(_CREDENTIALS.size), socket.MSG_CMSG_CLOEXEC
                )
            except OSError:  # that was all
                return
            sender = 0
            for level, kind, value in extra:
                if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                    sender = _CREDENTIALS.unpack_from(value)[0]
            self._take(data.decode("utf-8", "replace"), sender)

    def close(self) -> None:
        """Take no more."""
        for sock in self._sockets:
            sock.close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _take(self, text: str, sender: int) -> None:
        """Take one heartbeat; what is none is passed over."""
        lines = text.splitlines()
        if sender and ("WATCHDOG=1" in lines or "WATCHDOG=trigger" in lines):
            self._heard(sender, "WATCHDOG=trigger" in lines)
            return
        found = self._words.match(text)
        pid = found["pid"].strip() if found is not None and found["pid"] else ""
        if pid.isdecimal():
            self._heard(int(pid), False)


def parent_of(pid: int) -> int:
    """The process that has started another one; 0: it is gone, or there is none."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(stat.rpartition(") ")[2].split()[1])
    return 0
