# What circusd tells, as figures for a statsd daemon: events as counters (`Statsd`), and what its
# `stats` command says of processes as gauges (`FullStats`).
#
# Owner: the plugin's thread.

from __future__ import annotations

from typing import Any

from circusplug import CallError
from circusplug.options import declare

from ._observer import Observer, ObserverOptions, SendsFigures, StatsdOptions
from ._processes import number, processes_of
from ._statsd_client import clean
from ._watchers import PLUGIN

#: What begins the names of what `FullStats` sends.
_STATS = "_stats"


class Statsd(SendsFigures):
    """Counts each event of circusd at a statsd daemon.

    The counter is ``circus.APPLICATION.watcher.WATCHER.ACTION``. While the daemon is away, or its
    name is not known, figures are lost and nothing else happens.
    """

    name = "statsd"
    options = declare(StatsdOptions)

    def handle_init(self) -> None:
        self.open_statsd(self.options)

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        watcher, action, _ = self.split_data(data)
        self.count(clean(action), watcher)


class FullStats(Observer):
    """Sends what circusd's ``stats`` command tells of each watcher's processes as gauges.

    The gauges are ``circus.APPLICATION.watcher._stats.WATCHER.FIGURE``: ``watchers_num`` (how many
    processes there are), ``cpu_max``, ``cpu_sum``, ``mem_pct_max``, ``mem_pct_sum``, ``mem_max``
    and ``mem_sum`` (bytes). circusd's own plugins are left out. While circusd does not answer,
    ``_stats.error`` is counted.
    """

    name = "full_stats"
    options = declare(ObserverOptions)

    async def look(self) -> None:
        """Send the figures of all watchers."""
        try:
            infos = (await self.call_async("stats")).get("infos")
        except CallError as error:
            self.logger.warning("no figures this time: %s", error)
            self.count("error", group=_STATS)
            return
        for watcher, info in (infos if isinstance(infos, dict) else {}).items():
            if not watcher.startswith(PLUGIN):
                for what, value in figures(info).items():
                    self.gauge(what, value, watcher, _STATS)


def figures(info: Any) -> dict[str, float]:
    """What `stats` tells of one watcher, as figures; one that is not known is left out."""
    processes = list(processes_of(info))
    found: dict[str, float] = {"watchers_num": len(processes)}
    if isinstance(info, dict) and isinstance(info.get("spawn_count"), int):
        found["spawn_count"] = info["spawn_count"]
    for key, name in (("cpu", "cpu"), ("mem", "mem_pct"), ("mem_info1", "mem")):
        values = [value for one in processes if (value := number(one.get(key))) is not None]
        if values:
            found[f"{name}_max"] = max(values)
            found[f"{name}_sum"] = sum(values)
    return found
