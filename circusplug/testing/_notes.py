# Notes what a plugin does, for people: its events, its commands, its log, what it raises.
#
# Owner: anybody notes, under a lock; the thread that made it hands on.

from __future__ import annotations

import contextlib
import logging
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from circusplug import _logs
from circusplug._errors import describe

from ._queries import QUERIES
from ._replayed import KINDS, Deed, command_deed
from ._script import Command

#: What is of no plugin begins so.
_OURS = ("circusplug._", "asyncio")


class Notes(logging.Handler):
    """Notes what a plugin does.

    Args:
        elapsed: Tells the moment, in seconds since the start.
        on_deed: Takes each deed, in order.
    """

    def __init__(self, elapsed: Callable[[], float], on_deed: Callable[[Deed], object]) -> None:
        super().__init__()
        self._elapsed = elapsed
        self._on_deed = on_deed
        self._noted: list[Deed] = []
        self._guard = threading.Lock()

    @contextlib.contextmanager
    def listening(self, name: str) -> Iterator[None]:
        """Hear what the plugin of that name logs; nobody else does.

        What the host logs of it is noted as well, in other words, so it need not be printed.
        """
        quiet = logging.NullHandler()
        _logs.logger.addHandler(quiet)
        logger = logging.getLogger(f"circusplug.plugin.{name}")
        before = logger.propagate, logger.level
        logger.propagate = False
        logger.setLevel(logging.INFO)
        logger.addHandler(self)
        try:
            yield
        finally:
            _logs.logger.removeHandler(quiet)
            logger.removeHandler(self)
            logger.propagate = before[0]
            logger.setLevel(before[1])

    def emit(self, record: logging.LogRecord) -> None:
        """Note a line of the log; what was raised is noted by `take_error`."""
        if record.exc_info is None:
            kind = "alert" if hasattr(record, "alert") else "log"
            self.add(kind, record.getMessage(), level=record.levelname.lower())

    def take_command(self, command: Command) -> None:
        """Note a command, unless it only asks."""
        if command.command.lower() not in QUERIES:
            at = self._elapsed()
            self._append(command_deed(at, command.command, command.properties, command.cast))

    def take_error(self, error: BaseException) -> None:
        """Note an exception, and where in the plugin it was raised."""
        place, since = "", None
        trace = error.__traceback__
        while trace is not None:
            if not str(trace.tb_frame.f_globals.get("__name__")).startswith(_OURS):
                code = trace.tb_frame.f_code
                place = f"{code.co_filename}:{trace.tb_lineno}, in {code.co_name}"
                since = since or trace
            trace = trace.tb_next
        lines = traceback.format_exception(type(error), error, since or error.__traceback__)
        self.add("error", describe(error), where=place, traceback="".join(lines))

    def take_event(self, topic: bytes, payload: bytes) -> None:
        """Note an event."""
        self.add("event", f"{topic.decode(errors='replace')} {payload.decode(errors='replace')}")

    def take_reading(self, text: str) -> None:
        """Note that the real clock was read."""
        self.add("clock", text)

    def add(self, kind: Any, text: str, **facts: Any) -> None:
        """Note something."""
        self._append(Deed(self._elapsed(), kind, text, facts))

    def _append(self, deed: Deed) -> None:
        with self._guard:
            self._noted.append(deed)

    def flush(self) -> None:
        """Hand on what was noted, in an order that does not hang on which thread was first."""
        with self._guard:
            noted, self._noted = self._noted, []
        for deed in sorted(noted, key=lambda deed: (deed.at, KINDS.index(deed.kind))):
            self._on_deed(deed)
