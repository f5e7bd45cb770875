# What plugins on threads print: each line begins with the plugin's name, as those of an isolated
# one do, and is written in one go, so that lines of several plugins never tear each other.
#
# Nothing is locked, and no thread writes into a line of another: a process that is forked while
# another thread prints can print as well.
#
# Owner: each thread has its own line that has no end yet (see speaker.py).

from __future__ import annotations

import contextlib
import errno
import io
import sys
import threading
from typing import Any, TextIO

from .speaker import begun, speaker

#: A longer line is written in pieces, so that a plugin cannot fill the memory with one.
LINE_LIMIT = 64 * 1024


def descriptor_of(stream: TextIO) -> int | None:
    """A stream's descriptor; None if it has none, as where a test captures it."""
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


class WholeFile(io.FileIO):
    """A file without a buffer of which each write is whole, or an error."""

    def write(self, data: Any) -> int:
        left = memoryview(data)
        while left:
            written = super().write(left)
            if written is None:
                raise BlockingIOError(errno.EAGAIN, "nobody reads it just now")
            left = left[written:]
        return len(data)


def utf8_stream(raw: Any) -> io.TextIOWrapper:
    """A text stream that writes at once, and whatever text it is given."""
    return io.TextIOWrapper(raw, "utf-8", "backslashreplace", write_through=True)


def _past(stream: TextIO) -> WholeFile | None:
    """A stream's descriptor as a file of its own; None if it has none."""
    with contextlib.suppress(OSError, ValueError):
        stream.flush()  # what waits there comes first
    descriptor = descriptor_of(stream)
    return None if descriptor is None else WholeFile(descriptor, "wb", closefd=False)


def directly(stream: TextIO) -> TextIO:
    """A text stream to the same place, past the encoding, buffer, lock and names of `stream`."""
    file = _past(stream)
    return stream if file is None else utf8_stream(file)


def mark_output() -> None:
    """Have what is printed from now on begin with the name of the plugin that prints it.

    For a process that circusplug owns. A line is written when it is complete, however often it
    is flushed; threads that speak for no plugin print as ever, but in whole lines.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        # One that was closed is None; the buffer of one that is marked already is ours.
        if stream is not None and not isinstance(getattr(stream, "buffer", None), _MarkedOutput):
            setattr(sys, name, utf8_stream(_MarkedOutput(stream)))


class _MarkedOutput(io.RawIOBase):
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream  # kept, because its end would close the descriptor
        self._file = _past(stream)
        self.name = getattr(stream, "name", None)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def write(self, data: Any) -> int:
        """Write the lines that are complete with `data`, and keep the rest."""
        whole, end, rest = (self._take_begun() + bytes(data)).rpartition(b"\n")
        name = speaker.name
        if end:
            self.write_lines(name, whole)
        while len(rest) > LINE_LIMIT:
            self.write_lines(name, rest[:LINE_LIMIT])
            rest = rest[LINE_LIMIT:]
        if rest:
            begun[threading.get_ident(), self] = name, rest
        return len(data)

    def flush(self) -> None:
        """Write what a thread has begun if it speaks for nobody: it may be a prompt."""
        if speaker.name is None:
            self._put(self._take_begun())

    def _take_begun(self) -> bytes:
        return begun.pop((threading.get_ident(), self), (None, b""))[1]

    def write_lines(self, name: str | None, lines: bytes) -> None:
        prefix = b"" if name is None else f"[{name}] ".encode("utf-8", "backslashreplace")
        self._put(prefix + lines.replace(b"\n", b"\n" + prefix) + b"\n")

    def _put(self, data: bytes) -> None:
        if not data:
            return  # the stream may be closed by now
        if self._file is not None:
            self._file.write(data)
        else:
            self._stream.write(data.decode("utf-8", "replace"))
            self._stream.flush()
