# What an isolated plugin's process tells of its plugin: made in the child, read in the host,
# which does not trust it.

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .._runners.runner import Runner
from .._status import Counters

#: The counters that the child keeps; the others are the host's.
_COUNTED = ("received", "handled", "errors", "calls", "reconnects", "garbage")
#: An error is cut to this many characters: its line must fit into the host's buffer.
ERROR_LIMIT = 2000


def make_report(runner: Runner) -> dict[str, Any]:
    """Say in plain data how a plugin is doing."""
    return {
        "counters": asdict(runner.counters),
        "connected": runner.connected,
        "awaits_circusd": runner.awaits_circusd,
        "busy_since": runner.busy_since,
        "last_error": shorten(runner.last_error),
    }


def shorten(text: str | None, limit: int = ERROR_LIMIT) -> str | None:
    """Cut a text, and say so."""
    if text is None or len(text) <= limit:
        return text
    return f"{text[:limit]}... ({len(text)} characters)"


class Report:
    """The last report of a plugin's process.

    Args:
        counters: Where to count; what is counted there already is of earlier lives.

    Attributes:
        connected: Whether the plugin's event socket is connected.
        awaits_circusd: Whether it is past its constructor, and circusd is not there yet.
        busy_since: When its callback in hand began, in seconds of `time.monotonic` (which is
            one clock for all processes of a machine), 0.0 if none runs.
        last_error: The last thing that went wrong in it, or None.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._before = counters.copy()
        self.connected = False
        self.awaits_circusd = False
        self.busy_since = 0.0
        self.last_error: str | None = None

    def take(self, said: dict[str, Any]) -> None:
        """Take in a message of the process, which may have a report in it."""
        counted = said.get("counters")
        if not isinstance(counted, dict):
            return
        self.connected = bool(said.get("connected"))
        self.awaits_circusd = bool(said.get("awaits_circusd"))
        self.busy_since = _number(said.get("busy_since"))
        error = said.get("last_error")
        self.last_error = str(error) if error else None
        self._counters.lag = max(self._before.lag, _number(counted.get("lag")))
        for key in _COUNTED:  # last: who waits for one of them finds the rest done
            value = counted.get(key)
            if isinstance(value, int):
                setattr(self._counters, key, getattr(self._before, key) + value)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
