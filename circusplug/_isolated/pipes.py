# What connects the host with its isolated plugins' processes: one thread that reads all of
# their pipes, and one that writes what they print, so that neither a slow terminal nor a
# chatty plugin keeps anybody waiting.
#
# Owner: the reading thread alone touches the selector; others hand it work through `_todo`,
# under `_lock` until `_closed`. The writing thread takes from `_output`, whose size `_room`
# bounds; it alone counts in `_written`.

from __future__ import annotations

import collections
import contextlib
import functools
import json
import logging
import os
import queue
import selectors
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

from .._logs import logger

OnData = Callable[[bytes], object]

#: How much output may wait for a slow terminal or log file before some is dropped, in bytes.
OUTPUT_LIMIT = 8 * 1024 * 1024
#: How long the last output may take when the host stops, in seconds.
FLUSH_WAIT = 5.0
#: How long a part of it may take to be written then, in seconds.
STUCK_WAIT = 2.0

#: What waiting costs beyond the text itself, in bytes.
_OVERHEAD = 512
_READ_SIZE = 64 * 1024
#: A log record's time, in seconds since 1970, is before this: the year 9999.
_LAST_YEAR = 253_370_764_800


class Children:
    """Reads the pipes of child processes and writes their output; a context manager."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._todo: collections.deque[Callable[[], object]] = collections.deque()
        self._lock = threading.Lock()
        self._closed = False
        self._closing = False
        self._output: queue.SimpleQueue[tuple[Callable[[], object], int] | None] = (
            queue.SimpleQueue()
        )
        self._room = OUTPUT_LIMIT
        self._room_lock = threading.Lock()
        self._dropped = 0
        self._written = 0
        self._reader = threading.Thread(target=self._read, name="circusplug-children", daemon=True)
        self._writer = threading.Thread(target=self._write, name="circusplug-output", daemon=True)

    def __enter__(self) -> Children:
        self._selector.register(self._wake_read, selectors.EVENT_READ, (self._awake, None))
        self._reader.start()
        self._writer.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.call(self._end)
        self._reader.join(2 * FLUSH_WAIT)
        self._output.put(None)
        self._join_writer()
        if not self._reader.is_alive():
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _join_writer(self) -> None:
        """Wait for the last output, unless nobody seems to read it."""
        deadline = time.monotonic() + FLUSH_WAIT
        written = -1
        while self._writer.is_alive() and written != self._written:
            written = self._written
            self._writer.join(min(STUCK_WAIT, max(0.0, deadline - time.monotonic())))

    # From any thread.

    def call(self, action: Callable[[], object]) -> bool:
        """Have the reading thread do something soon; False if it has ended."""
        with self._lock:
            if self._closed:
                return False
            self._todo.append(action)
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_write, b".")
        return True

    def watch(self, fd: int, on_data: OnData, on_end: Callable[[], object]) -> None:
        """Read a descriptor until its end, or that of the host, and close it then.

        Both callbacks are called on the reading thread; `on_end` here if that has ended.
        """
        os.set_blocking(fd, False)
        if not self.call(
            lambda: self._selector.register(fd, selectors.EVENT_READ, (on_data, on_end))
        ):
            os.close(fd)
            on_end()

    def print_lines(self, name: str, lines: list[bytes], error: bool) -> None:
        """Write lines of a plugin's output to the host's, each with the plugin's name in front."""
        if not lines:
            return
        prefix = f"[{name}] ".encode()
        data = b"".join([prefix + line + b"\n" for line in lines])
        self.write(lambda: _print(data, sys.stderr if error else sys.stdout), len(data), len(lines))

    def log_lines(self, name: str, pid: int | None, lines: list[bytes]) -> None:
        """Log what a plugin's process has logged, one JSON object a line."""
        for line in lines:
            try:
                entry = json.loads(line)
                level = max(0, min(int(entry["level"]), 100))
                record = logging.LogRecord(
                    str(entry["name"]), level, "", 0, str(entry["text"]), None, None
                )
                if 0 <= (created := float(entry["created"])) < _LAST_YEAR:
                    record.created = created
            except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
                self.print_lines(name, [line], True)
                continue
            record.process = pid
            record.plugin = str(entry.get("plugin") or name)
            log = _known_logger(record.name)
            if log.isEnabledFor(record.levelno):
                self.write(functools.partial(log.handle, record), 2 * len(line))

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

    # On the reading thread.

    def _read(self) -> None:
        while not self._closing:
            self._turn(None)
        # What the processes have said last is in their pipes by now.
        deadline = time.monotonic() + FLUSH_WAIT
        while self._turn(0.0) and time.monotonic() < deadline:
            pass
        with self._lock:
            self._closed = True
            self._awake(b"")
        for key in list(self._selector.get_map().values()):
            if key.fd != self._wake_read:
                self._let_go(key)
        self._selector.close()

    def _turn(self, timeout: float | None) -> bool:
        """Read what there is to be read; False if there is nothing within `timeout` seconds."""
        ready = self._selector.select(timeout)
        for key, _ in ready:
            on_data, _ = key.data
            try:
                data = os.read(key.fd, _READ_SIZE)
            except (BlockingIOError, InterruptedError):
                continue
            except OSError:
                data = b""
            if not data:
                self._let_go(key)
                continue
            try:
                on_data(data)
            except Exception as error:  # noqa: BLE001 - the others' pipes are to be read, too
                self._complain(error)
        return bool(ready)

    def _let_go(self, key: selectors.SelectorKey) -> None:
        """Close a descriptor of which nothing more is read, and say so."""
        self._selector.unregister(key.fd)
        os.close(key.fd)
        try:
            key.data[1]()
        except Exception as error:  # noqa: BLE001 - there are others
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        what = f"{type(error).__name__}: {error}"[:1000]  # not the error, which keeps its frames
        self.write(
            lambda: logger.error("what a plugin's process says makes no sense: %s", what), 1000
        )

    def _awake(self, _: bytes) -> None:
        while self._todo:
            self._todo.popleft()()

    def _end(self) -> None:
        self._closing = True

    # On the writing thread.

    def _write(self) -> None:
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


def lowest_level() -> int:
    """The lowest level that a logger of ours, or the root, lets through."""
    names = ("", "circusplug", "circusplug.plugin")
    return min(logging.getLogger(name).getEffectiveLevel() for name in names)


def _known_logger(name: str) -> logging.Logger:
    """The nearest logger that exists; one that is asked for would be kept for ever, and a
    plugin may make up any number of names."""
    known = logging.Logger.manager.loggerDict
    while name:
        found = known.get(name)
        if isinstance(found, logging.Logger):
            return found
        name = name.rpartition(".")[0]
    return logging.getLogger()
