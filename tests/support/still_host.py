# A host that does nothing, for what steers one: no sockets, no plugins, no threads.

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from circusplug import HostConfig, PluginSpec
from circusplug._plugin.status import PluginStatus


def status(name: str = "a", **fields: Any) -> PluginStatus:
    """How a plugin is: it runs, unless something else is said."""
    return PluginStatus(name, "m.C", **{"state": "running", **fields})


class StillHost:
    """A host of which a test says how its plugins are.

    Attributes:
        asked: What was asked of it: the changes, and for states whether they have to be fresh.
        done: The outcome of every change, which the test decides on.
    """

    def __init__(self, *statuses: PluginStatus) -> None:
        plugins = tuple(PluginSpec(each.name, each.use, isolate=each.isolated) for each in statuses)
        self.config = HostConfig(
            plugins, "ipc:///commands", "ipc:///events", check_delay=7.0, source="x.ini"
        )
        self.asked: list[object] = []
        self.done: Future[None] = Future()
        self._statuses = {each.name: each for each in statuses}

    def statuses(self, fresh: bool) -> Mapping[str, PluginStatus]:
        self.asked.append(fresh)
        return self._statuses

    def stack(self, name: str) -> str:
        return f"where {name} is"

    def change(self, what: str, names: Iterable[str]) -> Future[None]:
        self.asked.append((what, *names))
        return self.done

    def reload(self) -> Future[None]:
        self.asked.append("reload")
        return self.done

    def quit(self) -> Future[None]:
        self.asked.append("quit")
        return self.done
