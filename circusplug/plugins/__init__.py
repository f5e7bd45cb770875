"""Plugins that come with circusplug: useful as they are, and to be copied from.

`Logger` writes each event as a line, `FlappingAlert` tells when processes die too often,
`LoadScaler` adds and removes processes by load, `Statsd` and `FullStats` send figures, which
`Prometheus` fetches. In a circus.ini::

    [plugin:logger]
    use = circusplug.plugins.Logger

``circusplug describe`` prints each one's options. They use nothing of circusplug that a plugin of
yours could not use as well.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._alert import FlappingAlert
    from ._flapping import Flapping
    from ._logger import Logger
    from ._prometheus import Prometheus
    from ._scaler import LoadScaler
    from ._statsd import FullStats, Statsd

__all__ = [
    "Flapping",
    "FlappingAlert",
    "FullStats",
    "LoadScaler",
    "Logger",
    "Prometheus",
    "Statsd",
]

#: Where each plugin is defined. It is imported with its first use.
_HOMES = {
    "Flapping": "_flapping",
    "FlappingAlert": "_alert",
    "FullStats": "_statsd",
    "LoadScaler": "_scaler",
    "Logger": "_logger",
    "Prometheus": "_prometheus",
    "Statsd": "_statsd",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
