# The main thread's part of an isolated plugin's process, here, and what it says to its host.

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from circusplug import HostOptions, PluginSpec
from circusplug._isolated import child_main, messages
from circusplug._plugin.status import Counters


class Runner:
    """What a process has its plugin do, noted."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.spec = PluginSpec("one", "absent.Plugin")
        self.counters = Counters(received=3, handled=2, lag=0.5, lag_sum=0.75)
        self.hands_over = False
        self.saved: Any = None
        self.failure: str | None = None
        self.busy_since = 12.5
        self.connected = True
        self.awaits_circusd = True
        self.last_error = "two\nlines"

    def begin_stop(self, deadline: float) -> None:
        self.done.append(("begin", deadline))

    def finish_stop(self, deadline: float) -> bool:
        self.done.append(("finish", deadline))
        return True

    def run_handle_stop(self) -> None:
        self.done.append("handle_stop")

    def stack(self) -> str:
        return "at work"


@contextlib.contextmanager
def child_of(control: socket.socket, **options: Any) -> Iterator[Any]:
    """The main thread's part of such a process, before there is a plugin in it."""
    before = signal.set_wakeup_fd(-1)
    child: Any = child_main._Child(control)
    child._launch = SimpleNamespace(host=HostOptions(**options), stop_timeout=100.0)
    try:
        yield child
    finally:
        signal.set_wakeup_fd(before)
        child._mailbox.close()


def heard(far: socket.socket) -> list[Any]:
    """All that such a process has said so far."""
    far.setblocking(False)
    data = b""
    with contextlib.suppress(BlockingIOError):
        while more := far.recv(1_000_000):
            data += more
    return [messages.decode(line, messages.REPORTS) for line in data.splitlines()]
