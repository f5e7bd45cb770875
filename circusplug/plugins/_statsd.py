# What circusd tells, as figures for a statsd daemon: events as counters (`Statsd`), and what its
# `stats` command says of processes as gauges (`FullStats`).
#
# Owner: the plugin's thread; the socket is closed by `handle_stop`, when that thread is parked.

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from circusplug import CallError, CircusPlugin
from circusplug.options import Seconds, declare, option

from ._statsd_client import StatsdClient, clean

_UNITS = {"B": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


@dataclass(frozen=True)
class StatsdOptions:
    """Where figures go, and what they are called."""

    application_name: str = option("app", meaning="the application, a part of each name")
    host: str = option(
        "localhost", meaning="where statsd listens: a host, or unix:///PATH of its socket"
    )
    port: int = option(8125, minimum=1, maximum=65535, meaning="its port")
    sample_rate: float = option(1.0, above=0, maximum=1, meaning="the share of counts to send")
    tags: Literal["none", "dogstatsd"] = option(
        "none", meaning="watcher and application are parts of the name, or tags as Datadog's are"
    )


class SendsFigures(CircusPlugin):
    """A plugin that sends figures to statsd; its options are `StatsdOptions` or more."""

    #: Puts the watcher's name in front of the figure's, or behind it.
    statsd: StatsdClient

    def open_statsd(self, options: StatsdOptions) -> None:
        """Connect, on the plugin's thread."""
        self._tagged = options.tags == "dogstatsd"
        application = clean(options.application_name)
        self.statsd = StatsdClient(
            options.host,
            options.port,
            "circus." if self._tagged else f"circus.{application}.watcher.",
            options.sample_rate,
            {"application": options.application_name} if self._tagged else None,
            self.loop.add_callback,
        )

    def count(self, watcher: str, what: str) -> None:
        """Count an event of a watcher."""
        if self._tagged:
            self.statsd.count(what, {"watcher": watcher})
        else:
            self.statsd.count(f"{clean(watcher)}.{what}")

    def gauge(self, watcher: str, what: str, value: float) -> None:
        """Set a gauge of a watcher."""
        if self._tagged:
            self.statsd.gauge(f"stats.{what}", value, {"watcher": watcher})
        else:
            self.statsd.gauge(f"_stats.{clean(watcher)}.{what}", value)

    def handle_stop(self) -> None:
        self.statsd.close()


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
        self.count(watcher, clean(action))


@dataclass(frozen=True)
class FullStatsOptions(StatsdOptions):
    """What `FullStats` can be told."""

    loop_rate: Seconds = option(60, above=0, meaning="how often to look")


class FullStats(SendsFigures):
    """Sends what circusd's ``stats`` command tells of each watcher's processes as gauges.

    The gauges are ``circus.APPLICATION.watcher._stats.WATCHER.FIGURE``: ``watchers_num`` (how many
    processes there are), ``cpu_max``, ``cpu_sum``, ``mem_pct_max``, ``mem_pct_sum``, ``mem_max``
    and ``mem_sum`` (bytes). circusd's own plugins are left out. While circusd does not answer,
    ``_stats.error`` is counted.
    """

    name = "full_stats"
    options = declare(FullStatsOptions)
    topics = ()

    def handle_init(self) -> None:
        self.open_statsd(self.options)
        self.periodic(self.look, self.options.loop_rate)

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        """Nothing to do: this plugin subscribes to no topic."""

    async def look(self) -> None:
        """Send the figures of all watchers."""
        try:
            infos = (await self.call_async("stats")).get("infos")
        except CallError as error:
            self.logger.warning("no figures this time: %s", error)
            self.statsd.count("_stats.error")
            return
        for watcher, info in (infos if isinstance(infos, dict) else {}).items():
            if not watcher.startswith("plugin:"):
                for what, value in figures(info).items():
                    self.gauge(watcher, what, value)


def figures(info: Any) -> dict[str, float]:
    """What `stats` tells of one watcher, as figures; one that is not known is left out."""
    processes = [one for one in info.values() if isinstance(one, dict)] if info else []
    found: dict[str, float] = {"watchers_num": len(processes)}
    if isinstance(info, dict) and isinstance(info.get("spawn_count"), int):
        found["spawn_count"] = info["spawn_count"]
    for key, name in (("cpu", "cpu"), ("mem", "mem_pct"), ("mem_info1", "mem")):
        values = list(_values(processes, key))
        if values:
            found[f"{name}_max"] = max(values)
            found[f"{name}_sum"] = sum(values)
    return found


def _values(processes: Iterable[Mapping[str, Any]], key: str) -> Iterable[float]:
    for process in processes:
        value = process.get(key)
        if isinstance(value, str):
            value = _size(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield value


def _size(text: str) -> float | None:
    """A size as circusd writes it, ``1.34M``, in bytes; None for "N/A"."""
    unit = _UNITS.get(text[-1:].upper())
    try:
        return float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        return None
