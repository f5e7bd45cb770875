# CPU for each scrape of the plugin Prometheus beside 200 watchers of two processes each, and, as
# the bare minimum, for the two commands to circusd that it takes. Both on one thread, in turn.

from __future__ import annotations

import concurrent.futures
import time
import urllib.request
from collections.abc import Callable
from typing import Any

from circusplug.plugins import Prometheus
from circusplug.testing import FakeCircusd, run_plugin

from ..report import Row
from ..scale import Scale, progress

WATCHERS = 200


def measure(scale: Scale) -> list[Row]:
    """Measure the row; it has no goal, as there is nobody else who does it."""
    cpu: dict[str, list[float]] = {"ours": [], "bare": []}
    with FakeCircusd() as circusd:
        for number in range(WATCHERS):
            circusd.add_watcher(f"watcher-{number}", 2)
        with run_plugin(Prometheus, circusd, port=0) as running:
            plugin = running.plugin
            for number in range(scale.short_rounds + 1):
                progress("scrape", number, scale.short_rounds)
                on_thread(plugin, forget, plugin)
                ours = taken(plugin, lambda: urllib.request.urlopen(plugin.url).read())
                bare = taken(plugin, lambda: on_thread(plugin, ask, plugin))
                if number:
                    cpu["ours"].append(ours * 1000)
                    cpu["bare"].append(bare * 1000)
    return [Row.of(f"CPU per scrape, {WATCHERS} watchers", cpu, unit="ms")]


def taken(plugin: Any, action: Callable[[], object]) -> float:
    """The CPU that the plugin's thread has spent on something, in seconds."""
    before = on_thread(plugin, time.thread_time)
    action()
    return on_thread(plugin, time.thread_time) - before


def on_thread(plugin: Any, callback: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns on the plugin's thread."""
    done: concurrent.futures.Future[Any] = concurrent.futures.Future()
    plugin.loop.add_callback(lambda: done.set_result(callback(*arguments)))
    return done.result()


def ask(plugin: Any) -> None:
    for command in ("status", "stats"):
        plugin.call(command)


def forget(plugin: Any) -> None:
    """Have it ask circusd again, as it does once a second at most."""
    plugin._known = None
