# Writes each event as one line, as text for people or as JSON for programs.
#
# Owner: the plugin's thread; the file is closed by `handle_stop`, when that thread is parked.

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from circusplug import CircusPlugin, SpecError
from circusplug.options import declare, option

from ._linefile import LineFile, open_lines

#: How much of a message that is no event is shown, in bytes.
_SHOWN = 500

_AMBIGUOUS = frozenset(' "=')


@dataclass(frozen=True)
class LoggerOptions:
    """What a `Logger` can be told."""

    filename: str = option(
        "-",
        meaning="the file to append to, - for standard output",
        example="/var/log/circus-events.log",
    )
    format: Literal["text", "json"] = option("text", meaning="how a line looks")


class Logger(CircusPlugin):
    """Writes each event of circusd as one line to a file or to standard output.

    As text, ``2026-01-02 03:04:05 web reap pid=123 exit_code=-9``: the time is local, a value
    that would be ambiguous is quoted as JSON does. As JSON, an object with ``time`` (seconds
    since the epoch), ``watcher``, ``action`` and what circusd's payload holds.

    A line of action ``reconnect``, of no watcher, tells that circusd came back and that events
    may be missing before it; a line of action ``unreadable`` shows a message that is no event.

    A file that was moved away or removed, as by logrotate, is made anew: no signal is needed. One
    that cannot be opened is a SpecError at the start.
    """

    name = "logger"
    options = declare(LoggerOptions)

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self.filename = self.options.filename or "-"
        self._format = format_json if self.options.format == "json" else format_text
        self._file: LineFile | None = None
        self._lost = 0

    def handle_init(self) -> None:
        try:
            self._file = open_lines(self.filename)
        except OSError as error:
            raise SpecError(f"'filename': {error}", key="filename") from None

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        try:
            event = self.parse_event(data)
            line = self._format(
                event.time or time.time(), event.watcher, event.action, event.payload
            )
        except (ValueError, OverflowError, RecursionError) as error:
            line = self._format(time.time(), "", "unreadable", _describe(data, error))
        self._write(line)

    def handle_reconnect(self) -> None:
        note = {"note": "circusd came back; events before this line may be missing"}
        self._write(self._format(time.time(), "", "reconnect", note))

    def handle_stop(self) -> None:
        if self._file is not None:
            self._file.close()

    def _write(self, line: str) -> None:
        """Write a line; trouble is told once, not for each line."""
        assert self._file is not None
        try:
            self._file.write(line)
        except (OSError, ValueError) as error:
            if not self._lost:
                self.logger.error("cannot write to %s, lines are lost: %s", self.filename, error)
            self._lost += 1
        else:
            if self._lost:
                self.logger.warning("%s: %d lines were lost", self.filename, self._lost)
                self._lost = 0


def format_text(moment: float, watcher: str, action: str, payload: Mapping[str, Any]) -> str:
    """An event as a line for people.

    Raises:
        ValueError, OverflowError, RecursionError: It has a value that cannot be shown.
    """
    try:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
    except OSError as error:  # what some systems say of a year that is far away
        raise ValueError(str(error)) from None
    parts = [stamp, _word(watcher) if watcher else "-", _word(action)]
    for key, value in payload.items():
        if key != "time":
            parts.append(f"{'pid' if key == 'process_pid' else _word(key)}={_word(value)}")
    return " ".join(parts)


def format_json(moment: float, watcher: str, action: str, payload: Mapping[str, Any]) -> str:
    """An event as a line for programs; raises as `format_text`."""
    fields = {"time": moment, "watcher": watcher or None, "action": action}
    return json.dumps({**fields, **payload, **fields}, allow_nan=False)


def _word(value: Any) -> str:
    """A value that a reader can tell from its neighbours; text as it is where that is clear."""
    if isinstance(value, str) and value.isprintable() and value and not _AMBIGUOUS & set(value):
        return value
    return json.dumps(value)


def _describe(data: tuple[bytes, bytes], error: Exception) -> dict[str, str]:
    topic, message = (part[:_SHOWN].decode("utf-8", "backslashreplace") for part in data)
    return {"topic": topic, "message": message, "error": str(error)[:_SHOWN]}
