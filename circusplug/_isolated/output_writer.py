# The thread that writes what isolated plugins print and log, so that neither a slow terminal nor
# a slow log file keeps anybody waiting.
#
# Owner: the writing thread takes from `_output`, whose size `_room` bounds; it alone counts in
# `_written`.

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

from .._logs import logger

#: How much output may wait for a slow terminal or log file before some is dropped, in bytes.
OUTPUT_LIMIT = 8 * 1024 * 1024
#: How long the last output may take when the host stops, in seconds.
FLUSH_WAIT = 5.0
#: How long a part of it may take to be written then, in seconds.
STUCK_WAIT = 2.0

#: What waiting costs beyond the text itself, in bytes.
_OVERHEAD = 512


class OutputWriter:
    """Writes on a thread of its own, in bounded memory; a context manager."""

    def __init__(self) -> None:
        self._output: queue.SimpleQueue[tuple[Callable[[], object], int] | None] = (
            queue.SimpleQueue()
        )
        self._room = OUTPUT_LIMIT
        self._room_lock = threading.Lock()
        self._dropped = 0
        self._written = 0
        self._thread = threading.Thread(target=self._run, name="circusplug-output", daemon=True)

    def __enter__(self) -> OutputWriter:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Wait for the last output, unless nobody seems to read it."""
        self._output.put(None)
        deadline = time.monotonic() + FLUSH_WAIT
        written = -1
        while self._thread.is_alive() and written != self._written:
            written = self._written
            self._thread.join(min(STUCK_WAIT, max(0.0, deadline - time.monotonic())))

    def print(self, data: bytes, error: bool, lines: int) -> None:
        """Write lines to the host's standard output, or its standard error; from any thread."""
        self.write(lambda: _print(data, sys.stderr if error else sys.stdout), len(data), lines)

    def write(self, action: Callable[[], object], size: int, lines: int = 1) -> None:
        """Have the writing thread do something, unless too much of that is waiting.

        Args:
            action: What to do, for example to log a record.
            size: How much memory it keeps busy, in bytes.
            lines: How many lines it writes, to count those that are dropped.
        """
        size += _OVERHEAD
        with self._room_lock:
            if self._room < size:
                self._dropped += lines
                return
            self._room -= size
        self._output.put((action, size))

    # On the writing thread.

    def _run(self) -> None:
        while (item := self._output.get()) is not None:
            action, size = item
            try:
                action()
            except Exception as error:  # noqa: BLE001 - a closed terminal must not end this
                logger.debug("output of a plugin could not be written: %s", error)
            self._written += 1
            with self._room_lock:
                self._room += size
                dropped, self._dropped = self._dropped, 0
            if dropped:
                logger.warning("%d lines of plugins' output dropped: nobody reads it", dropped)


def _print(data: bytes, stream: TextIO) -> None:
    stream.flush()
    buffer = getattr(stream, "buffer", None)
    if buffer is not None:
        buffer.write(data)
    else:
        stream.write(data.decode("utf-8", "replace"))
    stream.flush()
