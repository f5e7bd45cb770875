# A queue that one thread waits on, and that any thread or signal handler may put into.
#
# Owner: the waiting thread takes; `put` appends to a deque (atomic) and writes a byte to a
# pipe (async-signal-safe). The pipe is what makes a signal end the wait for sure: Python's
# own handler writes a byte there too, see `signal.set_wakeup_fd`.

from __future__ import annotations

import collections
import contextlib
import os
import select
import time
from typing import Generic, TypeVar

T = TypeVar("T")

#: The longest single poll in seconds, far below what poll() can be told; longer waits repeat it.
_LONGEST_POLL = 3600.0


class Mailbox(Generic[T]):
    """A queue with one reader and any number of writers."""

    def __init__(self) -> None:
        self._items: collections.deque[T] = collections.deque()
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        os.set_blocking(self._write_fd, False)
        self._poll = select.poll()
        self._poll.register(self._read_fd, select.POLLIN)

    @property
    def wakeup_fd(self) -> int:
        """Where a byte written ends the wait."""
        return self._write_fd

    def also_watch(self, fd: int) -> None:
        """Let `get` return None as soon as `fd` can be read from, too."""
        self._poll.register(fd, select.POLLIN)

    def unwatch(self, fd: int) -> None:
        """Look at `fd` no more; nothing if it is not watched."""
        with contextlib.suppress(KeyError):
            self._poll.unregister(fd)

    def put(self, item: T) -> None:
        """Add an item and wake the reader; from any thread, or a signal handler."""
        self._items.append(item)
        # A full pipe has woken the reader already; a closed one has no reader any more.
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._write_fd, b".")

    def get(self, timeout: float | None = None) -> T | None:
        """Take the oldest item; None if there is none after `timeout` seconds (None: for ever)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._items:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return None
            wait = None if left is None else min(left, _LONGEST_POLL) * 1000 + 1
            ready = [fd for fd, _ in self._poll.poll(wait)]
            if self._read_fd in ready:
                with contextlib.suppress(BlockingIOError):
                    while len(os.read(self._read_fd, 512)) == 512:
                        pass
            elif ready:
                return None
        return self._items.popleft()

    def close(self) -> None:
        """Give the pipe back; only when nobody is left who might put something."""
        read_fd, self._read_fd = self._read_fd, -1
        write_fd, self._write_fd = self._write_fd, -1
        for fd in (write_fd, read_fd):
            if fd >= 0:
                os.close(fd)
