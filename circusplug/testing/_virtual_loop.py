# A plugin's loop by a virtual clock. It takes the things that are to be done in an order that does
# not hang on how fast they come: callbacks first, then what comes from outside, the replies of
# circusd, one event, and when none of these is on its way, the time.
#
# Owner: the plugin's thread, as of any loop.

from __future__ import annotations

import asyncio
import contextlib
import math
import selectors
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from circusplug._loop.plugin_loop import PluginLoop
from circusplug._loop.selector import READ, PollerSelector

from ._virtual_clock import VirtualClock

#: How long one wait for something real is, in seconds: not all of it can be polled for.
_LOOK = 0.002

Ready = list[tuple[selectors.SelectorKey, int]]


class Rest(Protocol):
    """What a loop has to know before time may pass.

    Attributes:
        under_way: What real thing is waited for just now; empty if the plugin is busy, or rests.
    """

    under_way: str

    def is_circusd(self, socket: object) -> bool:
        """Whether a socket is one of those to circusd."""

    def take_replies(self, asked: int) -> None:
        """Take all replies that circusd has sent, or is about to."""

    def next_event(self) -> object | None:
        """The socket of events, if one is there that may be handled now."""

    def next_moment(self) -> float:
        """When an event is to be handled that is there, but is not to be read yet."""

    def find_under_way(self) -> str:
        """What real thing is to come, so that the clock has to stand; empty if there is none."""


class VirtualLoop(PluginLoop):
    """A loop whose time is a `VirtualClock`'s, until it is released."""

    #: Set when there is a clock to live by.
    clock: VirtualClock | None = None
    rest: Rest | None = None
    _left: Callable[[], object] | None = None
    #: Whether anything was awaited that is no circusd's.
    went_outside = False

    def __init__(self) -> None:
        self._base, self._since, self._epoch = 0.0, 0.0, 0.0
        super().__init__(_VirtualSelector(self))

    def live_by(self, clock: VirtualClock, rest: Rest, left: Callable[[], object]) -> None:
        """Begin; *left* is called when that is over."""
        self.clock, self.rest, self._left = clock, rest, left
        self._epoch = clock.wall_time() - clock.now

    def release(self) -> None:
        """Go on in real time; from any thread."""
        clock, self._base, self._since = self.clock, self.time(), time.monotonic()
        self.clock = None
        if clock is not None and self._left is not None:
            self._left()

    def wake(self) -> None:
        """Have the loop look at its clock again; from any thread."""
        self.post(_nothing)

    def time(self) -> float:
        """What the clock says, in seconds since it was made."""
        clock = self.clock
        return clock.now if clock is not None else self._base + time.monotonic() - self._since

    def wall_time(self) -> float:
        """The time of day by that clock."""
        return self._epoch + self.time()

    def call_later_for_real(self, delay: float, callback: Callable[[], object]) -> threading.Timer:
        """See `PluginLoop`."""
        timer = threading.Timer(delay, self.post, (callback,))
        timer.daemon = True
        timer.start()
        return timer

    @contextlib.contextmanager
    def outside(self) -> Iterator[None]:
        """See `PluginLoop`."""
        self.went_outside = True
        with super().outside():
            yield

    def run_in_executor(  # type: ignore[override]  # of any types
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """See `asyncio`; the clock stands until it is done."""
        self.went_outside = True
        future = super().run_in_executor(executor, func, *args)
        self.outside_now += 1
        future.add_done_callback(self._back_inside)
        return future

    def _back_inside(self, _: asyncio.Future[Any]) -> None:
        self.outside_now -= 1

    def finish(self, in_hand: asyncio.Task[Any] | None, grace: float) -> None:
        """See `PluginLoop`: ends in real time."""
        self.release()
        super().finish(in_hand, grace)

    def close(self, all_fds: bool = False) -> None:
        """See `PluginLoop`."""
        super().close(all_fds)
        if self.is_closed():
            self.release()

    def has_callbacks(self) -> bool:
        """Whether a callback's turn has come, or the first timer was cancelled."""
        ready: Any = self._ready  # type: ignore[attr-defined]
        timers: Any = self._scheduled  # type: ignore[attr-defined]
        return bool(ready or (timers and timers[0].cancelled()))

    @property
    def next_timer(self) -> float:
        """When the next timer is due."""
        timers: Any = self._scheduled  # type: ignore[attr-defined]
        return timers[0].when() if timers else math.inf

    def hear_wake_ups(self) -> Any:
        """The socket that can be read from after a `wake`."""
        return self._ssock  # type: ignore[attr-defined]


class _VirtualSelector(PollerSelector):
    """Waits in the order that the head of this file tells."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Ready:
        """See `PollerSelector`."""
        loop, clock, rest = self._loop, self._loop.clock, self._loop.rest
        if clock is None or rest is None:
            return super().select(timeout)
        if timeout is not None and timeout <= 0:
            return self._others(rest, super().select(0))
        asked = clock.asked
        if others := self._others(rest, super().select(0)):
            return others
        rest.take_replies(asked)
        if loop.has_callbacks():
            return []
        socket = rest.next_event()
        if socket is not None:
            return [(self.get_map()[socket], READ)]
        under_way = rest.find_under_way()
        if loop.has_callbacks():
            return []
        if under_way:
            rest.under_way = under_way
            super().select(_LOOK)
            rest.under_way = ""
        elif not clock.reach(asked, min(loop.next_timer, rest.next_moment())):
            super().select(None)
        return []

    def _others(self, rest: Rest, ready: Ready) -> Ready:
        """What is ready, without what is to be read from circusd."""
        found = []
        for key, mask in ready:
            if rest.is_circusd(key.fileobj):
                mask &= ~READ
            if mask:
                found.append((key, mask))
        return found


def _nothing() -> None:
    """Only to wake the loop."""
