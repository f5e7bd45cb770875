# Where lines go: a file that may be moved away at any time, as logrotate does, or that is rotated
# here, or standard output. A line is written as a whole or not at all, and is there for a reader at
# once, in a compressed file, too.
#
# Owner: the plugin's thread; `close` may be called by the thread that runs `handle_stop`.

from __future__ import annotations

import contextlib
import logging
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterable
from logging.handlers import RotatingFileHandler, TimedRotatingFileHandler
from typing import Literal, Protocol

#: How often a file is begun anew by time, in the words of Python's own handler; W6 is the midnight
#: at the end of a Sunday.
_WHEN = {"hour": "H", "day": "MIDNIGHT", "week": "W6"}
Every = Literal["never", "hour", "day", "week"]
#: To zlib: the form of gzip.
_GZIP = 16 + zlib.MAX_WBITS


class LineFile(Protocol):
    """Takes lines."""

    def write(self, line: bytes) -> None:
        """Write a line; raises OSError or ValueError if that cannot be done."""

    def close(self) -> None:
        """Write no more; may be called twice."""


class StandardOutput:
    """Writes to what `sys.stdout` is at the time, and never closes it."""

    def write(self, line: bytes) -> None:
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        text = line.decode().encode(encoding, "backslashreplace").decode(encoding)
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def close(self) -> None:
        pass


class WatchedFile:
    """Appends to a file, and opens it again when it was moved or removed.

    To see that takes a `stat` for each line, about a microsecond; in return no signal has to
    be sent, and no line goes to a file that is being compressed already.

    Args:
        filename: The file.
        compress: Whether to write it in the form of gzip. Each line can be read as soon as it is
            written, and whatever happens to the process afterwards.
        head: Gives the lines that a new or empty file begins with.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(
        self,
        filename: str,
        *,
        compress: bool = False,
        head: Callable[[], Iterable[bytes]] = tuple,
    ) -> None:
        self._filename = os.path.abspath(os.path.expanduser(filename))
        self._compress = compress
        self._head = head
        self._open()

    def _open(self) -> None:
        # Unbuffered: after a failed write (a full disk) nothing is left to be written later.
        self._file = open(self._filename, "ab", buffering=0)  # noqa: SIM115 - lives as long as self
        status = os.fstat(self._file.fileno())
        self._identity = status.st_dev, status.st_ino
        self._stream = zlib.compressobj(wbits=_GZIP) if self._compress else None
        self._unwritten = b""
        try:
            for line in self._head() if not status.st_size else ():
                self._append(line)
        except OSError:
            self._file.close()  # so that the next line begins it again
            raise

    def write(self, line: bytes) -> None:
        self.reopen_if_moved()
        self._append(line)

    def _append(self, line: bytes) -> None:
        if self._stream is None:
            self._put(line + b"\n")
            return
        # What the stream has taken in has to be written before anything else.
        self._put(self._unwritten)
        self._unwritten = self._stream.compress(line + b"\n")
        self._unwritten += self._stream.flush(zlib.Z_SYNC_FLUSH)
        self._put(self._unwritten)
        self._unwritten = b""

    def _put(self, data: bytes) -> None:
        """Write bytes, all of them or none."""
        left = data
        before = os.fstat(self._file.fileno()).st_size
        while left:
            try:
                written = self._file.write(left)
            except OSError:
                if len(left) < len(data):  # a part is there: take it back
                    with contextlib.suppress(OSError):
                        self._file.truncate(before)
                raise
            left = left[written:]

    def reopen_if_moved(self) -> None:
        """Open the file again if there is another one, or none, at its path."""
        if self._was_moved():
            self.close()
            self._open()

    def close(self) -> None:
        if self._stream is not None and not self._file.closed:
            with contextlib.suppress(OSError):  # it can be read without its end
                self._put(self._unwritten + self._stream.flush())
        self._stream = None
        self._file.close()

    def _was_moved(self) -> bool:
        if self._file.closed:  # it could not be opened again before
            return True
        try:
            status = os.stat(self._filename)
        except FileNotFoundError:
            return True
        return (status.st_dev, status.st_ino) != self._identity


class RotatedFile(WatchedFile):
    """Appends to a file that is moved away when it becomes too large or too old.

    Older files are called ``NAME.1``, ``NAME.2`` and so on if that goes by size, by time they have
    the date behind the name. What moves and removes them are Python's own handlers.

    Args:
        filename: The file.
        keep: How many older files to keep.
        size: The size from which on a new one is begun, in bytes; None: by `every`.
        every: How often a new one is begun.
        logger: Is told when that fails; lines go on to the file that is there.
        compress: As of `WatchedFile`; so is `head`.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(
        self,
        filename: str,
        keep: int,
        size: int | None,
        every: Every,
        logger: logging.Logger,
        *,
        compress: bool = False,
        head: Callable[[], Iterable[bytes]] = tuple,
    ) -> None:
        self._size = size
        self._logger = logger
        self._failed = False
        path = os.path.abspath(os.path.expanduser(filename))
        self._handler: RotatingFileHandler | TimedRotatingFileHandler
        if size is not None:
            self._handler = RotatingFileHandler(path, backupCount=keep, delay=True)
        else:
            self._handler = TimedRotatingFileHandler(
                path, _WHEN[every], backupCount=keep, delay=True
            )
        super().__init__(filename, compress=compress, head=head)

    def write(self, line: bytes) -> None:
        self.reopen_if_moved()
        if self._is_due(len(line) + 1):
            try:
                self._handler.doRollover()
            except OSError as error:
                if not self._failed:
                    self._logger.error("cannot begin a new file, the old one grows: %s", error)
                self._failed = True
            else:
                self._failed = False
        super().write(line)

    def _is_due(self, more: int) -> bool:
        status = os.fstat(self._file.fileno())
        if not stat.S_ISREG(status.st_mode):  # Python's handlers, the older ones, rename a device
            return False
        if isinstance(self._handler, TimedRotatingFileHandler):
            return bool(self._handler.shouldRollover(_NO_RECORD))
        return status.st_size > 0 and status.st_size + more > (self._size or 0)


def open_file(
    filename: str,
    keep: int,
    size: int | None,
    every: Every,
    logger: logging.Logger,
    *,
    compress: bool = False,
    head: Callable[[], Iterable[bytes]] = tuple,
) -> WatchedFile:
    """Open a file that is rotated as `RotatedFile` is, or not at all, if nothing says when.

    Raises:
        OSError: It cannot be opened.
    """
    if size is None and every == "never":
        return WatchedFile(filename, compress=compress, head=head)
    return RotatedFile(filename, keep, size, every, logger, compress=compress, head=head)


#: `shouldRollover` does not look at it.
_NO_RECORD = logging.makeLogRecord({})
