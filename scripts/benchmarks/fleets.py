# Starts the fleets that several rows are about, each kind and size in turn and as often as
# the rows need, and keeps what was seen. In the last round fifty plugins of each kind stay for
# a while, side by side, with nothing to do.

from __future__ import annotations

import contextlib
import functools
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from .fleet import Fleet
from .processes import all_cpu_seconds, wake_ups
from .scale import Scale, progress
from .standin import StandIn

#: How many plugins are compared when there is one figure to be reached.
FIFTY = 50
ISOLATED = (10, FIFTY)
#: While fifty plugins are stopped, each gets so many events a second.
TRAFFIC = 200

MEGABYTE = 1e6


@dataclass(frozen=True)
class Sample:
    """What was seen of one fleet: seconds, CPU seconds, bytes, seconds, calls."""

    ready_seconds: float
    ready_cpu: float
    pss: float
    stop_seconds: float
    stops: int


@dataclass(frozen=True)
class Idle:
    """What a fleet of fifty used while it was idle."""

    cpu_seconds: float
    wake_ups: int


class Seen:
    """All samples, and the idle time's figures by kind."""

    def __init__(self) -> None:
        self.samples: dict[tuple[str, int], list[Sample]] = defaultdict(list)
        self.idle: dict[str, Idle] = {}

    def values(self, kind: str, count: int, what: str) -> list[float]:
        """One attribute of all samples of a kind of fleet."""
        return [getattr(sample, what) for sample in self.samples[kind, count]]

    def middle(self, kind: str, count: int, what: str) -> float | None:
        """Its median; None if there are none."""
        values = self.values(kind, count, what)
        return median(values) if values else None

    def of_circus(self, count: int, what: str) -> float | None:
        """The same for Circus's plugins, without what circusd alone takes."""
        value, alone = self.middle("circus", count, what), self.middle("circus", 0, what)
        return None if value is None or alone is None else value - alone

    def per_added(self, kind: str, few: int, many: int) -> float:
        """Bytes for each plugin between two sizes of a fleet."""
        less, more = self.middle(kind, few, "pss"), self.middle(kind, many, "pss")
        if less is None or more is None:
            raise LookupError(f"{kind}: no fleets of {few} and {many}")
        return (more - less) / (many - few)


@functools.cache
def seen(scale: Scale) -> Seen:
    """Start all fleets, as often as the scale says."""
    found = Seen()
    with StandIn(1) as stand_in:
        for number in range(scale.rounds):
            last = number == scale.rounds - 1
            for kind, count in _sizes(scale):
                progress(f"fleets: {kind} {count}", number + 1, scale.rounds)
                if count != FIFTY or kind == "isolated" or not last:
                    with Fleet(kind, count, stand_in) as fleet:
                        found.samples[kind, count].append(_look(fleet, fleet.pss(), stand_in))
        _together(scale, stand_in, found)
    return found


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


def _together(scale: Scale, stand_in: StandIn, found: Seen) -> None:
    """Start fifty of each kind, watch them idle, and stop them: the last round's samples."""
    with contextlib.ExitStack() as stack:
        fleets, memory = [], []
        for kind in ("ours", "bare", "circus"):
            fleets.append(stack.enter_context(Fleet(kind, FIFTY, stand_in)))
            memory.append(fleets[-1].pss())
        _watch(fleets, scale.idle_seconds, found)
        for fleet, size in zip(fleets, memory, strict=True):
            found.samples[fleet.kind, FIFTY].append(_look(fleet, size, stand_in))


def _watch(fleets: Sequence[Fleet], seconds: float, found: Seen) -> None:
    progress(f"idle for {seconds:g} s")
    # Circus's host is circusd, which has other things to do; its plugins are the others.
    pids = [fleet.pids[fleet.kind == "circus" :] for fleet in fleets]
    before = [(all_cpu_seconds(each), wake_ups(each)) for each in pids]
    time.sleep(seconds)
    for fleet, each, (cpu, wakes) in zip(fleets, pids, before, strict=True):
        found.idle[fleet.kind] = Idle(all_cpu_seconds(each) - cpu, wake_ups(each) - wakes)


def _look(fleet: Fleet, size: float, stand_in: StandIn) -> Sample:
    """Stop a fleet, fifty of ours under traffic, and sum it up."""
    busy = fleet.kind == "ours" and fleet.count == FIFTY
    if busy:
        stand_in.begin_pace(0, TRAFFIC, TRAFFIC)
        time.sleep(0.3)
    seconds, stops = fleet.stop()
    if busy:
        stand_in.end_pace()
    return Sample(fleet.ready_seconds, fleet.ready_cpu, size, seconds, stops)
