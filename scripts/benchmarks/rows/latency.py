# From an event's publication to its handler, while 1,000 events a second come in one by one.

from __future__ import annotations

from ..field import contenders
from ..processes import cpu_seconds
from ..report import Goal, Row, spread, times
from ..scale import Scale, progress

KINDS = ("bare", "ours", "circus")
RATE = 1000


def measure(scale: Scale) -> list[Row]:
    """Measure the median's row and that of the slowest hundredth."""
    middle: dict[str, list[float]] = {kind: [] for kind in KINDS}
    slow: dict[str, list[float]] = {kind: [] for kind in KINDS}
    cpu: dict[str, list[float]] = {kind: [] for kind in KINDS}
    rounds = max(5, scale.rounds)
    options = [str(scale.paced)]
    with contenders("latency", dict.fromkeys(KINDS, options)) as (stand_in, runners):
        for number in range(rounds + 1):
            progress("latency", number, rounds)
            for runner in runners:
                before = cpu_seconds(runner.process.pid)
                stand_in.pace(runner.number, scale.paced, RATE)
                ages = sorted(age / 1000 for age in runner.hear()["ages"])
                runner.settle()
                if number:
                    middle[runner.kind].append(ages[len(ages) // 2])
                    slow[runner.kind].append(ages[int(len(ages) * 0.99)])
                    used = cpu_seconds(runner.process.pid) - before
                    cpu[runner.kind].append(used / scale.paced * 1e6)
    title = f"latency at {RATE:,} events/s"
    return [
        Row.of(
            f"{title}, p50",
            middle,
            Goal(times(middle["ours"], middle["bare"]), 1.3, "x bare"),
            unit="µs",
            cpu_per_event={kind: spread(values) for kind, values in cpu.items()},
        ),
        Row.of(f"{title}, p99", slow, unit="µs"),
    ]
