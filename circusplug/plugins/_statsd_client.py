# Sends figures to a statsd daemon, over UDP or a Unix socket, without ever waiting for it.
#
# Lines go together into packets, which leave when one is full or the plugin's loop has nothing else
# to do. A name is looked up on a thread of its own; until it is known, the newest packets wait.
# While nobody listens, figures are dropped, as they are by UDP itself.
#
# Owner: the plugin's thread, but for `_address`, which the thread that looks a name up sets.

from __future__ import annotations

import collections
import contextlib
import random
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

#: How long a packet may be, in bytes: what goes through an Ethernet as one, and what a Unix socket
#: takes everywhere.
_UDP_PACKET, _UNIX_PACKET = 1432, 8192
#: How often a name is looked up again, in seconds: a daemon may have moved.
_LOOK_UP_AGAIN = 60.0
#: How many packets wait for a name to be known.
_MOST_PACKETS = 100
_UNIX = "unix://"
#: What has a meaning in statsd's lines, and what ends one.
_SPECIAL = re.compile(r"[:|@#,\s\x00-\x1f\x7f]")


class StatsdClient:
    """A connection to a statsd daemon.

    Args:
        host: Its host, or ``unix:///PATH``.
        port: Its port.
        prefix: Put before each name that has no tags.
        sample_rate: The share of counts that is sent.
        tags: What to say with each figure, if names are told by tags as Datadog's daemon takes
            them; None: they are parts of the name.
        soon: Has a function called when the plugin's loop has nothing else to do; from any thread.
        silent: Whether to send nothing at all.
    """

    def __init__(
        self,
        host: str,
        port: int,
        prefix: str,
        sample_rate: float,
        tags: dict[str, str] | None,
        soon: Callable[[Callable[[], None]], object],
        *,
        silent: bool = False,
    ) -> None:
        self._silent = silent
        self._prefix = prefix
        self._sample_rate = sample_rate
        self._tags = tags
        self._soon = soon
        self._packets: collections.deque[bytes] = collections.deque(maxlen=_MOST_PACKETS)
        self._lines: list[bytes] = []
        self._size = 0
        self._asked_at = float("-inf")
        self._asking: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self._address: Any = None
        if host.startswith(_UNIX):
            self._name, self._port = "", 0
            self._limit = _UNIX_PACKET
            self._address = socket.AF_UNIX, host.removeprefix(_UNIX)
        else:
            self._name, self._port = host, port
            self._limit = _UDP_PACKET

    def count(self, name: str, tags: dict[str, str] | None = None) -> None:
        """Add 1 to a counter; of many, only a sample is sent if that is asked for."""
        if self._sample_rate >= 1.0:
            self._send(name, "1|c", tags)
        elif random.random() < self._sample_rate:
            self._send(name, f"1|c|@{self._sample_rate:g}", tags)

    def gauge(self, name: str, value: float, tags: dict[str, str] | None = None) -> None:
        """Set a gauge."""
        if value < 0:  # a sign means a change; a gauge is set to less than 0 by way of 0
            self._send(name, "0|g", tags)
        self._send(name, f"{value:.15g}|g", tags)

    def timing(self, name: str, milliseconds: float, tags: dict[str, str] | None = None) -> None:
        """Tell how long something took."""
        self._send(name, f"{milliseconds:.0f}|ms", tags)

    def flush(self) -> None:
        """Send what waits to be sent."""
        if self._lines:
            self._packets.append(b"\n".join(self._lines))
            self._lines, self._size = [], 0
        if self._packets:
            self._look_up()
        if self._address is None:
            return
        family, address = self._address
        while self._packets:
            packet = self._packets.popleft()
            with contextlib.suppress(OSError):  # nobody there, or it is slow: as lost as by UDP
                if self._socket is None or self._socket.family != family:
                    self._shut()
                    self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                self._socket.sendto(packet, address)

    def close(self) -> None:
        """Send what waits, and close; may be called twice."""
        self.flush()
        self._shut()

    def _shut(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, name: str, value: str, tags: dict[str, str] | None) -> None:
        if self._silent:
            return
        line = f"{self._prefix}{name}:{value}"
        if self._tags is not None:
            told = {**self._tags, **(tags or {})}
            line += "|#" + ",".join(f"{key}:{clean(text)}" for key, text in told.items())
        data = line.encode("utf-8", "replace")
        if self._size + len(data) > self._limit:
            self.flush()
        if not self._lines:
            self._soon(self.flush)
        self._lines.append(data)
        self._size += len(data) + 1

    def _look_up(self) -> None:
        """Have the name looked up, if that was not done lately; a thread does, as it may hang."""
        now = time.monotonic()
        if not self._name or self._asking is not None or now - self._asked_at < _LOOK_UP_AGAIN:
            return

        def ask() -> None:
            found = None
            with contextlib.suppress(OSError, UnicodeError):
                found = socket.getaddrinfo(self._name, self._port, type=socket.SOCK_DGRAM)
            self._asking = None
            if found:
                self._address = found[0][0], found[0][4]
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self._soon(self.flush)

        self._asked_at = now
        self._asking = threading.Thread(target=ask, name="statsd name", daemon=True)
        try:
            self._asking.start()
        except RuntimeError:  # no thread is left for it; later then
            self._asking = None


def clean(text: str) -> str:
    """A part of a name, without what statsd would take for its own."""
    return _SPECIAL.sub("_", text) or "_"
