# Where lines go: a file that may be moved away at any time, as logrotate does, or standard
# output. A line is written as a whole or not at all, and is there for a reader at once.
#
# Owner: the plugin's thread; `close` may be called by the thread that runs `handle_stop`.

from __future__ import annotations

import os
import sys
from typing import Protocol


class LineFile(Protocol):
    """Takes lines."""

    def write(self, line: str) -> None:
        """Write a line; raises OSError or ValueError if that cannot be done."""

    def close(self) -> None:
        """Write no more; may be called twice."""


def open_lines(filename: str) -> LineFile:
    """Open a file for appending lines; ``-`` is standard output.

    Raises:
        OSError: It cannot be opened.
    """
    return StandardOutput() if filename == "-" else WatchedFile(filename)


class StandardOutput:
    """Writes to what `sys.stdout` is at the time, and never closes it."""

    def write(self, line: str) -> None:
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        sys.stdout.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        sys.stdout.flush()

    def close(self) -> None:
        pass


class WatchedFile:
    """Appends to a file, and opens it again when it was moved or removed.

    To see that takes a `stat` for each line, about a microsecond; in return no signal has to
    be sent, and no line goes to a file that is being compressed already.
    """

    def __init__(self, filename: str) -> None:
        self._filename = os.path.abspath(os.path.expanduser(filename))
        self._open()

    def _open(self) -> None:
        # Unbuffered: after a failed write (a full disk) nothing is left to be written later.
        self._file = open(self._filename, "ab", buffering=0)  # noqa: SIM115 - lives as long as self
        status = os.fstat(self._file.fileno())
        self._identity = status.st_dev, status.st_ino

    def write(self, line: str) -> None:
        if self._was_moved():
            self._file.close()
            self._open()
        self._file.write(line.encode() + b"\n")

    def close(self) -> None:
        self._file.close()

    def _was_moved(self) -> bool:
        if self._file.closed:  # it could not be opened again before
            return True
        try:
            status = os.stat(self._filename)
        except FileNotFoundError:
            return True
        return (status.st_dev, status.st_ino) != self._identity
