# A thousand plugins on threads of one host: how soon they are ready, what each takes, and whether
# all of them get what is published.

from __future__ import annotations

from statistics import median

from ..fleet import Fleet
from ..report import Goal, Row
from ..scale import Scale, progress
from ..standin import StandIn

COUNT = 1000
EVENTS = 20
MEGABYTE = 1e6


def measure(scale: Scale) -> list[Row]:
    """Measure the rows for the start, the memory and the events."""
    ready, memory, handled = [], [], []
    with StandIn(1) as stand_in:
        for number in range(scale.rounds):
            progress("a thousand plugins", number + 1, scale.rounds)
            with Fleet("ours", 1, stand_in) as lone:
                alone = lone.pss()
            with Fleet("ours", COUNT, stand_in, events=EVENTS) as fleet:
                ready.append(fleet.ready_seconds)
                memory.append((fleet.pss() - alone) / (COUNT - 1) / MEGABYTE)
                stand_in.flood(0, EVENTS)
                fleet.cpu()  # at rest again
                handled.append(sum(fleet.stop()[1]))
    title = f"{COUNT:,} plugins"
    return [
        Row.of(f"{title} ready", {"ours": ready}, Goal(median(ready), 2.5, "s"), unit="s"),
        Row.of(
            f"{title}: memory of each",
            {"ours": memory},
            Goal(median(memory), 0.2, "MB"),
            unit="MB",
        ),
        Row.of(
            f"{title}: handled of {EVENTS * COUNT:,} deliveries",
            {"ours": handled},
            Goal(min(handled), EVENTS * COUNT, "in any round", at_least=True),
        ),
    ]
