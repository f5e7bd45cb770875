# What a host tells systemd, in the words of sd_notify(3): that it is ready, reloads or stops, what
# its plugins do, and that it is alive. A datagram each, to the socket that NOTIFY_SOCKET names;
# without one nothing is sent. A socket that is full is tried again soon, one that is gone is not.
#
# The watchdog speaks for the host. It is fed by the supervising thread, so not if that stands
# still; and not while a callback of a plugin on a thread runs longer than its
# `host.stall_timeout` allows: a thread can only be ended with its process. An isolated plugin that
# stalls harms nobody else and can be ended alone, so it is left out.
#
# Owner: `take` is for the main thread, before there are others; `next_timer` and `run_timers` are
# the supervising thread's; any thread may call the rest. `_lock` guards what is to be sent.

from __future__ import annotations

import collections
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, MutableMapping

from .._logs import logger

#: How long after a status the next one comes at the earliest, in seconds; so long is also waited
#: until a full socket is tried again.
_PAUSE = 0.25
#: A plugin that stalls is looked at again after this part of the watchdog's interval.
_LOOK_AGAIN = 0.1

_STOPPING = "STOPPING=1"


class SystemdNotify:
    """Speaks to systemd, if that listens.

    Args:
        address: The socket's path, ``@`` in front of an abstract one; empty: nobody listens.
        watchdog: How often to say that the host is alive, in seconds; 0: never.
        clock: Seconds that only go forward, those of ``CLOCK_MONOTONIC``.
    """

    def __init__(
        self,
        address: str = "",
        watchdog: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog = watchdog
        self._clock = clock
        self._lock = threading.Lock()
        self._unsent: dict[str, str] = {}  # the newest of each kind
        self._is_ready = self._is_stopping = self._changed = False
        self._status = ""
        self._status_at = self._watchdog_at = 0.0

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> SystemdNotify:
        """Take what systemd says out of the environment: it is for this process alone."""
        address = environ.pop("NOTIFY_SOCKET", "")
        interval, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        if address and not address.startswith(("/", "@")):
            logger.warning("NOTIFY_SOCKET: %r is no path, so systemd is told nothing", address)
            return cls()
        if not interval or pid not in ("", str(os.getpid())):
            return cls(address)
        if not (interval.isascii() and interval.isdigit()):
            logger.warning("WATCHDOG_USEC: %r is no number, so there is no watchdog", interval)
            return cls(address)
        return cls(address, int(interval) / 2e6)

    # What happens to the host.

    def ready(self) -> None:
        """All plugins had their chance to start."""
        self._is_ready = True
        self._send(state="READY=1")

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """Read the configuration again in a ``with`` block; what comes of it does not matter."""
        if not self._is_ready:  # it is still on its way up
            yield
            return
        self._send(state=f"RELOADING=1\nMONOTONIC_USEC={int(self._clock() * 1e6)}")
        try:
            yield
        finally:
            self._send(state="READY=1")

    def stopping(self) -> None:
        """The plugins stop now; this is the last word."""
        self._send(state=_STOPPING, status="STATUS=stopping")

    def changed(self) -> None:
        """A plugin's state may have changed."""
        self._changed = True

    # On the supervising thread.

    def next_timer(self) -> float | None:
        """When `run_timers` is due, by the clock; None: never."""
        if not self._address:
            return None
        times = []
        if self._changed or self._unsent:
            times.append(self._status_at)
        if self._watchdog:
            times.append(self._watchdog_at)
        return min(times, default=None)

    def run_timers(self, states: Callable[[], Iterable[str]]) -> None:
        """Tell what is due.

        Args:
            states: The state of each plugin, ``stalled`` where a callback keeps the host's own
                process from going on as it should.
        """
        now = self._clock()
        due = self.next_timer()
        if due is None or now < due:
            return
        count = collections.Counter(states())
        news = {}
        if now >= self._status_at:
            self._changed = False
            self._status_at = now + _PAUSE
            if (status := _describe(count)) != self._status:
                news["status"] = f"STATUS={status}"
                self._status = status
        if self._watchdog and now >= self._watchdog_at:
            self._watchdog_at = now + self._watchdog
            if count["stalled"]:
                self._watchdog_at = now + self._watchdog * _LOOK_AGAIN
            else:
                news["watchdog"] = "WATCHDOG=1"
        self._send(**news)

    def _send(self, **news: str) -> None:
        """Send news, and what could not be sent so far; neither waits nor raises."""
        with self._lock:
            if not self._address or self._is_stopping:
                return
            self._unsent.update(news)
            self._is_stopping = news.get("state") == _STOPPING
            if not self._unsent:
                return
            data = "\n".join(self._unsent.values()).encode()
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
                    there.setblocking(False)
                    there.sendto(data, os.fsencode(self._address))
            except BlockingIOError:
                return
            except OSError as error:
                logger.debug("systemd could not be told: %s", error)
            self._unsent.clear()


def _describe(states: collections.Counter[str]) -> str:
    """How many plugins are in which state: ``3 plugins: 2 running, 1 backoff``."""
    total = states.total()
    counts = ", ".join(f"{count} {state}" for state, count in states.most_common())
    return f"{total} plugin{'s' * (total != 1)}: {counts}" if total else "no plugins"
