# What one isolated plugin's process prints and logs, on its way to the host's output: with the
# plugin's name in front of each line, so that no line of it looks like the host's, and not more of
# it than a host can bear.
#
# Owner: the reading thread.

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable

from .._config.specs import PluginSpec
from .._logs import PLUGIN_LOGGER, logger
from .line_buffer import LineBuffer
from .messages import ENTRIES, LogEntry, decode
from .output_writer import OutputWriter
from .pipe_reader import Action, OnData

#: How much a process may say at once, and in the long run in a second, in bytes. A plugin that
#: logs a hundred tracebacks a second stays below that; one in an endless loop says 1000 times as
#: much, which would cost its neighbours their time and the host its disk.
BURST = 1024 * 1024
RATE = 256 * 1024
#: For how long a pipe is left unread after something was dropped, in seconds: it holds as much as
#: is read at once, so that even what is dropped is at most some 10 MB a second.
_REST = 0.005
#: How long after a report of what was dropped the next one comes at the earliest, in seconds.
_NEXT_REPORT = 5.0

#: A log record's time, in seconds since 1970, is before this: the year 9999.
_LAST_YEAR = 253_370_764_800
_HIGHEST_LEVEL = 100
#: Control characters, which could make a terminal write over what is there, but tab.
_CONTROLS = bytes(set(range(32)) - {9, 10}) + b"\x7f"
_SHOWN = bytes.maketrans(_CONTROLS, b"?" * len(_CONTROLS))


class ChildOutput:
    """Takes in what a process says, and drops what is too much of it.

    Args:
        name: The plugin's.
        writer: Writes what is left.
        clock: Seconds.
    """

    def __init__(
        self, name: str, writer: OutputWriter, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.pid: int | None = None
        self._name = name
        self._prefix = f"[{name}] ".encode("utf-8", "backslashreplace")
        self._writer = writer
        self._clock = clock
        self._room = float(BURST)
        self._filled_at = clock()
        self._dropped = 0
        self._next_report = 0.0

    def lines_of(self, take: Callable[[list[bytes]], object]) -> tuple[OnData, Action]:
        """What to watch a pipe with so that `take` gets its lines, but for those too many."""
        buffer = LineBuffer()

        def feed(data: bytes) -> float | None:
            has_room = self._has_room(len(data))
            if has_room:
                take(buffer.feed(data))
            else:
                self._dropped += buffer.skip(data)
            self._report_dropped()
            return None if has_room else _REST

        def end() -> None:
            take(buffer.flush())
            self._next_report = 0.0
            self._report_dropped()

        return feed, end

    def print_lines(self, lines: list[bytes], error: bool = False) -> None:
        """Write lines to the host's output."""
        if lines:
            prefix = self._prefix
            shown = [prefix + line.removesuffix(b"\r").translate(_SHOWN) + b"\n" for line in lines]
            self._writer.print(b"".join(shown), error, len(lines))

    def log_lines(self, lines: list[bytes]) -> None:
        """Log records, a line each."""
        for line in lines:
            entry = decode(line, ENTRIES)
            if entry is None:
                self.print_lines([line], error=True)
            else:
                self._log(entry, len(line))

    def _log(self, entry: LogEntry, size: int) -> None:
        log = _known_logger(entry.name)
        level = min(entry.level, _HIGHEST_LEVEL)
        if not log.isEnabledFor(level):
            return
        # In a text each further line is marked as the process's, like the first.
        mark = f"[{self._name}] "
        text = entry.text.replace("\n", "\n" + mark)
        record = logging.LogRecord(entry.name, level, "", 0, text, None, None)
        if entry.traceback:
            record.exc_text = mark + entry.traceback.replace("\n", "\n" + mark)
        record.unmarked = entry.text, entry.traceback
        if entry.created < _LAST_YEAR:
            record.created = entry.created
        record.process = self.pid
        record.plugin = self._name
        self._writer.write(functools.partial(log.handle, record), 2 * size)

    def _has_room(self, size: int) -> bool:
        now = self._clock()
        self._room = min(BURST, self._room + (now - self._filled_at) * RATE)
        self._filled_at = now
        if self._room < size:
            return False
        self._room -= size
        return True

    def _report_dropped(self) -> None:
        now = self._clock()
        if not self._dropped or now < self._next_report:
            return
        dropped, self._dropped, self._next_report = self._dropped, 0, now + _NEXT_REPORT
        text = "%s: %d lines of its output dropped: it says more than %d KiB a second"
        self._writer.write(
            lambda: logger.warning(text, self._name, dropped, RATE // 1024), len(text)
        )


def lowest_level(spec: PluginSpec) -> int:
    """The lowest level that the root logger, ours, or the plugin's own lets through.

    A `host.loglevel` is left out: the plugin's process sets that itself.
    """
    names = ["", "circusplug"]
    if spec.host.loglevel is None:
        names.append(PLUGIN_LOGGER + spec.name)
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
