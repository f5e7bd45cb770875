# Which plugin is to be looked at when: one moment for each, and the next of all at hand, be they
# three or a thousand.
#
# Owner: the supervising thread.

from __future__ import annotations

import heapq
import itertools
from typing import Generic, TypeVar

T = TypeVar("T")


class Timers(Generic[T]):
    """At most one timer for each of many items."""

    def __init__(self) -> None:
        self._moments: dict[T, float] = {}
        self._heap: list[tuple[float, int, T]] = []  # with entries of moments that have changed
        self._count = itertools.count()

    def set(self, item: T, moment: float | None) -> None:
        """Set, move or take away the timer of an item."""
        if moment is None:
            self._moments.pop(item, None)
        elif self._moments.get(item) != moment:
            self._moments[item] = moment
            heapq.heappush(self._heap, (moment, next(self._count), item))

    def next(self) -> float | None:
        """The earliest moment; None if there is no timer."""
        while self._heap and self._moments.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take_due(self, now: float) -> list[T]:
        """Take away the timers whose moment has come, and return whose they were."""
        due = []
        while (moment := self.next()) is not None and moment <= now:
            item = heapq.heappop(self._heap)[2]
            del self._moments[item]
            due.append(item)
        return due
