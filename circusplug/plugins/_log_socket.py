# Lines to a log's socket: syslog's or journald's. While nobody takes them they wait, up to a
# number, and are sent in order when somebody does.
#
# Owner: the plugin's thread; `close` may be called by the thread that runs `handle_stop`. A call
# blocks for a few seconds at most: it holds up this one plugin, whose events wait.

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import time
from collections import deque
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ._losses import Losses

#: How many lines wait.
MOST_WAITING = 10_000
#: How long connecting and sending one line may take, and all that is done at once, in seconds.
_TIMEOUT, _TIMEOUT_OF_ALL = 1.0, 2.0
#: How long until the next try, in seconds; doubled each time up to the last.
_FIRST_DELAY, _LAST_DELAY = 0.5, 60.0
_PORT = 514


@dataclass(frozen=True)
class Address:
    """Where a log takes lines.

    Attributes:
        kind: ``udp``, ``tcp`` or ``unix``.
        at: Host and port, or a path.
    """

    kind: str
    at: tuple[str, int] | str

    @classmethod
    def read(cls, text: str) -> Address:
        """``udp://HOST:PORT``, ``tcp://HOST:PORT``, ``unix:///PATH`` or ``/PATH``.

        Raises:
            ValueError: It is none of these.
        """
        with contextlib.suppress(ValueError):  # a port that is none, a name that cannot be one
            parts = urlsplit(text if "://" in text else f"unix://{text}")
            if parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/"):
                return cls("unix", parts.path)
            if parts.scheme in ("udp", "tcp") and parts.hostname and parts.path in ("", "/"):
                parts.hostname.encode("idna")
                return cls(parts.scheme, (parts.hostname, parts.port or _PORT))
        raise ValueError(f"{text!r} is none of udp://HOST:PORT, tcp://HOST:PORT and /PATH")

    def __str__(self) -> str:
        return self.at if isinstance(self.at, str) else f"{self.kind}://{self.at[0]}:{self.at[1]}"


class LogSocket:
    """Sends lines to a log.

    Args:
        address: Where it is; it need not be there yet.
        loop: The plugin's loop.
        logger: The plugin's.
        losses: What is told of lines that are lost.
    """

    def __init__(self, address: Address, loop: Any, logger: logging.Logger, losses: Losses) -> None:
        self._address = address
        self._loop = loop
        self._logger = logger
        self._losses = losses
        self._waiting: deque[bytes] = deque()
        self._socket: socket.socket | None = None
        self._where: Any = None
        self._delay = 0.0  # 0: there is no trouble
        self._timer: Any = None

    def write(self, line: bytes) -> None:
        """Send a line, or keep it for later; when too many wait, it is lost."""
        if len(self._waiting) >= MOST_WAITING:
            self._losses.add(f"{len(self._waiting)} lines wait already")
            return
        self._waiting.append(line)
        if self._timer is None:
            self._flush()

    def close(self) -> None:
        """Send what waits, if it can be sent at once; the rest is lost."""
        try:
            self._send_all()
        except OSError as error:
            self._losses.add(error, len(self._waiting))
            self._waiting.clear()
        self._disconnect()

    def _flush(self) -> None:
        self._timer = None
        try:
            self._send_all()
        except OSError as error:
            self._disconnect()
            if not self._delay:
                self._logger.warning("%s takes no lines, they wait: %s", self._address, error)
            self._delay = min(self._delay * 2 or _FIRST_DELAY, _LAST_DELAY)
            self._timer = self._loop.call_later(self._delay, self._flush)
            return
        self._losses.end()
        if self._delay:
            self._logger.info("%s takes lines again", self._address)
            self._delay = 0.0

    def _send_all(self) -> None:
        deadline = time.monotonic() + _TIMEOUT_OF_ALL
        while self._waiting:
            if time.monotonic() > deadline:
                raise TimeoutError(f"not done within {_TIMEOUT_OF_ALL:g} s")
            try:
                self._send(self._waiting[0])
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    raise
                self._losses.add(error)  # it will never fit
            self._waiting.popleft()

    def _send(self, line: bytes) -> None:
        if self._socket is not None and _was_closed(self._socket):
            self._disconnect()
        if self._socket is None:
            self._socket, self._where = _connect(self._address)
        if self._where is not None:
            self._socket.sendto(line, self._where)
        elif self._socket.type == socket.SOCK_STREAM:
            self._socket.sendall(line + b"\n")
        else:
            self._socket.send(line)

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _connect(address: Address) -> tuple[socket.socket, Any]:
    """A socket, and where it sends to if it is not connected.

    UDP is not: whether somebody listens would be told only of the line before, and now and then.
    """
    if isinstance(address.at, str):
        try:
            return _connect_unix(socket.SOCK_DGRAM, address.at), None
        except OSError as error:
            if error.errno != errno.EPROTOTYPE:
                raise
            return _connect_unix(socket.SOCK_STREAM, address.at), None
    if address.kind == "tcp":
        return socket.create_connection(address.at, _TIMEOUT), None
    family, kind, _, _, where = socket.getaddrinfo(*address.at, type=socket.SOCK_DGRAM)[0]
    sock = socket.socket(family, kind)
    sock.settimeout(_TIMEOUT)
    return sock, where


def _connect_unix(kind: int, path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        sock.settimeout(_TIMEOUT)
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


def _was_closed(sock: socket.socket) -> bool:
    """Whether the other side has ended a stream, which the next line would not tell."""
    if sock.type != socket.SOCK_STREAM:
        return False
    sock.setblocking(False)
    try:
        return not sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        sock.settimeout(_TIMEOUT)
