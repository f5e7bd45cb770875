# Supervisor's event listeners beside our plugins: memory, CPU, events lost. Both get as many
# events at the same pace, ours from the stand-in for circusd, the listeners from supervisord.
# These two, which send, are not counted; what they take is in the JSON.

from __future__ import annotations

import time
from collections import defaultdict

from ..fleet import Fleet
from ..processes import cpu_seconds
from ..report import Goal, Row, times
from ..scale import Scale, progress
from ..standin import StandIn
from ..supervisord import Supervisord

FIFTY = 50
RATE = 20
LOST_OF, LOST_RATE, BLOCK_SECONDS = 1000, 1000, 3

MEGABYTE = 1e6

Values = dict[str, list[float]]


def measure(scale: Scale) -> list[Row]:
    """Measure the rows for memory, CPU and lost events."""
    rounds = min(scale.rounds, 3)
    events = int(scale.many_seconds * RATE)
    memory, cpu, lost = (defaultdict[str, list[float]](list) for _ in range(3))
    with StandIn(1) as stand_in:
        for number in range(rounds):
            progress("Supervisor's listeners", number + 1, rounds)
            with Supervisord(0, stand_in) as alone:
                nothing = alone.pss()
            with Supervisord(FIFTY, stand_in, events=events, rate=RATE) as listeners:
                memory["supervisor"].append((listeners.pss() - nothing) / MEGABYTE)
                before, sent = listeners.cpu(), cpu_seconds(listeners.process.pid)
                listeners.produce()
                used = listeners.cpu() - before, cpu_seconds(listeners.process.pid) - sent
                _share(cpu, "supervisor", used, sum(listeners.stop()[1]))
            with Fleet("ours", FIFTY, stand_in) as plugins:
                memory["ours"].append(plugins.pss() / MEGABYTE)
                before, sent = plugins.cpu(), cpu_seconds(stand_in.pid)
                stand_in.pace(0, events, RATE)
                used = plugins.cpu() - before, cpu_seconds(stand_in.pid) - sent
                _share(cpu, "ours", used, sum(plugins.stop()[1]))
            _lose(stand_in, lost)
    less = times(memory["supervisor"], memory["ours"])
    return [
        Row.of(
            f"memory of {FIFTY} that receive events",
            memory,
            Goal(less, 20, "x less than Supervisor", at_least=True),
            unit="MB",
        ),
        Row.of(
            f"{FIFTY} at {RATE} events/s: CPU per delivery",
            cpu,
            unit="µs",
        ),
        Row.of(
            f"lost of {LOST_OF:,} events while the handler blocks {BLOCK_SECONDS} s",
            lost,
            Goal(max(lost["ours"]), 0, "lost in any round"),
        ),
    ]


def _share(cpu: Values, kind: str, used: tuple[float, float], deliveries: int) -> None:
    cpu[kind].append(used[0] / deliveries * 1e6)
    cpu[f"{kind}'s sender"].append(used[1] / deliveries * 1e6)


def _lose(stand_in: StandIn, lost: Values) -> None:
    """Block one of each at its first event, while more come; count what they never get."""
    sent = {"events": LOST_OF, "rate": LOST_RATE}
    with (
        Supervisord(1, stand_in, block=BLOCK_SECONDS, **sent) as listener,
        Fleet("ours", 1, stand_in, block=BLOCK_SECONDS) as plugin,
    ):
        over = time.monotonic() + BLOCK_SECONDS + 0.5  # the producer has to start
        stand_in.begin_pace(0, LOST_OF, LOST_RATE)
        listener.produce()
        stand_in.end_pace()
        time.sleep(max(0.0, over - time.monotonic()))
        for kind, fleet in (("supervisor", listener), ("ours", plugin)):
            fleet.cpu()  # at rest
            lost[kind].append(LOST_OF - sum(fleet.stop()[1]))
