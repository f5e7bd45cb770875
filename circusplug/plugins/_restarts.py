# Restarts watchers, and single processes, on behalf of a plugin: not while they start, and not
# without end.
#
# Owner: the plugin's thread.

from __future__ import annotations

import collections
from dataclasses import dataclass
from typing import Any

from circusplug import CallError, CircusPlugin
from circusplug.options import Seconds, option

from ._watchers import in_events

#: How long a command that meets conflicts is sent again, in seconds: while circusd stops a watcher,
#: it is busy for its ``graceful_timeout``.
PATIENCE = 120.0


@dataclass(frozen=True)
class RestartOptions:
    """When a watcher is not restarted although it should be."""

    grace: Seconds = option(0, meaning="how long a watcher is left alone after each of its starts")
    restart_limit: int | None = option(
        None,
        minimum=1,
        meaning="how often it is restarted within restart_window; without it, any number of times",
    )
    restart_window: Seconds = option("1 h", above=0, meaning="for restart_limit")


class Restarts:
    """The restarts that one plugin asks circusd for.

    Args:
        plugin: Sends the commands.
        options: What holds them back.
    """

    def __init__(self, plugin: CircusPlugin, options: RestartOptions) -> None:
        self._plugin = plugin
        self._options = options
        self._starts: dict[str, float] = {}
        self._restarts: dict[str, collections.deque[float]] = {}
        self._told: set[str] = set()
        self._under_way: set[str] = set()

    def clock(self) -> float:
        """Seconds that only ever go forward."""
        moment: float = self._plugin.loop.time()
        return moment

    def observe(self, watcher: str, action: str) -> None:
        """Take in an event: a watcher that starts is left alone for a while."""
        if action == "start":
            self._starts[watcher] = self.clock()
        elif action == "remove":
            self._starts.pop(watcher, None)
            self._restarts.pop(watcher, None)

    def is_young(self, name: str) -> bool:
        """Whether a watcher has started so lately that it is left alone."""
        start = self._starts.get(in_events(name))
        return start is not None and self.clock() - start < self._options.grace

    async def restart(self, name: str, why: str, command: str = "restart", **props: Any) -> bool:
        """Restart a watcher; whether circusd was asked to, and has not refused.

        Args:
            name: The watcher's name.
            why: What is wrong with it, for the log.
            command: What to send, if not ``restart``.
            props: More that belongs to the command.
        """
        watcher, logger = in_events(name), self._plugin.logger
        if watcher in self._under_way or self.is_young(name) or not self._may(watcher, name, why):
            return False
        logger.warning("%s: %s; %s", name, why, command)
        self._under_way.add(watcher)
        try:
            await self._plugin.call_async(
                command, patience=PATIENCE, name=name, match="simple", **props
            )
        except CallError as error:
            logger.error("%s: %s", name, error)
            return False
        finally:
            self._under_way.discard(watcher)
        return True

    def _may(self, watcher: str, name: str, why: str) -> bool:
        """Count a restart, unless there were enough of them."""
        most, window = self._options.restart_limit, self._options.restart_window
        if most is None:
            return True
        now, done = self.clock(), self._restarts.setdefault(watcher, collections.deque())
        while done and now - done[0] >= window:
            done.popleft()
        if len(done) < most:
            done.append(now)
            self._told.discard(watcher)
            return True
        if watcher not in self._told:
            self._told.add(watcher)
            self._plugin.logger.error(
                "%s: %s; left alone, as it was restarted %d times within %g s",
                *(name, why, most, window),
            )
        return False
