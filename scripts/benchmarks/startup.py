# Time and CPU from exec until the last plugin is ready. For Circus that is when it has made its
# sockets, and circusd's own start is taken off; ours is connected and subscribed by then.

from __future__ import annotations

from .fleets import FIFTY, Seen, seen
from .report import Goal, Row, spread
from .scale import Scale


def measure(scale: Scale) -> list[Row]:
    """Measure two rows for each size of fleet."""
    found = seen(scale)
    rows = []
    for count in scale.fleets:
        goals = (10.0, "x sooner than Circus") if count == FIFTY else None
        plural = "s" * (count > 1)
        rows.append(_row(found, count, "ready_seconds", f"{count} plugin{plural} ready", goals))
        rows.append(_row(found, count, "ready_cpu", f"CPU until {count} plugin{plural} ready"))
    return rows


def _row(
    found: Seen, count: int, attribute: str, what: str, goal: tuple[float, str] | None = None
) -> Row:
    ours = found.middle("ours", count, attribute)
    circus = found.of_circus(count, attribute)
    goals = []
    if goal and ours and circus:
        goals.append(Goal(circus / ours, *goal, at_least=True))
    values = found.values("ours", count, attribute)
    return Row(
        what,
        ours,
        found.middle("bare", count, attribute),
        circus,
        tuple(goals),
        len(values),
        "s",
        {"ours_spread": spread(values)},
    )
