# The plugins of the fleets. They derive from Circus's base class where circusd hosts them, and
# from ours otherwise, and are the same in all else.
#
# Owner: each plugin's own thread. What they note goes to one file, a line at a time.

from __future__ import annotations

import importlib
import json
import os
import time
from typing import Any

#: The variable that names the module whose `CircusPlugin` is the base.
BASE = "BENCHMARK_BASE"

CircusPlugin: Any = importlib.import_module(os.environ.get(BASE, "circusplug")).CircusPlugin


class Member(CircusPlugin):
    """Counts events; notes when it is ready, has had as many as expected, and is stopped.

    Options: ``report``, the file for the notes; ``events``, how many make a note ``done``;
    ``decode``, do what nearly every plugin does first; ``block``, seconds to sleep at the first
    event; ``events_from``, where events come from if not from circusd.
    """

    name = "member"

    def __init__(self, endpoint: str, pubsub_endpoint: str, *args: Any, **config: Any) -> None:
        super().__init__(endpoint, config.get("events_from", pubsub_endpoint), *args, **config)
        self.received = 0
        self.expected = int(config.get("events", 0))
        self.decode = "decode" in config
        self.block = float(config.get("block", 0))

    def initialize(self) -> None:
        super().initialize()
        self.note("ready")

    def handle_recv(self, data: Any) -> None:
        if self.decode:
            _watcher, _action, message = self.split_data(data)
            self.load_message(message)
        self.received += 1
        if self.block and self.received == 1:
            time.sleep(self.block)
        if self.expected and self.received % self.expected == 0:
            self.note("done")

    def handle_stop(self) -> None:
        self.note("stop", self.received)

    def note(self, what: str, more: Any = 0) -> None:
        with open(self.config["report"], "a") as file:
            file.write(f"{what} {time.monotonic()} {json.dumps(more, separators=(',', ':'))}\n")


class Sibling(Member):
    """Notes the ages of all its events when it is stopped."""

    def handle_init(self) -> None:
        self.ages: list[int] = []

    def handle_recv(self, data: Any) -> None:
        self.ages.append(time.monotonic_ns() - int(data[1][9:-1]))

    def handle_stop(self) -> None:
        self.note("stop", self.ages)


class Busy(Member):
    """Computes in plain Python at its first event, or blocks at each.

    Options: ``compute`` and ``block``, for how many seconds.
    """

    def handle_recv(self, data: Any) -> None:
        self.received += 1
        if self.received == 1:
            end = time.monotonic() + float(self.config.get("compute", 0))
            while time.monotonic() < end:
                pass
        time.sleep(self.block)

    def handle_stop(self) -> None:
        pass
