# The plugins of the row on a plugin that uses all the CPU it can get.

from __future__ import annotations

import json
import time
from typing import Any

from circusplug import CircusPlugin


class Hog(CircusPlugin):
    """Computes for some seconds when the first event comes, in plain Python."""

    name = "hog"
    begun = False

    def handle_recv(self, data: Any) -> None:
        if not self.begun:
            self.begun = True
            end = time.monotonic() + float(self.config["seconds"])
            while time.monotonic() < end:
                pass


class Sibling(CircusPlugin):
    """Notes the age of each event and tells them at the end."""

    name = "sibling"

    def handle_init(self) -> None:
        self.ages: list[int] = []

    def handle_recv(self, data: Any) -> None:
        self.ages.append(time.monotonic_ns() - int(data[1][9:-1]))

    def handle_stop(self) -> None:
        with open(self.config["report"], "a") as file:
            file.write(json.dumps(self.ages) + "\n")
