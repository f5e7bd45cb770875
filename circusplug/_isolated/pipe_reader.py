# The thread that reads all pipes of a host's isolated plugins, so that fifty of them do not need
# fifty threads.
#
# Owner: the reading thread alone touches the selector and the timers; others hand it work
# through `_todo`, under `_lock` until `_closed`.

from __future__ import annotations

import collections
import contextlib
import heapq
import itertools
import os
import selectors
import threading
import time
from collections.abc import Callable

from .._logs import logger

#: Takes what was read; returns for how long not to read more of it, in seconds.
OnData = Callable[[bytes], float | None]
Action = Callable[[], object]

#: How long the last that processes have said may take to be read when the host stops, in seconds.
FLUSH_WAIT = 5.0

_READ_SIZE = 64 * 1024
#: How much of one pipe is read out at the end of its process, in bytes: more than a pipe holds,
#: and yet an end, as what the process has started may write there for ever.
_LAST_READS = 16


class PipeReader:
    """Reads pipes and keeps time on a thread of its own; a context manager."""

    def __init__(self) -> None:
        self._todo: collections.deque[Action] = collections.deque()
        self._timers: list[tuple[float, int, Action]] = []
        self._watched: dict[int, tuple[OnData, Action]] = {}
        self._count = itertools.count()
        self._lock = threading.Lock()
        self._closed = self._closing = False
        self._thread = threading.Thread(target=self._run, name="circusplug-children", daemon=True)

    def __enter__(self) -> PipeReader:
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.call(self._end)
        self._thread.join(2 * FLUSH_WAIT)
        if not self._thread.is_alive():
            os.close(self._wake_read)
            os.close(self._wake_write)

    # From any thread.

    def call(self, action: Action) -> bool:
        """Have the reading thread do something soon; False if it has ended."""
        with self._lock:
            if self._closed:
                return False
            self._todo.append(action)
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_write, b".")
        return True

    def call_at(self, moment: float, action: Action) -> None:
        """Have it do something then, in seconds of `time.monotonic`, unless it has ended."""
        entry = moment, next(self._count), action
        self.call(lambda: heapq.heappush(self._timers, entry))

    def watch(self, fd: int, on_data: OnData, on_end: Action) -> None:
        """Read a descriptor until its end, or that of the host, and close it then.

        Both callbacks are called on the reading thread; `on_end` here if that has ended.
        """
        os.set_blocking(fd, False)
        if not self.call(lambda: self._begin_watch(fd, (on_data, on_end))):
            os.close(fd)
            on_end()

    # On the reading thread.

    def read_out(self, fd: int) -> None:
        """Read what a watched descriptor holds now, so that it comes before what is done next."""
        for _ in range(_LAST_READS):
            if not self._read(fd):
                return

    def _begin_watch(self, fd: int, callbacks: tuple[OnData, Action]) -> None:
        self._watched[fd] = callbacks
        self._selector.register(fd, selectors.EVENT_READ)

    def _run(self) -> None:
        while not self._closing:
            self._turn(self._time_left())
        # What the processes have said last is in their pipes by now.
        deadline = time.monotonic() + FLUSH_WAIT
        while self._turn(0.0) and time.monotonic() < deadline:
            pass
        with self._lock:
            self._closed = True
            self._do_what_was_handed_over()
        for fd in list(self._watched):
            self._let_go(fd)
        self._selector.close()

    def _time_left(self) -> float | None:
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _turn(self, timeout: float | None) -> bool:
        """Read what there is to be read; False if there is nothing within `timeout` seconds."""
        ready = self._selector.select(timeout)
        for key, _ in ready:
            if key.fd == self._wake_read:
                os.read(key.fd, _READ_SIZE)
                self._do_what_was_handed_over()
            else:
                self._read(key.fd)
        while self._timers and self._timers[0][0] <= time.monotonic():
            self._do(heapq.heappop(self._timers)[2])
        return bool(ready)

    def _read(self, fd: int) -> bool:
        """Read once; False if nothing is there, or nothing more will come."""
        callbacks = self._watched.get(fd)
        if callbacks is None:  # it was let go meanwhile
            return False
        try:
            data = os.read(fd, _READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        if not data:
            self._let_go(fd)
            return False
        self._do(lambda: self._pause(fd, callbacks, callbacks[0](data)))
        return True

    def _pause(self, fd: int, callbacks: tuple[OnData, Action], seconds: float | None) -> None:
        """Leave a descriptor alone for some time, if it is not let go by then."""
        if seconds and fd in self._selector.get_map():
            self._selector.unregister(fd)
            self.call_at(time.monotonic() + seconds, lambda: self._go_on(fd, callbacks))

    def _go_on(self, fd: int, callbacks: tuple[OnData, Action]) -> None:
        if self._watched.get(fd) is callbacks:  # and not another's by now
            self._selector.register(fd, selectors.EVENT_READ)

    def _let_go(self, fd: int) -> None:
        """Close a descriptor of which nothing more is read, and say so."""
        if fd in self._selector.get_map():
            self._selector.unregister(fd)
        _, on_end = self._watched.pop(fd)
        os.close(fd)
        self._do(on_end)

    def _do(self, action: Action) -> None:
        try:
            action()
        except Exception:  # noqa: BLE001 - a mistake of ours; there are other plugins' pipes
            logger.exception("what an isolated plugin says could not be taken in")

    def _do_what_was_handed_over(self) -> None:
        while self._todo:
            self._do(self._todo.popleft())

    def _end(self) -> None:
        self._closing = True
