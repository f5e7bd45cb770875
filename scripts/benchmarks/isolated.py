# Plugins with `isolate = true`: what each added one takes, and how soon they are ready.

from __future__ import annotations

from .fleets import FIFTY, ISOLATED, MEGABYTE, seen
from .report import Goal, Row, spread
from .scale import Scale


def measure(scale: Scale) -> list[Row]:
    """Measure the rows for memory and for start-up."""
    found = seen(scale)
    few, many = ISOLATED
    ours, circus = (found.per_added(kind, few, many) for kind in ("isolated", "circus"))
    rows = [
        Row(
            "isolated: memory of each added plugin",
            ours / MEGABYTE,
            circus=circus / MEGABYTE,
            goals=(Goal(circus / ours, 2.5, "x less than Circus", at_least=True),),
            rounds=scale.rounds,
            unit="MB",
        )
    ]
    for count in ISOLATED:
        seconds, theirs = (
            found.middle("isolated", count, "ready_seconds"),
            found.of_circus(count, "ready_seconds"),
        )
        goals = []
        if count == FIFTY and seconds and theirs:
            goals.append(Goal(theirs / seconds, 3, "x sooner than Circus", at_least=True))
        rows.append(
            Row(
                f"isolated: {count} plugins ready",
                seconds,
                circus=theirs,
                goals=tuple(goals),
                rounds=scale.rounds,
                unit="s",
                more={"ours_spread": spread(found.values("isolated", count, "ready_seconds"))},
            )
        )
    return rows
