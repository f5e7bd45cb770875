# Metrics for Prometheus: events are counted as they come, and circusd and the host are asked for
# the rest when somebody scrapes. What metrics there are is in _exposition.py, HTTP in
# _http_server.py.
#
# Owner: the plugin's thread; the sockets are closed by `handle_stop`, when that thread is parked.

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from circusplug import CallError, CircusPlugin, EventError, SpecError
from circusplug.options import Endpoint, Names, Seconds, declare, option

from ._extras import need
from ._host_figures import Figures, HostFigures, plugins_in
from ._http_server import Answer, HttpServer
from ._watcher_counts import WatcherCounts
from ._watchers import PLUGIN, Patterns, in_events

if TYPE_CHECKING:
    from ._exposition import Known, Watcher

#: How long what circusd has answered is used again, in seconds; scrapers in a loop do not load it.
_FRESH = 1.0
#: Of how many watchers events are counted between two scrapes.
_MOST_WATCHERS = 10_000


@dataclass(frozen=True)
class PrometheusOptions:
    """What `Prometheus` can be told."""

    host: str = option("127.0.0.1", meaning="the address to listen at")
    port: int = option(9355, minimum=0, maximum=65535, meaning="its port; 0: any that is free")
    path: str = option("/metrics", meaning="what is served there")
    watchers: Names = option("*", meaning="names of watchers, with * and ?")
    control: Endpoint | None = option(
        None,
        meaning="where a host takes commands whose plugins are told of; empty: this plugin's own",
    )
    timeout: Seconds = option(
        3,
        above=0,
        meaning="how long circusd and the host may take to answer; less than Prometheus's own",
    )
    client_timeout: Seconds = option(
        10, above=0, meaning="how long a client may take to ask, and to read the answer"
    )

    def __post_init__(self) -> None:
        need("metrics", "Prometheus")
        if not self.path.startswith("/"):
            raise SpecError(f"'path': {self.path!r} does not begin with /", key="path")


class Prometheus(CircusPlugin):
    """Serves metrics of circusd's watchers and of the host's plugins to Prometheus over HTTP.

    While circusd does not answer, ``circus_up`` is 0 and its watchers are left out; while the host
    does not, its plugins are. A watcher that was removed is forgotten. circusd's own plugins are
    left out.

    Raises:
        SpecError: The package prometheus-client is missing, or it cannot listen there.
    """

    name = "prometheus"
    options = declare(PrometheusOptions)
    ignore_plugins = True

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self._is_meant = Patterns(self.options.watchers).match
        self._counts: dict[str, WatcherCounts] = {}  # by the names in events
        self._asking = asyncio.Lock()
        self._known: Known | None = None
        self._known_since = 0.0
        self._server: HttpServer | None = None
        control = self.options.control or self.host_endpoint
        # Where the host takes circusd's commands it adds its plugins to what circusd says.
        self._host = HostFigures(self, "" if control == self.endpoint else control)

    def handle_init(self) -> None:
        options = self.options
        try:
            self._server = HttpServer(
                self.loop,
                (options.host, 0 if self.replaying else options.port),
                options.path,
                options.client_timeout,
                self._scrape,
                self.logger,
            )
        except OSError as error:
            raise SpecError(
                f"cannot listen at {options.host}:{options.port}: {error}", key="port"
            ) from None
        self.logger.info("metrics are at %s", self.url)

    @property
    def url(self) -> str:
        """Where the metrics are."""
        return self._server.url if self._server is not None else ""

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        try:
            event = self.parse_event(data)
        except EventError:
            return  # the host counts and tells what is no event
        if event.action == "remove":
            self._counts.pop(event.watcher, None)
        elif self._is_meant(event.watcher):
            if event.watcher not in self._counts and len(self._counts) < _MOST_WATCHERS:
                self._counts[event.watcher] = WatcherCounts()
            if counts := self._counts.get(event.watcher):
                counts.add(event)

    def handle_stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _scrape(self, headers: Mapping[str, str]) -> Answer:
        from ._exposition import exposition

        async with self._asking:
            if self._known is None or self.loop.time() - self._known_since >= _FRESH:
                self._known = await self._ask()
                self._known_since = self.loop.time()
        return await exposition(self._known, headers)

    async def _ask(self) -> Known:
        from ._exposition import Known

        (watchers, beside), plugins = await asyncio.gather(
            self._ask_circusd(), self._host.ask(self.options.timeout)
        )
        return Known(watchers, {**beside, **plugins})

    async def _ask_circusd(self) -> tuple[dict[str, Watcher] | None, Figures]:
        """The watchers, None if it does not answer; and the plugins that it tells of, if any."""
        from ._exposition import Watcher

        counted = set(self._counts)
        try:
            status, stats = await asyncio.gather(
                self.call_async("status", timeout=self.options.timeout),
                self.call_async("stats", timeout=self.options.timeout),
            )
        except CallError as error:
            self.logger.debug("circusd does not answer: %s", error)
            return None, {}
        states, infos = _object(status.get("statuses")), _object(stats.get("infos"))
        watchers = {}
        for name, state in states.items():
            counted.discard(in_events(name))
            if not name.startswith(PLUGIN) and self._is_meant(name):
                counts = self._counts.get(in_events(name)) or WatcherCounts()
                watchers[name] = Watcher(state, infos.get(name), counts)
        for gone in counted:  # before circusd was asked; its remove was missed
            self._counts.pop(gone, None)
        return watchers, plugins_in(infos)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
