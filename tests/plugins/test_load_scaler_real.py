# LoadScaler beside a real circusd.

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Iterator
from typing import Any

from bundled import Journal
from circusd_real import RealCircusd
from patience import PATIENCE

from circusplug import Arbiter, CircusPlugin
from circusplug.plugins import LoadScaler


class Witness(CircusPlugin):
    """Passes on what it hears."""

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        event = self.parse_event(data)
        self.config["heard"].put(f"{event.watcher} {event.action}")


@contextlib.contextmanager
def witnessed(circusd: RealCircusd, plugin: dict[str, Any]) -> Iterator[Callable[[str], None]]:
    """Run a plugin at a real circusd; gives a function that waits for an event.

    No event of what the plugin does is missed.
    """
    heard: queue.SimpleQueue[str] = queue.SimpleQueue()

    def wait(wanted: str) -> None:
        while heard.get(timeout=PATIENCE) != wanted:
            pass

    plugins = [{"use": Witness, "heard": heard}]
    with Arbiter(plugins, circusd.endpoint, circusd.pubsub_endpoint) as arbiter:
        while heard.empty():  # a real circusd does not tell when a subscription has arrived
            circusd.call("set", name="My App", options={"max_retry": 5})
            with contextlib.suppress(TimeoutError):
                arbiter.wait(lambda _: not heard.empty(), 0.05)
        arbiter.add_plugin(plugin)
        yield wait


class TestRealCircusd:
    def test_an_idle_watcher_is_scaled_down_and_its_lower_bound_kept(
        self, journal: Journal
    ) -> None:
        plugin = {"use": LoadScaler, "watcher": "my app", "period": "0.3", "cooldown": "0"}
        plugin |= {"min_processes": "1", "max_processes": "3"}
        with (
            RealCircusd({"My App": {"numprocesses": 2}}) as circusd,
            witnessed(circusd, plugin) as wait,
        ):
            wait("my_app kill")
            journal.wait("my app: load 0.0 %, 2 -> 1 processes")
            reply = circusd.call("get", name="My App", keys=["numprocesses"])
            assert reply["options"]["numprocesses"] == 1
