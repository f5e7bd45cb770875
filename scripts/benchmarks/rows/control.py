# How late plugins' events are while somebody steers the host, against how late they are while
# nobody does; and whether a command or an event is lost meanwhile.

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import zmq

from circusplug._control.places import endpoint_of

from ..fleet import Fleet
from ..report import Goal, Row, spread
from ..scale import Scale, progress
from ..standin import StandIn

PLUGINS = 20
#: Events a second that all plugins together receive.
RATE = 5000
#: Commands a second, one after the other.
COMMAND_RATE = 1000
COMMANDS = (
    b'{"id": %d, "command": "status", "properties": {}}',
    b'{"id": %d, "command": "stats", "properties": {"name": "plugin:p0000"}}',
    b'{"id": %d, "command": "numprocesses", "properties": {}}',
    b'{"id": %d, "command": "options", "properties": {"name": "plugin:p0007"}}',
    b'{"id": %d, "command": "list", "properties": {}}',
)
#: How long a reply may take, in milliseconds; one that takes longer is lost.
PATIENCE = 10_000


def measure(scale: Scale) -> list[Row]:
    """Measure the delay with and without commands, and count what is lost."""
    p99: dict[str, list[float]] = {"without": [], "with": []}
    lost_events, lost_commands = [], []
    commands = 20 * scale.calls
    events = commands // COMMAND_RATE * RATE // PLUGINS
    with StandIn(1) as stand_in:
        for number in range(scale.rounds):
            progress("control", number + 1, scale.rounds)
            for case in p99:
                answered = [0]
                ask = _asking(commands, answered) if case == "with" else _not_asking
                ages = _round(stand_in, events, ask)
                p99[case].append(ages[int(len(ages) * 0.99)])
                lost_events.append(float(PLUGINS * events - len(ages)))
                if case == "with":
                    lost_commands.append(float(commands - answered[0]))
    ratio = median(p99["with"]) / median(p99["without"])
    title = f"{PLUGINS} plugins, {RATE:,} events/s, {commands:,} control commands"
    return [
        Row.of(
            f"{title}: delay at p99",
            {"ours": p99["with"]},
            Goal(ratio, 1.5, "x that without commands"),
            unit="ms",
            without_commands=spread(p99["without"]),
        ),
        Row.of(
            f"{title}: lost",
            {"ours": [float(sum(lost_events) + sum(lost_commands))]},
            Goal(max(lost_events), 0, "events"),
            Goal(max(lost_commands), 0, "commands"),
        ),
    ]


def _round(stand_in: StandIn, events: int, ask: Callable[[str], None]) -> list[float]:
    """The ages of all plugins' events in milliseconds, sorted."""
    with Fleet("ours", PLUGINS, stand_in, use="Sibling") as fleet:
        endpoint = endpoint_of(str(Path(fleet.folder, "circus.ini")))
        asking = threading.Thread(target=ask, args=(endpoint,))
        stand_in.begin_pace(0, events, RATE / PLUGINS)
        asking.start()
        stand_in.end_pace()
        asking.join()
        time.sleep(0.2)  # what is late is on its way
        _, ages = fleet.stop()
    return sorted(age / 1e6 for each in ages for age in each)


def _not_asking(_endpoint: str) -> None:
    pass


def _asking(commands: int, answered: list[int]) -> Callable[[str], None]:
    def ask(endpoint: str) -> None:
        with zmq.Context() as context, context.socket(zmq.DEALER) as client:
            client.setsockopt(zmq.LINGER, 0)
            client.connect(endpoint)
            due = time.monotonic()
            for number in range(commands):
                due += 1 / COMMAND_RATE
                time.sleep(max(0.0, due - time.monotonic()))
                client.send(COMMANDS[number % len(COMMANDS)] % number)
                if not client.poll(PATIENCE):
                    return
                answered[0] += b'"id": %d,' % number in client.recv()

    return ask
