# What a plugin knows of circusd and of its host, in Prometheus's words: names, types and labels of
# the metrics, and the text that a scrape gets. The only module that needs the package
# prometheus-client.

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, make_asgi_app
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    StateSetMetricFamily,
)
from prometheus_client.registry import Collector

from ._http_server import Answer
from ._statsd import figures
from ._watcher_counts import WatcherCounts

_STATES = ("active", "starting", "stopped", "stopping")
#: What a host says of each of its plugins in `stats`, and what it is called here.
_PLUGIN_COUNTERS = {
    "received": ("events_received", "Events that the plugin received"),
    "handled": ("events_handled", "Events that the plugin has handled"),
    "errors": ("errors", "Exceptions in the plugin's handlers, callbacks and timers"),
    "calls": ("calls", "Commands that the plugin sent to circusd"),
    "conflicts": ("conflicts", "Commands that circusd refused because it was busy"),
    "casts_failed": ("casts_failed", "Casts that circusd did not carry out"),
    "reconnects": ("reconnects", "Times that circusd came back"),
    "garbage": ("garbage", "Messages received that were no events"),
    "too_large": ("too_large", "Messages that were too large"),
    "restarts": ("restarts", "Times that the host started the plugin again"),
    "stalls": ("stalls", "Callbacks that ran too long"),
}


@dataclass(frozen=True)
class Watcher:
    """One watcher as circusd tells of it.

    Attributes:
        state: The word of `status`.
        info: What `stats` says of its processes.
        counts: What was counted of it.
    """

    state: Any
    info: Any
    counts: WatcherCounts


class Known(Collector):
    """The metrics of a circusd, and of a host's plugins, at one moment.

    Args:
        watchers: The watchers by name; None: circusd does not answer.
        plugins: What a host says of its plugins, by name.
    """

    def __init__(
        self, watchers: Mapping[str, Watcher] | None, plugins: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self._watchers = watchers
        self._plugins = plugins

    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily("circus_up", "Whether circusd answers")
        up.add_metric([], self._watchers is not None)
        yield up
        if self._watchers is not None:
            yield from _of_watchers({_text(name): one for name, one in self._watchers.items()})
        yield from _of_plugins({_text(name): one for name, one in self._plugins.items()})


async def exposition(collector: Collector, headers: Mapping[str, str]) -> Answer:
    """What a scrape gets: the format and the compression that its headers ask for."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    wanted = [(key.encode(), value.encode()) for key, value in headers.items()]
    scope = {"type": "http", "query_string": b"", "headers": wanted}
    await make_asgi_app(registry)(scope, receive, send)
    start, end = sent
    return {key.decode(): value.decode() for key, value in start["headers"]}, end["body"]


def _of_watchers(watchers: Mapping[str, Watcher]) -> Iterable[Metric]:
    state = StateSetMetricFamily(
        "circus_watcher_state", "What the watcher is doing", labels=["watcher"]
    )
    deaths = CounterMetricFamily(
        "circus_watcher_deaths",
        "Processes that ended, asked for or not, by what they ended with",
        labels=["watcher", "exit_code", "signal"],
    )
    events = CounterMetricFamily(
        "circus_events", "Events that circusd published", labels=["watcher", "action"]
    )
    restarts = CounterMetricFamily(
        "circus_watcher_restarts",
        "Processes that were started in place of others that had ended",
        labels=["watcher"],
    )
    for name, watcher in watchers.items():
        state.add_metric([name], {word: word == watcher.state for word in _STATES})
        for code, number in watcher.counts.deaths.items():
            deaths.add_metric([name, *_how_it_ended(code)], number)
        for action, number in watcher.counts.events.items():
            events.add_metric([name, action], number)
        restarts.add_metric([name], watcher.counts.restarts)
    yield from (state, deaths, restarts, events)
    known = {name: figures(watcher.info) for name, watcher in watchers.items()}
    for key, metric, meaning, scale in (
        ("watchers_num", "circus_watcher_processes", "Processes that run", 1),
        (
            "cpu_sum",
            "circus_watcher_cpu_ratio",
            "CPUs that its processes use, 1 is a whole one",
            100,
        ),
        ("mem_sum", "circus_watcher_resident_memory_bytes", "Memory that its processes hold", 1),
    ):
        found = {name: one[key] / scale for name, one in known.items() if key in one}
        yield _gauge(metric, meaning, "watcher", found)
    ages = _numbers({name: _oldest(one.info) for name, one in watchers.items()})
    yield _gauge("circus_watcher_age_seconds", "Age of its oldest process", "watcher", ages)


def _of_plugins(plugins: Mapping[str, Mapping[str, Any]]) -> Iterable[Metric]:
    if not plugins:
        return
    connected = {name: bool(one.get("connected")) for name, one in plugins.items()}
    yield _gauge(
        "circusplug_plugin_connected", "Whether the plugin receives events", "plugin", connected
    )
    lags = HistogramMetricFamily(
        "circusplug_plugin_lag_seconds",
        "Delays of a callback that was put to the plugin's loop, now and then while there is work",
        labels=["plugin"],
    )
    for name, one in plugins.items():
        buckets, total = _numbers(one.get("lag_buckets")), _numbers(one).get("lag_sum")
        if "+Inf" in buckets and total is not None:
            lags.add_metric([name], list(buckets.items()), total)
    yield lags
    for key, (metric, meaning) in _PLUGIN_COUNTERS.items():
        counter = CounterMetricFamily(f"circusplug_plugin_{metric}", meaning, labels=["plugin"])
        values = _numbers({name: one.get(key) for name, one in plugins.items()})
        for name, value in values.items():
            counter.add_metric([name], value)
        yield counter


def _gauge(metric: str, meaning: str, label: str, values: Mapping[str, float]) -> Metric:
    gauge = GaugeMetricFamily(metric, meaning, labels=[label])
    for name, value in values.items():
        gauge.add_metric([name], value)
    return gauge


def _oldest(info: Any) -> float | None:
    """The age of the oldest process, in seconds; None if there is none."""
    processes = info if isinstance(info, dict) else {}
    ages = {pid: one.get("age") for pid, one in processes.items() if isinstance(one, dict)}
    return max(_numbers(ages).values(), default=None)


def _how_it_ended(code: int | None) -> tuple[str, str]:
    """Exit code and signal, as labels; one of both is empty."""
    if code is None:
        return "unknown", ""
    if code >= 0:
        return str(code), ""
    try:
        return "", signal.Signals(-code).name
    except ValueError:
        return "", str(-code)


def _numbers(values: Any) -> dict[str, float]:
    """Those that are numbers; circusd says "N/A" of what it cannot tell."""
    return {
        key: value
        for key, value in (values.items() if isinstance(values, dict) else ())
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _text(name: str) -> str:
    """A name that can be sent; JSON may hold halves of a character."""
    return name.encode(errors="replace").decode()
