# What the fleets host, as a plugin of circusplug. The same as fleet_circus but for its base.

from __future__ import annotations

import time
from typing import Any

from circusplug import CircusPlugin


class Trivial(CircusPlugin):
    """Notes when it is ready and when `handle_stop` runs; does nothing with events."""

    name = "trivial"

    def initialize(self) -> None:
        super().initialize()
        self.note("ready")

    def handle_recv(self, data: Any) -> None:
        pass

    def handle_stop(self) -> None:
        self.note("stop")

    def note(self, what: str) -> None:
        with open(self.config["report"], "a") as file:
            file.write(f"{what} {time.monotonic()}\n")
