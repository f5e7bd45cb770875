# In which order plugins start, and how many at a time. A plugin on a thread starts when the
# constructor of every one before it has begun, so constructors begin in the order of the file;
# nobody waits for anybody's `handle_init`. Those in processes of their own start a few at a time.
#
# Owner: the supervising thread.

from __future__ import annotations

import collections
import os
import time

from .._logs import logger
from .managed_plugin import ManagedPlugin

#: How long a plugin that gets no further than its import keeps the next ones waiting, in seconds.
IMPORT_WAIT = 2.0
#: How many isolated plugins may be on their way to their constructors at the same time: enough to
#: keep the processors busy, and no more, as each is a process to fork and modules to import.
_ISOLATED_AT_ONCE = 2 + (os.cpu_count() or 1)


class StartQueue:
    """Launches plugins in the order in which they were added."""

    def __init__(self) -> None:
        self._waiting: collections.deque[ManagedPlugin] = collections.deque()
        self._on_their_way: list[ManagedPlugin] = []

    def add(self, plugin: ManagedPlugin) -> None:
        """Have a plugin launched when it is its turn."""
        self._waiting.append(plugin)

    def advance(self) -> None:
        """Launch those whose turn has come; to be called when something has changed."""
        while self._waiting:
            plugin = self._waiting[0]
            if not plugin.awaits_launch:  # it was stopped or removed meanwhile
                self._waiting.popleft()
                continue
            if not self._has_room(plugin):
                return
            self._waiting.popleft()
            self._on_their_way.append(plugin)
            plugin.launch()

    def next_timer(self) -> float | None:
        """When `advance` is due without any news, in seconds of `time.monotonic`; None: never."""
        if not self._waiting:
            return None
        times = [plugin.launched_at for plugin in self._on_their_way]
        return min(times) + IMPORT_WAIT if times else None

    def _has_room(self, plugin: ManagedPlugin) -> bool:
        overdue = time.monotonic() - IMPORT_WAIT
        left = []
        for other in self._on_their_way:
            if other.begun or other.state != "starting" or other.awaits_launch:
                continue
            if other.launched_at <= overdue:
                logger.warning("%s is slow to load; not waiting for it", other.spec.name)
                continue
            left.append(other)
        self._on_their_way = left
        if plugin.spec.isolate:
            return len(left) < _ISOLATED_AT_ONCE and all(other.spec.isolate for other in left)
        return not left
