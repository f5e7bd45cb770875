# Events to many plugins at once: what each delivery costs in CPU, compared with a lone plugin's
# and with Circus's processes, in a flood and while events come in one by one.

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from statistics import median

from ..fleet import Fleet
from ..report import Goal, Row, times
from ..scale import Scale, progress
from ..standin import StandIn

MANY = 50
RATE = 50
#: How often a lone plugin is flooded in a round: its events are a fiftieth.
LONE_FLOODS = 5


def measure(scale: Scale) -> list[Row]:
    """Measure the rows for the flood and for the steady events."""
    rounds = min(scale.rounds, 3)
    flood: dict[str, list[float]] = defaultdict(list)
    arrival: dict[str, list[float]] = defaultdict(list)
    steady: dict[str, list[float]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        stand_in = stack.enter_context(StandIn(3))
        kinds = (("lone", "ours", 1), ("ours", "ours", MANY), ("circus", "circus", MANY))
        fleets = {}
        for publisher, (name, kind, count) in enumerate(kinds):
            fleet = Fleet(kind, count, stand_in, publisher, decode="yes", events=scale.many_events)
            fleets[name] = _Crowd(
                stack.enter_context(fleet), stand_in, publisher, scale.many_events
            )
        for number in range(rounds + 1):  # the first one warms up
            progress("many plugins", number, rounds)
            for name, crowd in fleets.items():
                floods = [crowd.flood() for _ in range(LONE_FLOODS if name == "lone" else 1)]
                if number:
                    flood[name].append(median(cost for cost, _ in floods))
                    arrival[name].append(median(seconds for _, seconds in floods))
        for number in range(rounds):
            progress("many plugins, steady", number + 1, rounds)
            for name, crowd in fleets.items():
                if name != "lone":
                    steady[name].append(crowd.steady(int(scale.many_seconds * RATE)))
    title = f"{MANY} plugins x {scale.many_events:,} decoded events"
    return [
        Row.of(
            f"{title}: CPU per delivery",
            flood,
            Goal(times(flood["ours"], flood["lone"]), 1.2, "x one plugin's"),
            unit="µs",
        ),
        Row.of(
            f"{title}: all handled after",
            arrival,
            Goal(times(arrival["circus"], arrival["ours"]), 3, "x sooner than Circus", True),
            unit="s",
            headline=True,
        ),
        Row.of(
            f"{MANY} plugins at {RATE} events/s: CPU per delivery",
            steady,
            Goal(times(steady["ours"], steady["circus"]), 0.5, "x Circus"),
            unit="µs",
        ),
    ]


class _Crowd:
    """A fleet that is given events and weighed."""

    def __init__(self, fleet: Fleet, stand_in: StandIn, publisher: int, events: int) -> None:
        self._fleet = fleet
        self._stand_in = stand_in
        self._publisher = publisher
        self._events = events
        self._floods = 0

    def flood(self) -> tuple[float, float]:
        """Microseconds of CPU for each delivery, and seconds until all had handled all."""
        before, began = self._fleet.cpu(), time.monotonic()
        self._stand_in.flood(self._publisher, self._events)
        self._floods += 1
        last = self._fleet.wait_noted("done", self._floods * self._fleet.count)
        cost = (self._fleet.cpu() - before) / (self._events * self._fleet.count)
        return cost * 1e6, last - began

    def steady(self, events: int) -> float:
        """Microseconds of CPU for each delivery of events that come one by one."""
        before = self._fleet.cpu()
        self._stand_in.pace(self._publisher, events, RATE)
        return (self._fleet.cpu() - before) / (events * self._fleet.count) * 1e6
