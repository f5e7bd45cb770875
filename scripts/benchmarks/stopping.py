# From SIGTERM to the end of the process, with fifty plugins; ours get events meanwhile, which
# a real circusd cannot be told to send to its own, so Circus has the easier task.

from __future__ import annotations

from .fleets import FIFTY, TRAFFIC, seen
from .report import Goal, Row, spread
from .scale import Scale


def measure(scale: Scale) -> list[Row]:
    """Measure the rows for the time and for what was run."""
    found = seen(scale)
    ours = found.values("ours", FIFTY, "stop_seconds")
    stops = found.values("ours", FIFTY, "stops")
    title = f"stop of {FIFTY} plugins"
    return [
        Row(
            f"{title} at {TRAFFIC} events/s",
            found.middle("ours", FIFTY, "stop_seconds"),
            circus=found.middle("circus", FIFTY, "stop_seconds"),
            goals=(Goal(max(ours), 0.5, "s at most"),),
            rounds=len(ours),
            unit="s",
            more={"ours_spread": spread(ours)},
        ),
        Row(
            f"{title}: handle_stop run",
            min(stops),
            circus=found.middle("circus", FIFTY, "stops"),
            goals=(Goal(min(stops), FIFTY, f"of {FIFTY}", at_least=True),),
            rounds=len(stops),
        ),
    ]
