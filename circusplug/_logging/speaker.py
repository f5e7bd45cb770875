# Which plugin a thread speaks for, in what it logs and in what it prints.
#
# Owner: each thread has its own speaker, and its own entries in `begun`; when the process ends, the
# main thread takes those of all.

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Protocol

#: A plugin's own logger is called by its name, after this.
PLUGIN_LOGGER = "circusplug.plugin."


class Printer(Protocol):
    """Where threads print to."""

    def write_lines(self, name: str | None, lines: bytes) -> None:
        """Write lines of a plugin, or of nobody; the last one is without its end."""


class _Speaker(threading.local):
    name: str | None = None


speaker = _Speaker()

#: What was printed of lines that have no end yet: who prints, and the text, by the number of the
#: thread and where it prints to. A thread that ends leaves its last entry here.
begun: dict[tuple[int, Printer], tuple[str | None, bytes]] = {}


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
    end_lines(threading.get_ident())
    speaker.name = name


def end_lines(thread: int | None = None) -> None:
    """Write what a thread, or any, has begun as whole lines."""
    for number, printer in list(begun):
        if thread in (None, number) and (entry := begun.pop((number, printer), None)):
            with contextlib.suppress(OSError, ValueError):  # nobody reads it, or it was closed
                printer.write_lines(*entry)


class PluginFilter(logging.Filter):
    """Adds ``plugin`` to each record: the plugin whose thread, or whose logger, it is of."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "plugin"):
            if record.name.startswith(PLUGIN_LOGGER):
                record.plugin = record.name[len(PLUGIN_LOGGER) :]
            else:
                record.plugin = speaker.name or record.name
        return True
