# Events lost when a handler blocks for 3 s while 100,000 come in, at a speed that a subscriber
# who keeps up loses none of, from a publisher that keeps as many as circusd does.

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path

from ..contender import COUNTER
from ..field import contenders
from ..report import Goal, Row
from ..scale import Scale, progress
from ..standin import CIRCUSD_SNDHWM

EVENTS = 100_000
BLOCK_SECONDS = 3
BURST = 125
PAUSE = 0.003
#: How often a round is tried in which the publisher itself drops events.
TRIES = 4

#: The last one does not block: what it does not get, the publisher has dropped.
CONTROL = "bare control"
KINDS = {"bare": BLOCK_SECONDS, "ours": BLOCK_SECONDS, "circus": BLOCK_SECONDS, CONTROL: 0}


def measure(scale: Scale) -> list[Row]:
    """Measure the row."""
    lost: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number in range(scale.rounds):
        progress("burst", number + 1, scale.rounds)
        for _ in range(TRIES):
            counts = _round()
            if counts[CONTROL] == EVENTS:
                break
        for kind, count in counts.items():
            lost[kind].append(EVENTS - count)
    return [
        Row.of(
            f"lost of a burst of {EVENTS:,}, handler blocks {BLOCK_SECONDS} s",
            lost,
            Goal(max(lost["ours"]), 0, "lost in any round"),
            headline=True,
        )
    ]


def _round() -> dict[str, int]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        options = {}
        for kind, seconds in KINDS.items():
            path = folder / kind
            path.write_bytes(bytes(COUNTER.size))
            options[kind] = [str(path), str(seconds)]
        stand_in, runners = stack.enter_context(
            contenders("burst", options, sndhwm=CIRCUSD_SNDHWM, pinned=False)
        )
        began = time.monotonic()
        stand_in.bursts([runner.number for runner in runners], EVENTS, BURST, PAUSE)
        time.sleep(max(0.0, began + BLOCK_SECONDS + 0.3 - time.monotonic()))
        for runner in runners:
            runner.settle()
        return {kind: COUNTER.unpack((folder / kind).read_bytes())[0] for kind in KINDS}
