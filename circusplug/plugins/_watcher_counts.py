# What can be counted of a watcher from its events: how many of each, deaths, restarts. No sockets,
# no clock. How many different things are counted is bounded, whatever the events say.

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from circusplug import Event

#: circusd's events; anything else counts as "other".
_ACTIONS = frozenset(
    ["add", "kill", "reap", "reload", "remove", "spawn", "start", "stop", "updated"]
).union(["hook_failure", "hook_success"])
#: What an exit code can be; negative ones are signals.
_CODES = range(-64, 256)


@dataclass
class WatcherCounts:
    """What was counted of one watcher.

    Attributes:
        events: How many, by action.
        deaths: How many, by exit code; negative: the signal; None: circusd did not see it.
        restarts: How many processes were started in place of others that had ended.
        ended: How many have ended and were not replaced yet.
    """

    events: Counter[str] = field(default_factory=Counter)
    deaths: Counter[int | None] = field(default_factory=Counter)
    restarts: int = 0
    ended: int = 0

    def add(self, event: Event) -> None:
        """Count an event of the watcher."""
        self.events[event.action if event.action in _ACTIONS else "other"] += 1
        if event.action == "reap":
            code = event.payload.get("exit_code")
            self.deaths[code if isinstance(code, int) and code in _CODES else None] += 1
            self.ended += 1
        elif event.action == "spawn" and self.ended:
            self.ended -= 1
            self.restarts += 1
