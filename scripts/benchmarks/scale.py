# How much is measured: everything, in about ten minutes, or a little of it in one and a half.

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """How often and how much to measure.

    Attributes:
        rounds: Rounds of what takes seconds; short measurements take `short_rounds`.
        short_rounds: Rounds of what takes a fraction of a second.
        events: Events of one round of the CPU rows.
        paced: Events of one round of the latency row.
        calls: Calls of one round.
        fleets: How many plugins to host, for memory and start-up.
        circus_fleets: The same for Circus.
        idle_seconds: How long to watch idle plugins.
        busy_seconds: How long a plugin computes or blocks beside others.
        many_events: Events of one flood to many plugins.
        many_seconds: How long many plugins get steady events, or listeners of Supervisor.
    """

    rounds: int = 5
    short_rounds: int = 15
    events: int = 50_000
    paced: int = 1000
    calls: int = 500
    fleets: tuple[int, ...] = (1, 10, 50, 200)
    circus_fleets: tuple[int, ...] = (1, 10, 50)
    idle_seconds: float = 30.0
    busy_seconds: float = 2.0
    many_events: int = 20_000
    many_seconds: float = 4.0


FULL = Scale()
QUICK = Scale(
    rounds=1,
    short_rounds=5,
    events=10_000,
    paced=300,
    calls=300,
    fleets=(10, 50, 200),
    circus_fleets=(10, 50),
    idle_seconds=3.0,
    busy_seconds=0.6,
    many_events=2_000,
    many_seconds=1.0,
)


def progress(stage: str, turn: int = 0, turns: int = 0) -> None:
    """Tell what goes on, on standard error: each turn on a terminal, else each stage."""
    if sys.stderr.isatty():
        count = f" {turn}/{turns}" if turns else ""
        print(f"\r\033[K{stage}{count}", end="", file=sys.stderr, flush=True)
    elif stage and turn == min(turns, 1):
        print(stage, file=sys.stderr, flush=True)
