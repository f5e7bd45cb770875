# Stops a watcher and starts it again later, whatever circusd is busy with.
#
# Owner: the plugin's thread; `end` is for `handle_stop`, when that thread is parked.

from __future__ import annotations

import asyncio

from circusplug import CallError, CircusPlugin

#: How long a command may take when the plugin stops, in seconds.
_LAST_TIMEOUT = 1.0
#: A name may hold what circusd would take for a pattern.
_MATCH = "simple"


class Pauses:
    """The watchers that a plugin has stopped for a while.

    Args:
        plugin: Sends the commands.
        patience: How long a command that meets conflicts is sent again, in seconds.
    """

    def __init__(self, plugin: CircusPlugin, patience: float) -> None:
        self._plugin = plugin
        self._patience = patience
        self._paused: dict[str, tuple[str, asyncio.TimerHandle]] = {}

    async def begin(self, watcher: str, name: str, seconds: float) -> None:
        """Stop a watcher.

        Args:
            watcher: Its name in events.
            name: Its real name.
            seconds: How long it stays stopped; 0: until somebody else starts it.
        """
        logger = self._plugin.logger
        try:
            await self._plugin.call_async("stop", patience=self._patience, name=name, match=_MATCH)
        except CallError as error:
            logger.error("%s was not stopped: %s", name, error)
            return
        self.cancel(watcher)  # the start that an earlier pause was to end with
        if not seconds:
            logger.warning("%s is stopped, and stays so until somebody starts it", name)
            return
        logger.warning("%s is stopped for %g s", name, seconds)
        timer = self._plugin.loop.call_later(
            seconds, self._plugin.loop.add_callback, self._resume, watcher, name
        )
        self._paused[watcher] = name, timer

    def cancel(self, watcher: str) -> None:
        """Do not start a watcher any more: it was started, or removed, by somebody else."""
        if watcher in self._paused:
            self._paused.pop(watcher)[1].cancel()

    def end(self) -> None:
        """Start what is stopped at once, rather than leave it stopped for good."""
        for name, _ in self._paused.values():
            try:
                self._plugin.call("start", timeout=_LAST_TIMEOUT, name=name, match=_MATCH)
            except CallError as error:
                self._plugin.logger.error("%s stays stopped: %s", name, error)

    async def _resume(self, watcher: str, name: str) -> None:
        try:
            await self._plugin.call_async("start", patience=self._patience, name=name, match=_MATCH)
        except CallError as error:
            self._plugin.logger.error("%s was not started again: %s", name, error)
        else:
            self._plugin.logger.info("%s is started again", name)
            self._paused.pop(watcher, None)
