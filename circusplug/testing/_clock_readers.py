# Finds where a plugin reads the real clock, which a virtual one does not move.
#
# Owner: each thread that is started meanwhile looks at its own calls.

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

#: What to use instead.
_INSTEAD: dict[Any, str] = {
    time.time: "self.now()",
    time.time_ns: "self.now()",
    time.monotonic: "self.loop.time()",
    time.monotonic_ns: "self.loop.time()",
    time.perf_counter: "self.loop.time()",
    time.localtime: "self.now()",
    time.gmtime: "self.now()",
    time.sleep: "asyncio.sleep, or self.loop.call_later",
}
_DATES = frozenset(("now", "utcnow", "today"))


class ClockReaders:
    """Looks at what a plugin calls, in a ``with`` block in which its thread is started.

    Args:
        plugin_class: The plugin's class; what belongs to its package is looked at.
        tell: Is told once of each place, in words.
    """

    def __init__(self, plugin_class: type, tell: Callable[[str], object]) -> None:
        module = plugin_class.__module__
        bundled = module.startswith("circusplug.plugins.")
        self._package = "circusplug.plugins" if bundled else module.partition(".")[0]
        self._tell = tell
        self._known: set[tuple[str, int]] = set()

    def __enter__(self) -> ClockReaders:
        self._before = threading.getprofile()
        threading.setprofile(self._look)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        threading.setprofile(self._before)

    def _look(self, frame: FrameType, event: str, function: Any) -> None:
        if event != "c_call":
            return
        instead = _INSTEAD.get(function) or _instead_of_date(function)
        if not instead:
            return
        module = str(frame.f_globals.get("__name__"))
        if module != self._package and not module.startswith(f"{self._package}."):
            return
        place = frame.f_code.co_filename, frame.f_lineno
        if place not in self._known:
            self._known.add(place)
            name = getattr(function, "__qualname__", function)
            self._tell(
                f"{place[0]}:{place[1]} calls {name}(), which is of the real clock; use {instead}"
            )


def _instead_of_date(function: Any) -> str:
    owner = getattr(function, "__self__", None)
    is_date = isinstance(owner, type) and issubclass(owner, datetime.date)
    return "self.now()" if is_date and function.__name__ in _DATES else ""
