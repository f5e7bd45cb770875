# A plugin's declared options as a real circusd tells of them for single watchers.

from __future__ import annotations

import contextlib
import queue
from dataclasses import dataclass
from typing import Any

from circusd_real import RealCircusd

from circusplug import Arbiter, CircusPlugin
from circusplug.options import Seconds, declare, option


@dataclass(frozen=True)
class LimitOptions:
    most: int = option(3, meaning="how many", per_watcher=True)
    within: Seconds = option(10, meaning="within how long", per_watcher=True)


class Limit(CircusPlugin):
    """Puts what it finds for a watcher, each time that it was changed, into a queue."""

    name = "limit"
    options = declare(LimitOptions)
    found: queue.SimpleQueue[LimitOptions] = queue.SimpleQueue()

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        watcher, action, _ = self.split_data(data)
        if action == "updated":
            self.found.put(self.options_for(watcher))


def test_what_a_watcher_s_section_says_counts_until_the_file_is_read_again() -> None:
    watchers: dict[str, dict[str, Any]] = {
        "My App": {"limit.within": "1 min", "flapping.max_retry": "2"}
    }
    with (
        RealCircusd(watchers) as circusd,
        Arbiter([Limit], circusd.endpoint, circusd.pubsub_endpoint) as arbiter,
    ):

        def find(within: float) -> None:
            """Change the watcher until the plugin has found what it has to find."""
            found: list[float] = []
            while not found or found[-1] != within:
                circusd.call("set", name="My App", options={"max_retry": 5})
                with contextlib.suppress(TimeoutError):
                    arbiter.wait(lambda _: not Limit.found.empty(), 0.05)
                while not Limit.found.empty():
                    found.append(Limit.found.get().within)

        find(60.0)
        # circusd takes such an option from its file only.
        circusd.ini_path.write_text(circusd.ini_path.read_text().replace("1 min", "2 min"))
        assert circusd.call("reloadconfig")["status"] == "ok"
        find(120.0)
