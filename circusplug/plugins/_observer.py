# What the plugins have in common that send figures to a statsd daemon, and those that look at
# something every so often.
#
# Owner: the plugin's thread; the socket is closed by `handle_stop`, when that thread is parked.

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from circusplug import CircusPlugin
from circusplug.options import Seconds, option

from ._statsd_client import StatsdClient, clean


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
            silent=self.replaying,
        )

    def count(self, what: str, watcher: str = "", group: str = "") -> None:
        """Count an event; of a watcher, if one is given, and in a group of figures."""
        self.statsd.count(*self._named(what, watcher, group))

    def gauge(self, what: str, value: float, watcher: str = "", group: str = "") -> None:
        """Set a gauge."""
        name, tags = self._named(what, watcher, group)
        self.statsd.gauge(name, value, tags)

    def timing(self, what: str, seconds: float, group: str = "") -> None:
        """Tell how long something took."""
        name, tags = self._named(what, "", group)
        self.statsd.timing(name, 1000 * seconds, tags)

    def _named(self, what: str, watcher: str, group: str) -> tuple[str, dict[str, str] | None]:
        if self._tagged:
            parts = [group.removeprefix("_"), what]
            return ".".join(filter(None, parts)), {"watcher": watcher} if watcher else None
        return ".".join(filter(None, [group, watcher and clean(watcher), what])), None

    def handle_stop(self) -> None:
        self.statsd.close()


@dataclass(frozen=True)
class ObserverOptions(StatsdOptions):
    """How often to look, and where figures go."""

    loop_rate: Seconds = option(60, above=0, meaning="how often to look")


class Observer(SendsFigures):
    """A plugin that looks at something every `loop_rate`, one look at a time."""

    options: ObserverOptions
    topics: ClassVar[Iterable[str | bytes]] = ()

    def handle_init(self) -> None:
        self.open_statsd(self.options)
        self.periodic(self.look, self.options.loop_rate)

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        """Nothing to do."""

    async def look(self) -> None:
        """Look once."""
        raise NotImplementedError
