"""Host plugins for Circus: one process, a thread per plugin, a process where asked.

A plugin receives every event that circusd publishes and sends it commands::

    from circusplug import Arbiter, CircusPlugin

    class Printer(CircusPlugin):
        def handle_recv(self, data):
            event = self.parse_event(data)
            print(event.watcher, event.action, event.pid)

    Arbiter(plugins=[Printer]).start()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._imports import lazy  # before all others

if TYPE_CHECKING:
    from ._config.host_options import HostOptions
    from ._config.specs import HostConfig, PluginSpec
    from ._errors import (
        CallConflict,
        CallError,
        CallTimeout,
        CircusdError,
        CircusPlugError,
        ConfigError,
        EventError,
        HostError,
        PluginLoadError,
        PluginStateError,
        SpecError,
    )
    from ._host.arbiter import Arbiter
    from ._host.get_arbiter import BackgroundArbiter, get_arbiter
    from ._host.host_plugin import Host
    from ._loop.periodic import Periodic
    from ._plugin.base import CircusPlugin
    from ._plugin.status import Counters, PluginStatus
    from ._wire.events import Event

__all__ = [
    "Arbiter",
    "BackgroundArbiter",
    "CallConflict",
    "CallError",
    "CallTimeout",
    "CircusPlugError",
    "CircusPlugin",
    "CircusdError",
    "ConfigError",
    "Counters",
    "Event",
    "EventError",
    "Host",
    "HostConfig",
    "HostError",
    "HostOptions",
    "Periodic",
    "PluginLoadError",
    "PluginSpec",
    "PluginStateError",
    "PluginStatus",
    "SpecError",
    "__version__",
    "get_arbiter",
]

__version__ = "0.1.0"

#: Where each name is defined. A command that asks a host for its plugins, and a run of pytest
#: without any, need none of them.
_HOMES = {
    "_config.host_options": ["HostOptions"],
    "_config.specs": ["HostConfig", "PluginSpec"],
    "_errors": [name for name in __all__ if name.endswith("Error") or name.startswith("Call")],
    "_host.arbiter": ["Arbiter"],
    "_host.get_arbiter": ["BackgroundArbiter", "get_arbiter"],
    "_host.host_plugin": ["Host"],
    "_loop.periodic": ["Periodic"],
    "_plugin.base": ["CircusPlugin"],
    "_plugin.status": ["Counters", "PluginStatus"],
    "_wire.events": ["Event"],
}

__getattr__, __dir__ = lazy(__name__, _HOMES)
