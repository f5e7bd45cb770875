# How late the events of nine plugins are when a tenth, on a thread beside them, computes or
# blocks; and, to compare, when it does nothing, or computes in a process of its own.
# `circusplug run`, which hosts them, sets the interpreter's switch interval.

from __future__ import annotations

import time
from statistics import median

from ..fleet import Fleet
from ..report import Goal, Row, spread
from ..scale import Scale, progress
from ..standin import StandIn

NEIGHBOURS = 9
RATE = 100
#: What the tenth does, whether it computes, its other options, and how late an event may be in
#: milliseconds at p99.
CASES = {
    "an idle plugin": (False, {}, None),
    "a computing plugin": (True, {}, 8),
    "a plugin that blocks 50 ms at each event": (False, {"block": 0.05}, 2),
    "a computing plugin that is isolated": (True, {"isolate": "true"}, None),
}


def measure(scale: Scale) -> list[Row]:
    """Measure a row for each case."""
    ages: dict[str, list[list[float]]] = {case: [] for case in CASES}
    with StandIn(1) as stand_in:
        for number in range(scale.rounds):
            progress("neighbours", number + 1, scale.rounds)
            for case, (computes, options, _) in CASES.items():
                beside = {"use": "Busy", "compute": scale.busy_seconds * computes, **options}
                ages[case].append(_round(stand_in, int(scale.busy_seconds * RATE), beside))
    return [_row(case, ages[case]) for case in CASES]


def _row(case: str, rounds: list[list[float]]) -> Row:
    p99, p50, slowest = (
        [each[min(int(len(each) * part), len(each) - 1)] for each in rounds]
        for part in (0.99, 0.5, 1)
    )
    most = CASES[case][2]
    return Row.of(
        f"delay at p99 of {NEIGHBOURS} plugins' events beside {case}",
        {"ours": p99},
        *([Goal(median(p99), most, "ms")] if most else []),
        unit="ms",
        p50=spread(p50),
        slowest=spread(slowest),
    )


def _round(stand_in: StandIn, events: int, beside: dict[str, object]) -> list[float]:
    """The ages of all neighbours' events in milliseconds, sorted."""
    with Fleet("ours", NEIGHBOURS, stand_in, use="Sibling", beside=beside) as fleet:
        stand_in.pace(0, events, RATE)
        time.sleep(0.2)  # what is late is on its way
        _, ages = fleet.stop()
    return sorted(age / 1e6 for each in ages for age in each)
