# What fifty plugins use while nothing happens, all contenders at the same time. "bare" is as
# many connections with libzmq's heartbeats, which ours do not need on the same machine.

from __future__ import annotations

from .fleets import FIFTY, seen
from .report import Goal, Row
from .scale import Scale

UNIT = "x libzmq's heartbeats"


def measure(scale: Scale) -> list[Row]:
    """Measure the rows for CPU and for wake-ups."""
    idle = seen(scale).idle
    title = f"{FIFTY} idle plugins for {scale.idle_seconds:g} s"
    kinds = ("ours", "bare", "circus")
    cpu = {kind: idle[kind].cpu_seconds * 1000 for kind in kinds}
    wakes = {kind: float(idle[kind].wake_ups) for kind in kinds}
    return [
        Row(
            f"{title}: {what}",
            *(values[kind] for kind in kinds),
            goals=(Goal(values["ours"] / max(values["bare"], 1.0), 1, UNIT),),
            unit=unit,
        )
        for what, values, unit in (("CPU", cpu, "ms"), ("wake-ups", wakes, ""))
    ]
