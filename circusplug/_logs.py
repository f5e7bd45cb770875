# Which plugin speaks, what a plugin's traceback shows, and where the host's log goes.
#
# Owner: each thread knows its own speaker. `configure` is for a process that circusplug owns
# (its commands, an isolated plugin's child); a host inside somebody's program leaves logging
# as that program has set it.

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import sys
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import zmq

from ._errors import ConfigError

LEVELS = ("debug", "info", "warning", "error", "critical")

FORMAT = "%(asctime)s %(plugin)s[%(process)d] [%(levelname)s] %(message)s"
DATE_FORMAT = "%Y-%m-%d %H:%M:%S"

#: What the host itself logs to.
logger = logging.getLogger("circusplug")


class _Speaker(threading.local):
    name: str | None = None


_speaker = _Speaker()


@contextlib.contextmanager
def speaking(name: str | None) -> Iterator[None]:
    """Let what this thread logs be known as `name`'s."""
    before, _speaker.name = _speaker.name, name
    try:
        yield
    finally:
        _speaker.name = before


_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_STANDARD_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_ZMQ = os.path.dirname(os.path.abspath(zmq.__file__)) + os.sep
#: Built-in plugins are plugins; what pip installed there is no part of the standard library.
_NOT_AMONG_THESE = (_OURS + "plugins" + os.sep, _STANDARD_LIBRARY + "site-packages" + os.sep)


class Formatter(logging.Formatter):
    """Starts a plugin's traceback where the plugin starts, below the host's own calls.

    One that no plugin is in, such as that of a bug here, stays whole.
    """

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's own name
        """Format an exception, given as by `sys.exc_info`."""
        return super().formatException((ei[0], ei[1], _from_plugin_on(ei[1], ei[2])))


def _from_plugin_on(error: object, trace: TracebackType | None) -> TracebackType | None:
    here = trace
    while here is not None:
        file = here.tb_frame.f_code.co_filename
        between = file.startswith((_OURS, _STANDARD_LIBRARY, _ZMQ, "<frozen "))
        if not between or file.startswith(_NOT_AMONG_THESE):
            return here
        here = here.tb_next
    # A file that does not even compile is in no frame; the error itself tells file and line.
    return None if isinstance(error, SyntaxError) else trace


class LogFile(logging.handlers.WatchedFileHandler):
    """A log file that is opened anew when it was moved away, and that may then be missing.

    The standard handler raises to whoever logs if it cannot be opened, which is any thread of
    the host's.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record: to standard error if the file cannot be opened just now."""
        try:
            super().emit(record)
        except OSError as error:
            with contextlib.suppress(OSError, ValueError):
                why = f"cannot log to {self.baseFilename}: {error.strerror}"
                sys.stderr.write(f"{self.format(record)} ({why})\n")


class PluginFilter(logging.Filter):
    """Adds ``plugin`` to each record: the plugin whose thread, or whose logger, it is of."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "plugin"):
            prefix = "circusplug.plugin."
            if record.name.startswith(prefix):
                record.plugin = record.name[len(prefix) :]
            else:
                record.plugin = _speaker.name or record.name
        return True


def parse_level(name: str) -> int:
    """A level's number, by its name in any case.

    Raises:
        ConfigError: There is no such level.
    """
    if name.strip().lower() not in LEVELS:
        raise ConfigError(f"'loglevel': {name!r} is none of {', '.join(LEVELS)}")
    return int(getattr(logging, name.strip().upper()))


def configure(level: str = "info", output: str = "-") -> None:
    """Send this process's log to a file, to standard error (``-``) or to syslog.

    Args:
        level: The lowest level to log.
        output: A file's path, ``-``, or ``syslog://[HOST[:PORT]][/PATH][?FACILITY]``.

    Raises:
        ConfigError: No such level, or the output cannot be opened.
    """
    number = parse_level(level)
    handler: logging.Handler
    try:
        if output in ("", "-", "stdout"):
            handler = logging.StreamHandler(sys.stdout if output == "stdout" else sys.stderr)
        elif output.startswith("syslog://"):
            handler = _syslog(output)
        else:
            handler = LogFile(os.path.expanduser(output))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"'logoutput': cannot log to {output!r}: {reason}") from None
    handler.setFormatter(Formatter(FORMAT, DATE_FORMAT))
    handler.addFilter(PluginFilter())
    logging.basicConfig(level=number, handlers=[handler], force=True)
    logging.captureWarnings(True)


def _syslog(url: str) -> logging.Handler:
    parts = urlsplit(url)
    facility = parts.query or "user"
    known = logging.handlers.SysLogHandler.facility_names
    if facility not in known:
        raise ValueError(f"no syslog facility {facility!r}")
    address: str | tuple[str, int]
    if parts.netloc:
        address = (parts.hostname or "localhost", parts.port or 514)
    else:
        address = parts.path or "/dev/log"
    return logging.handlers.SysLogHandler(address, known[facility])
