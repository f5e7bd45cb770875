# Where records go: to a file that may be moved away, to a standard stream, to syslog. All write
# UTF-8 whatever the locale, a record and its line end in one go, and what they cannot write
# is counted instead of being dumped.
#
# Owner: each handler's own lock, which logging takes around `emit`.

from __future__ import annotations

import contextlib
import errno
import logging
import logging.handlers
import os
import socket
import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, TextIO
from urllib.parse import urlsplit

from .printing import WholeFile, descriptor_of, directly, utf8_stream
from .repeats import is_milestone


class _CountsLoss(logging.Handler):
    """Tells of records that it cannot write on standard error, at growing distances."""

    #: What it writes to, for messages.
    place = ""
    _lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, and how many were lost before it."""
        lost = self._lost
        try:
            super().emit(record)
        except OSError:  # a file that cannot be opened again, which logging leaves to us
            self.handleError(record)
        if lost and self._lost == lost:
            self._lost = 0
            self.emit(_make_record(f"{lost} records before the last one could not be written here"))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Count a record that could not be written; called while the error is handled."""
        self._lost += 1
        if not is_milestone(self._lost):
            return
        error = sys.exc_info()[1]
        why = f"cannot log to {self.place}: {getattr(error, 'strerror', None) or error}"
        if self._lost > 1:
            why += f"; {self._lost} records are lost so far"
        with contextlib.suppress(Exception):  # there is nowhere else to tell it
            directly(sys.stderr).write(f"{self.format(record)} ({why})\n")


def _make_record(message: str) -> logging.LogRecord:
    record = logging.LogRecord("circusplug", logging.WARNING, "", 0, message, None, None)
    record.plugin = "circusplug"
    return record


class LogFile(_CountsLoss, logging.handlers.WatchedFileHandler):
    """A log file that is opened anew when it was moved away, and that may then be missing."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.place = self.baseFilename

    def _open(self) -> TextIOWrapper:
        # Without a buffer nothing stays behind after a failed write (a full disk).
        return utf8_stream(WholeFile(self.baseFilename, "ab"))

    def reopen(self) -> None:
        """Open the file anew, as after its rotation; if that fails, the next record tries."""
        self.acquire()
        try:
            if self.stream is not None:
                self.stream.close()
                self.stream = None
            with contextlib.suppress(OSError):
                self.stream = self._open()
        finally:
            self.release()


if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[TextIO]
else:
    _StreamHandler = logging.StreamHandler  # which takes no parameter before Python 3.11


def is_journal(stream: TextIO) -> bool:
    """Whether systemd's journal reads a stream (JOURNAL_STREAM, see systemd.exec(5))."""
    descriptor = descriptor_of(stream)
    if descriptor is None:
        return False
    status = os.fstat(descriptor)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class StandardStream(_CountsLoss, _StreamHandler):
    """Standard output or error."""

    def __init__(self, stream: TextIO, place: str) -> None:
        super().__init__(directly(stream))
        self.place = place


class Syslog(_CountsLoss, logging.handlers.SysLogHandler):
    """Syslog, here or on another machine.

    Args:
        url: ``syslog://[HOST[:PORT]][/PATH][?FACILITY]``.

    Raises:
        OSError: There is no syslog there.
        ValueError: The URL is wrong.
    """

    def __init__(self, url: str) -> None:
        self.place = url
        parts = urlsplit(url)
        facility = parts.query or "user"
        if facility not in self.facility_names:
            raise ValueError(f"no syslog facility {facility!r}")
        if parts.netloc:
            address = parts.hostname or "localhost", parts.port or 514
            super().__init__(address, self.facility_names[facility])
        else:
            path = parts.path or "/dev/log"
            _look_for_syslog(path)
            super().__init__(path, self.facility_names[facility])

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).encode("utf-8", "backslashreplace").decode()


def _look_for_syslog(path: str) -> None:
    """Raise an OSError if nobody listens there, which logging would find out at each record."""
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_UNIX, kind) as probe:
            try:
                return probe.connect(path)
            except OSError as error:
                if error.errno != errno.EPROTOTYPE:
                    raise
    raise OSError(errno.EPROTOTYPE, os.strerror(errno.EPROTOTYPE))


def open_output(output: str) -> logging.Handler:
    """Open what ``logoutput`` names: a file's path, ``-``, ``stdout`` or a URL of syslog's.

    Raises:
        OSError, ValueError: It cannot be opened.
    """
    if output in ("", "-", "stdout"):
        name = "stdout" if output == "stdout" else "stderr"
        stream = getattr(sys, name)
        return logging.NullHandler() if stream is None else StandardStream(stream, name)
    if output.startswith("syslog://"):
        return Syslog(output)
    return LogFile(os.path.expanduser(output))
