# What the plugins have in common that look whether a service answers, and restart watchers when it
# does not.
#
# Owner: the plugin's thread.

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from circusplug import CallError
from circusplug.options import option

from ._observer import Observer, ObserverOptions
from ._restarts import RestartOptions, Restarts
from ._watchers import Patterns, in_events


@dataclass(frozen=True)
class ProbeOptions(RestartOptions, ObserverOptions):
    """When a service that does not answer makes for a restart."""

    failures: int = option(
        1,
        minimum=1,
        meaning="how many failures in a row it takes; a start of a watcher begins anew",
    )


class Prober(Observer):
    """Looks at one or several services every `loop_rate`."""

    options: ProbeOptions
    topics: ClassVar[Iterable[str | bytes]] = ("watcher.",)
    #: What begins the names of its figures.
    group: ClassVar[str]

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self._watchers = Patterns(self.to_restart())
        self._restarts = Restarts(self, self.options)
        self._names: list[str] = []
        self._failed: dict[str, int] = {}

    def to_restart(self) -> Iterable[str]:
        """Names and patterns of the watchers that are restarted."""
        raise NotImplementedError

    async def probe(self) -> None:
        """Look at each service, and tell `well` or `ill`."""
        raise NotImplementedError

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        watcher, action, _ = self.split_data(data)
        self._restarts.observe(watcher, action)
        if action == "start" and watcher in map(in_events, self._names):
            self._failed.clear()

    async def look(self) -> None:
        try:
            self._names = await self._watchers.names(self)
        except CallError as error:
            self.logger.warning("no look this time: %s", error)
            return
        if not any(map(self._restarts.is_young, self._names)):
            await self.probe()

    def well(self, service: str) -> None:
        """A service has answered as it should."""
        self._failed.pop(service, None)

    async def ill(self, service: str, why: str) -> None:
        """A service has not; restart the watchers if that was once too often."""
        self.count("error", group=self.group)
        self.logger.warning("%s: %s", service, why)
        self._failed[service] = self._failed.get(service, 0) + 1
        if self._failed[service] >= self.options.failures:
            self.well(service)
            for watcher in self._names:
                if await self._restarts.restart(watcher, f"{service}: {why}"):
                    self.count("restart_on_error", group=self.group)
