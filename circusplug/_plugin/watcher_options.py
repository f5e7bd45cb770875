# A plugin's declared options as single watchers have them: ``flapping.max_retry = 2`` in a
# ``[watcher:X]``, which circusd keeps and tells of.
#
# Owner: any thread may ask. What is remembered is forgotten on the plugin's thread, when circusd
# tells of a change; `_lock` guards both.

from __future__ import annotations

import threading
from typing import Any, Protocol, TypeVar

from .._config.declared import Declared
from .._errors import MESSAGE_ERROR, CallError
from .._wire.events import PREFIX
from .._wire.watcher_names import to_res_name

#: After these a watcher's options may be others. A circusd that reads its file again stops and
#: starts what has changed there, and says no more of it.
_CHANGES = (b".updated", b".add", b".start", b".stop", b".remove")


T_co = TypeVar("T_co", covariant=True)


class HasOptions(Protocol[T_co]):
    """A plugin that declares options."""

    @property
    def options(self) -> T_co: ...


class WatcherOptions:
    """The options of one plugin for each watcher.

    Args:
        plugin: Asks circusd, and logs.
        declared: What it declares.
        own: Its own values.
    """

    def __init__(self, plugin: Any, declared: Declared, own: Any) -> None:
        self._plugin = plugin
        self._declared = declared
        self._own = own
        self._found: dict[str, Any] = {}
        self._changes = 0
        self._told: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def of(self, watcher: str) -> Any:
        """The options for a watcher, named as in events or as in commands."""
        watcher = to_res_name(watcher)
        found = self._found.get(watcher)
        if found is not None or not self._declared.per_watcher:
            return self._own if found is None else found
        before = self._changes
        self._plugin._watch_topics()
        try:
            name = self._plugin.watcher_name(watcher)
            given = self._plugin.call("options", name=name).get("options")
        except CallError as error:
            # While circusd reads its file again, it does not know what it starts; the next event
            # asks again. A watcher that was removed is not known either.
            if error.errno != MESSAGE_ERROR:
                self._plugin.logger.warning(
                    "the options of %s are not known, so the plugin's own count: %s", watcher, error
                )
            return self._own
        given = given if isinstance(given, dict) else {}
        prefix = str(self._plugin.name)
        found, problems = self._declared.read_for_watcher(self._own, prefix, given)
        for problem in problems:
            if (watcher, problem.message) not in self._told:
                self._told.add((watcher, problem.message))
                self._plugin.logger.warning(
                    "watcher %s: %s; the plugin's own value counts", name, problem.message
                )
        with self._lock:
            if before == self._changes and self._hears_of_changes():
                self._found[watcher] = found
        return found

    def _hears_of_changes(self) -> bool:
        topics, _ = self._plugin._subscription()
        return PREFIX in topics

    def observe(self, topic: bytes) -> None:
        """Look at an event's topic, and forget what it may have changed; an empty one: all."""
        if topic and not topic.endswith(_CHANGES):
            return
        watcher = topic.removeprefix(PREFIX).rpartition(b".")[0].decode("utf-8", "replace")
        with self._lock:
            self._changes += 1
            if topic:
                self._found.pop(to_res_name(watcher), None)
            else:
                self._found.clear()
