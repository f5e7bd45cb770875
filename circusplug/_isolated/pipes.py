# What connects a host with all of its isolated plugins' processes: one thread that reads their
# pipes, and one that writes what they print and log.

from __future__ import annotations

import contextlib

from .output_writer import OutputWriter
from .pipe_reader import PipeReader


class Pipes:
    """The reading and the writing thread; a context manager."""

    def __init__(self) -> None:
        self.writer = OutputWriter()
        self.reader = PipeReader()
        self._threads = contextlib.ExitStack()

    def __enter__(self) -> Pipes:
        self._threads.enter_context(self.writer)
        self._threads.enter_context(self.reader)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._threads.close()  # the reader first: what it has read last is written, too
