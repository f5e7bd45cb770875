# What a record looks like: a line of text for people, one with a priority for systemd's
# journal, an object of JSON for programs.

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import Any

from .._errors import describe
from .stacks import from_plugin_on

FORMAT = "%(asctime)s %(plugin)s[%(process)d] [%(levelname)s] %(message)s"
#: The journal keeps the time of each line itself.
JOURNAL_FORMAT = FORMAT.removeprefix("%(asctime)s ")
DATE_FORMAT = "%Y-%m-%d %H:%M:%S"


class Formatter(logging.Formatter):
    """Starts a plugin's traceback where the plugin starts, and never raises to who logs."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record; one whose arguments do not fit says so and where it was logged."""
        try:
            record.getMessage()
        except BaseException as error:  # noqa: BLE001 - a plugin's __str__ may do anything
            text = f"{record.pathname}:{record.lineno} logs what cannot be shown: {describe(error)}"
            record = logging.makeLogRecord({**record.__dict__, "msg": text, "args": None})
        return self.format_message(record)

    def format_message(self, record: logging.LogRecord) -> str:
        """Format a record that has a message."""
        return super().format(record)

    def details(self, record: logging.LogRecord) -> str:
        """A record's traceback and stack; empty if it has none."""
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        return "\n".join(text for text in (record.exc_text, record.stack_info) if text)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's own name
        """Format an exception, given as by `sys.exc_info`."""
        try:
            return super().formatException((ei[0], ei[1], from_plugin_on(ei[1], ei[2])))
        except BaseException as error:  # noqa: BLE001 - an exception's attributes may do anything
            return f"{describe(ei[1])} (its traceback cannot be shown: {describe(error)})"


class JournalFormatter(Formatter):
    """Puts the priority in front of each line, for systemd's journal (see sd-daemon(3)).

    Args:
        lines: Makes the lines of a record.
    """

    def __init__(self, lines: Formatter) -> None:
        super().__init__()
        self._lines = lines

    def format_message(self, record: logging.LogRecord) -> str:
        prefix = f"<{_priority(record.levelno)}>"
        return prefix + self._lines.format_message(record).replace("\n", "\n" + prefix)


def _priority(level: int) -> int:
    """The priority of syslog(3) that fits a level of logging's."""
    steps = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
    return next((priority for least, priority in steps if level >= least), 7)


class JsonFormatter(Formatter):
    """Makes each record one line of JSON.

    It has ``time`` (ISO 8601, with the zone), ``level``, ``plugin``, ``pid``, ``message``, and
    ``traceback`` if there is an exception or a stack.
    """

    def format_message(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, timezone.utc).astimezone()
        said = record.getMessage(), self.details(record)
        # An isolated plugin's, without the marks that its lines have in a text.
        message, details = getattr(record, "unmarked", said)
        entry = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "plugin": getattr(record, "plugin", record.name),
            "pid": record.process,
            "message": message,
        }
        if details:
            entry["traceback"] = details
        return json.dumps(entry, ensure_ascii=False)
