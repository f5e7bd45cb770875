# From the watcher names in events to those that commands take: events carry a `res_name`
# (lower-cased, spaces turned into `_`), commands take the real one.
#
# Owner: the table is replaced as a whole, so that any thread may look something up while
# the plugin's thread throws the table away. `_lock` guards its replacement.

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable


class WatcherNames:
    """Real watcher names by the names in events; asks circusd when it has to."""

    def __init__(self, list_names: Callable[[], Iterable[str]]) -> None:
        self._list_names = list_names
        self._names: dict[str, str] | None = None
        self._forgotten = 0
        self._lock = threading.Lock()

    def resolve(self, res_name: str) -> str:
        """The real name; the given one if no watcher has it."""
        names = self._names
        if names is None:
            before = self._forgotten
            names = {to_res_name(name): name for name in self._list_names()}
            with self._lock:
                if self._forgotten == before:  # else the answer may be older than a change
                    self._names = names
        return names.get(to_res_name(res_name), res_name)

    def observe(self, topic: bytes) -> None:
        """Look at an event's topic: after `add` and `remove` the names are asked for again.

        After an empty topic, too: events may have been missed.
        """
        if not topic or topic.endswith((b".add", b".remove")):
            self.forget()

    def forget(self) -> None:
        """Ask circusd again at the next look-up."""
        with self._lock:
            self._forgotten += 1
            self._names = None


def to_res_name(name: str) -> str:
    """The name that a watcher has in events."""
    return name.lower().replace(" ", "_")
