# Memory of plugins that do nothing: proportional set size of all their processes, for Circus
# without what circusd takes by itself.

from __future__ import annotations

from .fleets import FIFTY, MEGABYTE, Seen, seen
from .report import Goal, Row, spread
from .scale import Scale


def measure(scale: Scale) -> list[Row]:
    """Measure a row for each size of fleet, and one for each plugin that is added."""
    found = seen(scale)
    return [*(_row(found, count) for count in scale.fleets), _added(found, scale)]


def _row(found: Seen, count: int) -> Row:
    ours, bare = found.middle("ours", count, "pss"), found.middle("bare", count, "pss")
    circus = found.of_circus(count, "pss")
    goals = []
    if count == FIFTY and ours and circus:
        goals.append(Goal(circus / ours, 20, "x less than Circus", at_least=True))
    values = found.values("ours", count, "pss")
    return Row(
        f"memory of {count} plugin{'s' * (count > 1)}",
        *(value and value / MEGABYTE for value in (ours, bare, circus)),
        goals=tuple(goals),
        rounds=len(values),
        unit="MB",
        more={"bytes": {kind: _spread(found, kind, count) for kind in ("ours", "bare", "circus")}},
    )


def _spread(found: Seen, kind: str, count: int) -> dict[str, float] | None:
    values = found.values(kind, count, "pss")
    return spread(values) if values else None


def _added(found: Seen, scale: Scale) -> Row:
    most = max(scale.fleets)
    ours = max(found.per_added("ours", 10, FIFTY), found.per_added("ours", FIFTY, most)) / MEGABYTE
    return Row(
        "memory of each added plugin",
        ours,
        found.per_added("bare", FIFTY, most) / MEGABYTE,
        found.per_added("circus", 10, FIFTY) / MEGABYTE,
        (Goal(ours, 0.2, "MB"),),
        scale.rounds,
        "MB",
    )
