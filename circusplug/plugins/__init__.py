"""Plugins that come with circusplug: useful as they are, and to be copied from.

Circus's own eight, under Circus's options: `CommandReloader`, `Flapping`, `FullStats`,
`HttpObserver`, `RedisObserver`, `ResourceWatcher`, `Statsd` and `WatchDog`. `Logger` writes each
event as a line, `Alert` tells people of trouble, `LoadScaler` adds and removes processes by load,
`Prometheus` has metrics fetched, `Recorder` keeps the traffic for ``circusplug replay``. In a
circus.ini::

    [plugin:logger]
    use = circusplug.plugins.Logger

``circusplug describe`` prints each one's options. All but `Prometheus` and `Recorder` use nothing
of circusplug that a plugin of yours could not use as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._imports import lazy

if TYPE_CHECKING:
    from ._alert import Alert
    from ._flapping import Flapping
    from ._http import HttpObserver
    from ._logger import Logger
    from ._prometheus import Prometheus
    from ._recorder import Recorder
    from ._redis import RedisObserver
    from ._reloader import CommandReloader
    from ._resources import ResourceWatcher
    from ._scaler import LoadScaler
    from ._statsd import FullStats, Statsd
    from ._watchdog import WatchDog

__all__ = [
    "Alert",
    "CommandReloader",
    "Flapping",
    "FullStats",
    "HttpObserver",
    "LoadScaler",
    "Logger",
    "Prometheus",
    "Recorder",
    "RedisObserver",
    "ResourceWatcher",
    "Statsd",
    "WatchDog",
]

_HOMES = {
    "_alert": ["Alert"],
    "_flapping": ["Flapping"],
    "_http": ["HttpObserver"],
    "_logger": ["Logger"],
    "_prometheus": ["Prometheus"],
    "_recorder": ["Recorder"],
    "_redis": ["RedisObserver"],
    "_reloader": ["CommandReloader"],
    "_resources": ["ResourceWatcher"],
    "_scaler": ["LoadScaler"],
    "_statsd": ["FullStats", "Statsd"],
    "_watchdog": ["WatchDog"],
}

__getattr__, __dir__ = lazy(__name__, _HOMES)
