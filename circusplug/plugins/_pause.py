# Stops a watcher and starts it again later, whatever circusd is busy with.
#
# Owner: the plugin's thread; `end` is for `handle_stop`, when that thread is parked.

from __future__ import annotations

import asyncio
import time
from typing import Any

from circusplug import CallConflict, CallError, CircusPlugin

#: At the end, how often a command that met a conflict is tried again, and after how long (s), and
#: how long circusd has to answer (s).
_LAST_TRIES = 10
_LAST_DELAY = 0.1
_LAST_TIMEOUT = 1.0


class Pauses:
    """The watchers that a plugin has stopped for a while.

    Args:
        plugin: Sends the commands.
        seconds: How long a watcher stays stopped; 0: until somebody else starts it.
        conflict_delay: How long to wait before a command that met a conflict is tried again,
            in seconds.
        conflict_tries: How often it is tried at most.
    """

    def __init__(
        self, plugin: CircusPlugin, seconds: float, conflict_delay: float, conflict_tries: int
    ) -> None:
        self._plugin = plugin
        self._seconds = seconds
        self._conflict_delay = conflict_delay
        self._conflict_tries = conflict_tries
        self._paused: dict[str, tuple[str, asyncio.TimerHandle]] = {}

    async def begin(self, watcher: str, name: str) -> None:
        """Stop a watcher, given its name in events and its real name."""
        logger = self._plugin.logger
        try:
            await self._insist("stop", name)
        except CallError as error:
            logger.error("%s was not stopped: %s", name, error)
            return
        if not self._seconds:
            logger.warning("%s is stopped, and stays so until somebody starts it", name)
            return
        logger.warning("%s is stopped for %g s", name, self._seconds)
        self.cancel(watcher)
        timer = self._plugin.loop.call_later(
            self._seconds, self._plugin.loop.add_callback, self._resume, watcher, name
        )
        self._paused[watcher] = name, timer

    def cancel(self, watcher: str) -> None:
        """Do not start a watcher any more: it was started, or removed, by somebody else."""
        if watcher in self._paused:
            self._paused.pop(watcher)[1].cancel()

    def end(self) -> None:
        """Start what is stopped at once, rather than leave it stopped for good."""
        for name, timer in self._paused.values():
            timer.cancel()
            try:
                self._insist_now("start", name)
            except CallError as error:
                self._plugin.logger.error("%s stays stopped: %s", name, error)
        self._paused.clear()

    def _insist_now(self, command: str, name: str) -> None:
        """The same as `_insist` for the end, when no loop runs and time is short."""
        for _ in range(_LAST_TRIES):
            try:
                self._plugin.call(command, name=name, match="simple", timeout=_LAST_TIMEOUT)
            except CallConflict:
                time.sleep(_LAST_DELAY)
            else:
                return
        self._plugin.call(command, name=name, match="simple", timeout=_LAST_TIMEOUT)

    async def _resume(self, watcher: str, name: str) -> None:
        try:
            await self._insist("start", name)
        except CallError as error:
            self._plugin.logger.error("%s was not started again: %s", name, error)
        else:
            self._plugin.logger.info("%s is started again", name)
        self._paused.pop(watcher, None)

    async def _insist(self, command: str, name: str) -> dict[str, Any]:
        """Send a command, again and again while circusd is busy with another one.

        ``match="simple"`` because a name may hold what circusd would take for a pattern.
        """
        for _ in range(self._conflict_tries - 1):
            try:
                return await self._plugin.call_async(command, name=name, match="simple")
            except CallConflict:
                await asyncio.sleep(self._conflict_delay)
        return await self._plugin.call_async(command, name=name, match="simple")
