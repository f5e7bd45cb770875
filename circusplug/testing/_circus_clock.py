# Circus's own plugins read the real clock, and wait on threads of their own. In virtual time their
# modules get a clock and a timer that follow it; other people's plugins stay as they are.
#
# Owner: a timer belongs to the plugin's thread; what stops the plugin may cancel it, when that
# thread is parked.

from __future__ import annotations

import asyncio
import contextlib
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ._virtual_clock import VirtualClock

_THEIRS = "circus.plugins."


@contextlib.contextmanager
def circus_lives_by(clock: VirtualClock, plugin_class: type) -> Iterator[None]:
    """Meanwhile, the module of a class of Circus's lives by a virtual clock."""
    module: Any = sys.modules.get(plugin_class.__module__)
    theirs = plugin_class.__module__.startswith(_THEIRS)
    replaced = {
        name: instead
        for name, instead in (("time", _time_of(clock)), ("Timer", _Timer))
        if theirs and hasattr(module, name)
    }
    before = {name: getattr(module, name) for name in replaced}
    vars(module).update(replaced)
    try:
        yield
    finally:
        vars(module).update(before)


def _time_of(clock: VirtualClock) -> Any:
    return types.SimpleNamespace(time=clock.wall_time, monotonic=lambda: clock.now)


class _Timer:
    """Takes the place of `threading.Timer`; calls back on the plugin's own thread."""

    def __init__(
        self,
        interval: float,
        function: Callable[..., object],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._interval = interval
        self._call = lambda: function(*args, **(kwargs or {}))
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._handle = asyncio.get_running_loop().call_later(self._interval, self._call)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
