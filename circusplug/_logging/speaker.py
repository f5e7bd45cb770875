# Which plugin a thread speaks for, in what it logs and in what it prints.
#
# Owner: each thread has its own speaker, and its own lines that have no end yet.

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Protocol

#: A plugin's own logger is called by its name, after this.
PLUGIN_LOGGER = "circusplug.plugin."


class Printer(Protocol):
    """Where a thread prints to."""

    def end_line(self) -> None:
        """Write what the calling thread has begun as a whole line."""


class _Speaker(threading.local):
    def __init__(self) -> None:
        self.name: str | None = None
        self.begun: dict[Printer, bytes] = {}


speaker = _Speaker()


@contextlib.contextmanager
def speaking(name: str | None) -> Iterator[None]:
    """Let what this thread logs and prints be known as `name`'s."""
    before = speaker.name
    _change(name)
    try:
        yield
    finally:
        _change(before)


def _change(name: str | None) -> None:
    for printer in list(speaker.begun):
        with contextlib.suppress(OSError):  # nobody reads it
            printer.end_line()
    speaker.name = name


class PluginFilter(logging.Filter):
    """Adds ``plugin`` to each record: the plugin whose thread, or whose logger, it is of."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "plugin"):
            if record.name.startswith(PLUGIN_LOGGER):
                record.plugin = record.name[len(PLUGIN_LOGGER) :]
            else:
                record.plugin = speaker.name or record.name
        return True
