# Hosts with plugins that have little to do: their memory, how soon they are ready, what they use
# while idle, and how they stop. Each kind and size of fleet is started in turn, in each round; at
# the end fifty plugins of each kind are idle side by side.
#
# Memory is the proportional set size of all processes. For Circus, memory and start are without
# what circusd takes by itself; its plugins count as ready when they have made their sockets, ours
# when they are connected and subscribed.

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from dataclasses import dataclass
from statistics import median
from typing import Any

from ..fleet import Fleet
from ..processes import all_cpu_seconds, wake_ups
from ..report import Goal, Row, spread
from ..scale import Scale, progress
from ..standin import StandIn

#: How many plugins are compared when there is one figure to be reached.
FIFTY = 50
ISOLATED = (10, FIFTY)
#: While fifty plugins are stopped, each gets so many events a second.
TRAFFIC = 200

#: What circusd takes by itself, and is taken off.
ALONE = {"ready", "ready_cpu", "memory"}
MEGABYTE = 1e6


@dataclass(frozen=True)
class Sample:
    """What was seen of one fleet: seconds, CPU seconds, MB, seconds, calls."""

    ready: float
    ready_cpu: float
    memory: float
    stop: float
    stops: int


class Seen:
    """All samples, by kind and size of the fleet."""

    def __init__(self) -> None:
        self._samples: dict[tuple[str, int], list[Sample]] = defaultdict(list)

    def add(self, fleet: Fleet, stand_in: StandIn) -> None:
        """Stop a fleet, a comparable one under traffic, and sum it up."""
        size, busy = fleet.pss(), fleet.count == FIFTY and fleet.kind in ("ours", "circus")
        if busy:
            stand_in.begin_pace(0, TRAFFIC, TRAFFIC)
            time.sleep(0.3)
        seconds, stops = fleet.stop()
        if busy:
            stand_in.end_pace()
        self._samples[fleet.kind, fleet.count].append(
            Sample(fleet.ready_seconds, fleet.ready_cpu, size / MEGABYTE, seconds, len(stops))
        )

    def values(self, kind: str, count: int, what: str) -> list[float]:
        """One attribute of all samples of a kind of fleet."""
        return [getattr(sample, what) for sample in self._samples[kind, count]]

    def middle(self, kind: str, count: int, what: str) -> float | None:
        """Its median, without what a circusd alone takes; None if there are no samples."""
        values = self.values(kind, count, what)
        if not values:
            return None
        if kind == "circus" and what in ALONE:
            return median(values) - median(self.values(kind, 0, what))
        return median(values)

    def row(self, title: str, ours: str, count: int, what: str, unit: str, **more: Any) -> Row:
        """A row that compares one attribute of a kind of ours with the others."""
        bare = "bare" if ours == "ours" and what in ALONE else ""
        values = self.values(ours, count, what)
        return Row(
            title,
            median(values),
            self.middle(bare, count, what),
            self.middle("circus", count, what),
            rounds=len(values),
            unit=unit,
            more={"spread": spread(values)},
            **more,
        )

    def less(self, ours: str, what: str, limit: float, words: str) -> tuple[Goal, ...]:
        """How many times less fifty of ours take than Circus's."""
        those, these = self.middle("circus", FIFTY, what), self.middle(ours, FIFTY, what)
        assert those
        assert these
        return (Goal(those / these, limit, f"{words} than Circus", at_least=True),)

    def per_added(self, kind: str, few: int, many: int) -> float:
        """Megabytes for each plugin between two sizes of a fleet."""
        less, more = self.middle(kind, few, "memory"), self.middle(kind, many, "memory")
        assert less is not None
        assert more is not None
        return (more - less) / (many - few)


def measure(scale: Scale) -> list[Row]:
    """Measure all rows."""
    seen = Seen()
    with StandIn(1) as stand_in:
        for number in range(scale.rounds):
            for kind, count in _sizes(scale):
                progress(f"fleets: {kind} {count}", number + 1, scale.rounds)
                with Fleet(kind, count, stand_in) as fleet:
                    seen.add(fleet, stand_in)
        idle = _idle(scale, stand_in)
    return [
        *_memory(scale, seen),
        *_start(scale, seen),
        *_isolated(scale, seen),
        *idle,
        *_stop(seen),
    ]


