# Watching for callbacks that run too long, without waking an idle host.
#
# A plugin's loop notes when its poll returned (`busy_since`) and calls `activity`; the first
# such call after a quiet time wakes the watcher, which then looks at intervals until it finds
# every loop waiting again. Owner: the supervising thread; only `activity` is called by others.

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from .runner import Runner

#: A look comes after this part of the shortest stall timeout, so a report is at most so late.
_FRACTION = 0.25
_LONGEST_INTERVAL = 2.5


class StallWatch:
    """Finds runners whose callback in hand runs longer than their ``stall_timeout``.

    Args:
        wake: Called once, from any thread, when there is something to watch again.
        clock: Seconds, the same as the runners' `busy_since`.
    """

    def __init__(
        self, wake: Callable[[], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._wake = wake
        self._clock = clock
        self._armed = False
        self._next_look: float | None = None
        self._reported: dict[Runner, float] = {}
        self._last_received = -1

    def activity(self) -> None:
        """A loop has something to do; called by its thread, so it is cheap."""
        if not self._armed:
            self._armed = True
            self._wake()

    def begin(self, runners: Iterable[Runner]) -> None:
        """Look at intervals from now on; what to do after `wake`."""
        if self._next_look is None:
            self._next_look = self._clock() + self._interval(runners)

    @property
    def next_look(self) -> float | None:
        """When to call `look`, by the clock; None while there is nothing to watch."""
        return self._next_look

    def look(self, runners: Iterable[Runner]) -> Iterator[tuple[Runner, float]]:
        """The runners that stall, each once per stall, with the seconds it has been so far."""
        now = self._clock()
        if self._next_look is None or now < self._next_look:
            return
        everyone = list(runners)
        # Disarm first, then look: a loop that wakes in between arms it again.
        self._armed = False
        busy = False
        for runner in everyone:
            since = runner.busy_since
            if since <= 0.0:
                continue
            busy = True
            if self.is_stalled(runner, now) and self._reported.get(runner) != since:
                self._reported[runner] = since
                yield runner, now - since
        self._measure_lag(everyone, busy)
        self._reported = {item: at for item, at in self._reported.items() if item in everyone}
        self._armed = self._armed or busy
        self._next_look = now + self._interval(everyone) if self._armed else None

    def is_stalled(self, runner: Runner, now: float | None = None) -> bool:
        """Whether its callback in hand runs longer than it may."""
        since, allowed = runner.busy_since, runner.spec.host.stall_timeout
        moment = self._clock() if now is None else now
        return since > 0.0 and allowed > 0.0 and runner.running and moment - since > allowed

    def _measure_lag(self, runners: list[Runner], busy: bool) -> None:
        received = sum(runner.counters.received for runner in runners)
        # The measurement wakes a loop itself; without news it would keep the watch going for ever.
        if busy or received != self._last_received:
            for runner in runners:
                if runner.running:
                    runner.measure_lag()
        self._last_received = received

    @staticmethod
    def _interval(runners: Iterable[Runner]) -> float:
        allowed = [item.spec.host.stall_timeout for item in runners if item.spec.host.stall_timeout]
        return min([_LONGEST_INTERVAL, *(_FRACTION * seconds for seconds in allowed)])
