"""Plugins that come with circusplug: useful as they are, and to be copied from.

`Logger` writes each event as a line, `Alert` tells people of trouble, `Flapping` stops watchers
whose processes die too often, `LoadScaler` adds and removes processes by load, `Statsd` and
`FullStats` send figures. In a circus.ini::

    [plugin:logger]
    use = circusplug.plugins.Logger

``circusplug describe`` prints each one's options. They use nothing of circusplug that a plugin of
yours could not use as well.
"""

from __future__ import annotations

from ._alert import Alert
from ._flapping import Flapping
from ._logger import Logger
from ._scaler import LoadScaler
from ._statsd import FullStats, Statsd

__all__ = ["Alert", "Flapping", "FullStats", "LoadScaler", "Logger", "Statsd"]
