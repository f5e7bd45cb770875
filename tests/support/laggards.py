# A plugin whose loop is late, as far as its counters tell.

from __future__ import annotations

from circusplug import CircusPlugin
from circusplug._runners.stall_watch import StallWatch

#: How late it is in each life, in seconds.
LAGS = (0.0005, 0.03, 0.04, 7.0)


class Laggard(CircusPlugin):
    def handle_init(self) -> None:
        for seconds in LAGS:
            self._circusplug_worker.counters.note_lag(seconds)

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        pass


class IsolatedLaggard(Laggard):
    """The same; nothing else is measured in its process."""

    def handle_init(self) -> None:
        StallWatch._measure_lag = lambda *_: None  # type: ignore[method-assign]
        super().handle_init()
