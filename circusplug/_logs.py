# The host's log, and what the other rooms use of `_logging`: who speaks, where the log goes, and
# how much of it.
#
# Owner: `configure` and `mark_output` are for a process that circusplug owns (its commands, an
# isolated plugin's child); a host inside somebody's program leaves logging as that has set it.

from __future__ import annotations

import logging

from ._errors import ConfigError
from ._logging.formats import (
    DATE_FORMAT,
    FORMAT,
    JOURNAL_FORMAT,
    Formatter,
    JournalFormatter,
    JsonFormatter,
)
from ._logging.handlers import LogFile, StandardStream, is_journal, open_output
from ._logging.printing import mark_output
from ._logging.repeats import Repeats
from ._logging.speaker import PLUGIN_LOGGER, PluginFilter, end_lines, speaking
from ._logging.stacks import plugin_stack

__all__ = [
    "DATE_FORMAT",
    "FORMAT",
    "LEVELS",
    "LOG_FORMATS",
    "PLUGIN_LOGGER",
    "Formatter",
    "PluginFilter",
    "Repeats",
    "configure",
    "end_lines",
    "is_journal",
    "logger",
    "mark_output",
    "parse_level",
    "plugin_stack",
    "reopen",
    "set_plugin_level",
    "speaking",
]

LEVELS = ("debug", "info", "warning", "error", "critical")
LOG_FORMATS = ("text", "json")

#: What the host itself logs to.
logger = logging.getLogger("circusplug")

#: The loggers whose level `set_plugin_level` has set.
_levelled: set[str] = set()


def parse_level(name: str) -> int:
    """A level's number, by its name in any case.

    Raises:
        ConfigError: There is no such level.
    """
    if name.strip().lower() not in LEVELS:
        raise ConfigError(f"'loglevel': {name!r} is none of {', '.join(LEVELS)}")
    return int(getattr(logging, name.strip().upper()))


def configure(level: str = "info", output: str = "-", log_format: str = "text") -> None:
    """Send this process's log to a file, to standard error (``-``) or to syslog.

    Args:
        level: The lowest level to log.
        output: A file's path, ``-``, ``stdout``, or ``syslog://[HOST[:PORT]][/PATH][?FACILITY]``.
        log_format: ``text`` or ``json``. Lines to systemd's journal carry their priority; those
            of text leave the time to it.

    Raises:
        ConfigError: No such level or format, or the output cannot be opened; all stays as it was.
    """
    number = parse_level(level)
    if log_format not in LOG_FORMATS:
        raise ConfigError(f"'log_format': {log_format!r} is none of {', '.join(LOG_FORMATS)}")
    try:
        handler = open_output(output)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"'logoutput': cannot log to {output!r}: {reason}") from None
    journal = isinstance(handler, StandardStream) and is_journal(handler.stream)
    kind = JsonFormatter if log_format == "json" else Formatter
    formatter = kind(JOURNAL_FORMAT if journal else FORMAT, DATE_FORMAT)
    handler.setFormatter(JournalFormatter(formatter) if journal else formatter)
    handler.addFilter(PluginFilter())
    logging.basicConfig(level=number, handlers=[handler], force=True)
    logging.captureWarnings(True)


def set_plugin_level(name: str, level: str | None) -> None:
    """Set the lowest level that a plugin's own logger logs.

    A plugin's level also holds for those whose name begins with its name and a dot, unless they
    have one of their own.

    Args:
        name: The plugin's.
        level: The level; None: that of the whole log, or what somebody else has set.

    Raises:
        ConfigError: There is no such level.
    """
    if level is not None:
        _levelled.add(name)
        logging.getLogger(PLUGIN_LOGGER + name).setLevel(parse_level(level))
    elif name in _levelled:
        _levelled.discard(name)
        logging.getLogger(PLUGIN_LOGGER + name).setLevel(logging.NOTSET)


def reopen() -> None:
    """Open the log file anew, if the log goes to one; what SIGUSR1 is for."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogFile):
            handler.reopen()