def _sizes(scale: Scale) -> list[tuple[str, int]]:
    sizes = [("circus", 0)]
    for count in scale.fleets:
        sizes.append(("ours", count))
        if count >= FIFTY:
            sizes.append(("bare", count))
        if count in ISOLATED:
            sizes.append(("isolated", count))
        if count in scale.circus_fleets:
            sizes.append(("circus", count))
    return sizes


def _memory(scale: Scale, seen: Seen) -> list[Row]:
    rows = []
    for count in scale.fleets:
        goals = seen.less("ours", "memory", 20, "x less") if count == FIFTY else ()
        title = f"memory of {_plugins(count)}"
        rows.append(
            seen.row(title, "ours", count, "memory", "MB", goals=goals, headline=count == FIFTY)
        )
    most = max(scale.fleets)
    ours = max(seen.per_added("ours", 10, FIFTY), seen.per_added("ours", FIFTY, most))
    rows.append(
        Row(
            "memory of each added plugin",
            ours,
            seen.per_added("bare", FIFTY, most),
            seen.per_added("circus", 10, FIFTY),
            (Goal(ours, 0.2, "MB"),),
            scale.rounds,
            "MB",
        )
    )
    return rows


def _start(scale: Scale, seen: Seen) -> list[Row]:
    rows = []
    for count in scale.fleets:
        title = f"{_plugins(count)} ready"
        goals = seen.less("ours", "ready", 15, "x sooner") if count == FIFTY else ()
        rows.append(
            seen.row(title, "ours", count, "ready", "s", goals=goals, headline=count == FIFTY)
        )
        rows.append(seen.row(f"CPU until {title}", "ours", count, "ready_cpu", "s"))
    return rows


def _isolated(scale: Scale, seen: Seen) -> list[Row]:
    ours, circus = (seen.per_added(kind, *ISOLATED) for kind in ("isolated", "circus"))
    rows = [
        Row(
            "isolated: memory of each added plugin",
            ours,
            circus=circus,
            goals=(Goal(circus / ours, 2.5, "x less than Circus", at_least=True),),
            rounds=scale.rounds,
            unit="MB",
        )
    ]
    for count in ISOLATED:
        goals = seen.less("isolated", "ready", 5, "x sooner") if count == FIFTY else ()
        title = f"isolated: {_plugins(count)} ready"
        rows.append(seen.row(title, "isolated", count, "ready", "s", goals=goals))
    return rows


def _idle(scale: Scale, stand_in: StandIn) -> list[Row]:
    """Fifty of each kind side by side; "bare" has libzmq's heartbeats on."""
    progress(f"idle for {scale.idle_seconds:g} s")
    kinds = ("ours", "bare", "circus")
    with contextlib.ExitStack() as stack:
        fleets = [stack.enter_context(Fleet(kind, FIFTY, stand_in)) for kind in kinds]
        cpu = [-fleet.cpu() for fleet in fleets]
        wakes = [-wake_ups(fleet.members) for fleet in fleets]
        time.sleep(scale.idle_seconds)
        cpu = [
            1000 * (before + all_cpu_seconds(fleet.members))
            for before, fleet in zip(cpu, fleets, strict=True)
        ]
        wakes = [
            before + wake_ups(fleet.members) for before, fleet in zip(wakes, fleets, strict=True)
        ]
    return [
        Row(
            f"{FIFTY} idle plugins for {scale.idle_seconds:g} s: {what}",
            *values,
            goals=(Goal(values[0] / max(values[1], 1.0), 1, "x libzmq's heartbeats"),),
            unit=unit,
        )
        for what, values, unit in (("CPU", cpu, "ms"), ("wake-ups", wakes, ""))
    ]


def _stop(seen: Seen) -> list[Row]:
    """From SIGTERM to the end of the process, and how many handle_stop ran."""
    title = f"stop of {FIFTY} plugins"
    slowest = Goal(max(seen.values("ours", FIFTY, "stop")), 0.5, "s at most")
    stops = min(seen.values("ours", FIFTY, "stops"))
    return [
        seen.row(f"{title} at {TRAFFIC} events/s", "ours", FIFTY, "stop", "s", goals=(slowest,)),
        seen.row(
            f"{title}: handle_stop run",
            "ours",
            FIFTY,
            "stops",
            "",
            goals=(Goal(stops, FIFTY, f"of {FIFTY}", at_least=True),),
            headline=True,
        ),
    ]


def _plugins(count: int) -> str:
    return f"{count} plugin{'s' * (count > 1)}"
