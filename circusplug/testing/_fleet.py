# All watchers of one FakeCircusd: finding them as circusd finds them, and starting and
# stopping several at once. No sockets, no threads.

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from circusplug._control.language import RefusedError, matching
from circusplug._errors import COMMAND_ERROR

from ._model import Emit, Watcher

#: Above what any system gives out, so that a plugin that signals one hits nobody.
_FIRST_PID = 5_000_001


class Fleet:
    """The watchers of one circusd.

    Args:
        emit: Takes the events of all watchers.
        global_options: Returns the options of circusd itself.
        now: Tells the time of day, in seconds since the epoch.

    Attributes:
        watchers: The watchers by lower-cased name.
        pid: circusd's own made-up process id.
        started: When circusd started, in seconds since the epoch.
    """

    def __init__(
        self,
        emit: Emit,
        global_options: Callable[[], Mapping[str, Any]],
        now: Callable[[], float],
    ) -> None:
        self.watchers: dict[str, Watcher] = {}
        self.global_options = global_options
        self.pid = _FIRST_PID - 1
        self.now = now
        self.started = now()
        self._emit = emit
        self._quiet = False
        self._pids = itertools.count(_FIRST_PID)

    def add(self, name: str, options: Mapping[str, Any]) -> Watcher:
        """Add a watcher, stopped and without an event.

        Raises:
            RefusedError: There is one of that name.
        """
        if name.lower() in self.watchers:
            raise RefusedError(f"command 'add': {name!r} already exist", COMMAND_ERROR)
        watcher = Watcher(name, options, self._publish, self._pids, self.now)
        self.watchers[name.lower()] = watcher
        return watcher

    def configure(self, name: str, options: Mapping[str, Any]) -> None:
        """Add a watcher as if circusd had been started with it: running, without an event."""
        watcher = self.add(name, options)
        self._quiet = True
        try:
            self.start([watcher])
        finally:
            self._quiet = False

    def begin_anew(self) -> None:
        """Let all processes, and circusd, have been started this moment."""
        self.started = self.now()
        for watcher in self.watchers.values():
            watcher.begin_anew()

    def find(self, name: Any) -> Watcher:
        """Return the watcher of that real name, in any case.

        Raises:
            RefusedError: There is none.
        """
        if not isinstance(name, str):
            raise RefusedError(f"command: name {name!r} is no text", COMMAND_ERROR)
        try:
            return self.watchers[name.lower()]
        except KeyError:
            raise RefusedError(f"program {name} not found") from None

    def matching(self, name: str, match: str) -> list[Watcher]:
        """Return the watchers that *name* means, by ``simple``, ``glob`` or ``regex`` match.

        Raises:
            RefusedError: There is none, or no such way to match.
        """
        chosen = set(matching(self.watchers, name, match))
        if not chosen:
            raise RefusedError(f"program {name} not found")
        return [watcher for watcher in self.by_priority() if watcher.name.lower() in chosen]

    def by_priority(self) -> list[Watcher]:
        """Return the watchers in the order in which circusd starts them."""
        return sorted(self.watchers.values(), key=lambda w: w.options["priority"], reverse=True)

    def start(self, watchers: Iterable[Watcher]) -> None:
        """Start those of *watchers* that may start by themselves (``autostart``)."""
        for watcher in watchers:
            if watcher.autostart:
                watcher.start()

    def stop(self, watchers: Iterable[Watcher]) -> None:
        """Stop *watchers* at the same time: all are signalled before one is collected."""
        chosen = sorted(watchers, key=lambda watcher: watcher.options["priority"])
        for watcher in chosen:
            watcher.kill_all()
        for watcher in chosen:
            watcher.reap_all()

    def _publish(self, name: str, action: str, payload: dict[str, Any]) -> None:
        if not self._quiet:
            self._emit(name, action, payload)
