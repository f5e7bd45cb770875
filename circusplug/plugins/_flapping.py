# Stops a watcher whose processes die again and again, starts it again later, and gives it up after
# some tries. What counts as too often is decided in _deaths.py, stop and start are in _pause.py.
#
# Owner: the plugin's thread; `handle_stop` runs when that thread is parked.

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from circusplug import CallError, CircusPlugin, Event
from circusplug.options import Seconds, declare, option

from ._deaths import DeathWatch
from ._pause import Pauses

#: How long a command that meets conflicts is sent again, in seconds: stopping a watcher keeps
#: circusd busy for its ``graceful_timeout``.
PATIENCE = 120.0
#: As often as it takes.
_ALWAYS = -1


@dataclass(frozen=True)
class FlappingOptions:
    """What `Flapping` can be told; each but `kill_grace` for single watchers, too."""

    attempts: int = option(
        2, minimum=1, per_watcher=True, meaning="how many deaths are too many"
    )
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
    enabled: bool = option(True, per_watcher=True, meaning="no leaves the watcher alone")
    exit_codes: tuple[int, ...] = option(
        "", per_watcher=True, meaning="exit codes that are no crash", example="0"
    )
    kill_grace: Seconds = option(
        60,
        meaning="how long a signal of circusd's excuses the death of a process; more than the "
        "watcher's graceful_timeout",
    )


@dataclass
class _Watched:
    deaths: DeathWatch
    tries: int = 0
    killed: dict[int, float] = field(default_factory=dict)


class Flapping(CircusPlugin):
    """Stops a watcher whose processes die too often, and starts it again after a while.

    Deaths that circusd asked for (a stop, a reload, a process that became too old) do not count,
    nor do those with one of `exit_codes`. After `max_retry` tries in a row the watcher stays stopped,
    which is an error in the log. Whoever starts or removes the watcher meanwhile goes first: then
    nothing is started any more. When this plugin is stopped, what it has stopped is started.
    """

    name = "flapping"
    options = declare(FlappingOptions)

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self._watched: dict[str, _Watched] = {}
        self._pauses = Pauses(self, self.options.retry_in, PATIENCE)
