# Stops a watcher whose processes die again and again, starts it again later, and gives it up after
# some tries. What counts as too often is decided in _deaths.py, stop and start are in _pause.py.
#
# Owner: the plugin's thread; `handle_stop` runs when that thread is parked.

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from circusplug import CallError, CircusPlugin, Event
from circusplug.options import Seconds, declare, option

from ._deaths import DeathWatch, Flap, within
from ._pause import Pauses
from ._restarts import PATIENCE

#: As often as it takes.
_ALWAYS = -1
#: What `retry_in` is at least, in seconds; none at all would mean for good.
_LEAST = 0.001


@dataclass(frozen=True)
class FlappingOptions:
    """What `Flapping` can be told; each but `kill_grace` for single watchers, too."""

    attempts: int = option(2, minimum=1, per_watcher=True, meaning="how many deaths are too many")
    window: Seconds = option(
        1, per_watcher=True, meaning="within how long, circusd's check_delay not counted"
    )
    retry_in: Seconds = option(
        7, per_watcher=True, meaning="how long a watcher stays stopped until it is tried again"
    )
    max_retry: int = option(
        5,
        minimum=_ALWAYS,
        per_watcher=True,
        meaning="how many tries it has until it stays stopped; -1: any number",
    )
    active: bool = option(True, per_watcher=True, meaning="no leaves the watcher alone")
    exit_codes: tuple[int, ...] = option(
        "", per_watcher=True, meaning="exit codes that are no crash", example="0"
    )
    kill_grace: Seconds = option(
        60,
        meaning="how long a signal of circusd's excuses the death of a process; more than the "
        "watcher's graceful_timeout",
    )


class Flapping(CircusPlugin):
    """Stops a watcher whose processes die too often, and starts it again after a while.

    Deaths that circusd asked for (a stop, a reload, a process that became too old) do not count,
    nor do those with one of `exit_codes`. After `max_retry` tries in a row the watcher stays
    stopped, which is an error in the log. Whoever starts or removes the watcher meanwhile goes
    first: then nothing is started any more. When this plugin is stopped, what it has stopped is
    started.
    """

    name = "flapping"
    options = declare(FlappingOptions)

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self._deaths = DeathWatch(self.options.kill_grace)
        self._pauses = Pauses(self, PATIENCE)
        self._tries: dict[str, int] = {}
        self._last_crash: dict[str, float] = {}  # since the watcher was started

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        event = self.parse_event(data)
        if event.action in ("start", "remove"):
            self._pauses.cancel(event.watcher)
        if event.action == "remove":
            self._tries.pop(event.watcher, None)
            self._last_crash.pop(event.watcher, None)
        if self._deaths.is_crash(event):
            own = self.options_for(event.watcher)
            if own.active and event.payload.get("exit_code") not in own.exit_codes:
                self._crashed(event, own)

    def handle_reconnect(self) -> None:
        self._deaths.forget()

    def handle_stop(self) -> None:
        self._pauses.end()

    def _crashed(self, event: Event, own: FlappingOptions) -> None:
        watcher = event.watcher
        # circusd looks after its processes so often; that much later a death may be told of.
        window = own.window + self.check_delay
        last, self._last_crash[watcher] = self._last_crash.get(watcher), event.time
        if last is not None and not within(last, event.time, window):
            self._tries.pop(watcher, None)  # it was well meanwhile
        flap = self._deaths.count(event, own.attempts, window)
        if flap is not None:
            del self._last_crash[watcher]
            self.loop.add_callback(self._pause, flap, own)

    async def _pause(self, flap: Flap, own: FlappingOptions) -> None:
        """Stop a watcher for a while, or for good."""
        try:
            name = self.watcher_name(flap.watcher)
        except CallError:
            name = flap.watcher  # circusd does not answer now; it may be the real name, too
        tries = self._tries.get(flap.watcher, 0) + 1
        text = flap.describe(name)
        if own.max_retry == _ALWAYS or tries <= own.max_retry:
            self._tries[flap.watcher] = tries
            self.logger.warning("%s; try %d in %g s", text, tries, own.retry_in)
            await self._pauses.begin(flap.watcher, name, max(own.retry_in, _LEAST))
        else:
            self._tries.pop(flap.watcher, None)
            self.logger.error("%s; given up after %d tries", text, tries - 1)
            await self._pauses.begin(flap.watcher, name, 0)
