# All watchers of one FakeCircusd: finding them as circusd finds them, and what circusd does one
# after the other. No sockets, no threads.
#
# Owner: the serving thread. While a command of the exclusive kind takes time, others of that kind
# are refused, and nobody looks after dead processes: `busy` is its name.

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from circusplug._control.language import RefusedError, matching
from circusplug._errors import COMMAND_ERROR

from ._model import Watcher
from ._steps import Pending, all_of, run

T = TypeVar("T")

#: Called with a watcher's res_name, an action and a payload.
Emit = Callable[[str, str, dict[str, Any]], None]

#: Above what any system gives out, so that a plugin that signals one hits nobody.
_FIRST_PID = 5_000_001


class Fleet:
    """The watchers of one circusd.

    Args:
        emit: Takes the events of all watchers.
        global_options: Returns the options of circusd itself.
        now: Tells the time of day, in seconds since the epoch.
        call_later: Has something done in so many seconds.

    Attributes:
        watchers: The watchers by lower-cased name.
        pid: circusd's own made-up process id.
        started: When circusd started, in seconds since the epoch.
        busy: The exclusive command that takes its time just now; empty if there is none.
        ends: Whether it is to end, as all watchers are stopped.
        restarts: Whether it is to start again after that.
    """

    def __init__(
        self,
        emit: Emit,
        global_options: Callable[[], Mapping[str, Any]],
        now: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self.watchers: dict[str, Watcher] = {}
        self.global_options = global_options
        self.pid = _FIRST_PID - 1
        self.now = now
        self.started = now()
        self.busy = ""
        self.ends = self.restarts = False
        self._emit = emit
        self._quiet = False
        self._pids = itertools.count(_FIRST_PID)
        self._call_later = call_later
        self._age = 0
        self._pauses: list[Pending[None]] = []
        self._waiting: list[Callable[[], object]] = []
        self._failures: list[BaseException] = []

    def add(self, name: str, options: Mapping[str, Any]) -> Watcher:
        """Add a watcher, stopped and without an event.

        Raises:
            RefusedError: There is one of that name.
        """
        if name.lower() in self.watchers:
            raise RefusedError(f"command 'add': {name!r} already exist", COMMAND_ERROR)
        watcher = Watcher(name, options, self)
        self.watchers[name.lower()] = watcher
        return watcher

    def configure(self, name: str, options: Mapping[str, Any]) -> None:
        """Add a watcher as if circusd had been started with it: running, without an event."""
        watcher = self.add(name, options)
        self.start_quietly([watcher])

    def change(self, watcher: Watcher, options: Mapping[str, Any]) -> None:
        """Let circusd have been started with other options of a watcher."""
        watcher.options.update(options)
        self._do_quietly(watcher.manage())

    def start_quietly(self, watchers: Iterable[Watcher]) -> None:
        """Let circusd have been started with *watchers*, without an event."""
        self._do_quietly(self.start(watchers))

    def _do_quietly(self, steps: Coroutine[Pending[Any], None, None]) -> None:
        """Have something done without an event, and without pauses."""
        self._quiet = True
        try:
            done = run(steps)
            if done.done():
                done.result()  # raises what it has tripped over
        finally:
            self._quiet = False

    def begin_anew(self) -> None:
        """Let all processes, and circusd, have been started this moment.

        What is under way is done at once; what was to be done later is not.
        """
        self._age += 1
        self._waiting.clear()
        while self._pauses:
            self._pauses.pop(0).set_result(None)
        self.manage()
        self.started = self.now()
        for watcher in self.watchers.values():
            for process in watcher.alive:
                process.started = self.started

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

    # What takes time.

    def exclusively(self, name: str, steps: Coroutine[Pending[Any], None, T]) -> Pending[T]:
        """Have a command of the exclusive kind done; returns its outcome.

        Raises:
            RefusedError: Another one is being done: a conflict.
        """
        if self.busy:
            steps.close()
            raise RefusedError(
                "arbiter is restarting..."
                if self.restarts
                else f"arbiter is already running {self.busy} command",
                COMMAND_ERROR,
            )
        self.busy = name
        done = run(steps)
        is_slow = not done.done()
        done.add_done_callback(lambda done: self._is_idle(done, is_slow))
        return done

    def when_idle(self, action: Callable[[], object]) -> None:
        """Do something of the exclusive kind as soon as it is no conflict."""
        self._waiting.append(action)
        self.manage()

    def manage(self) -> None:
        """circusd's own round: collect dead processes, start others; if nothing else is done."""
        while self._round_is_done() and self._waiting:
            self._waiting.pop(0)()
        if self._failures:
            raise self._failures.pop()

    def call_later(self, seconds: float, function: Callable[[], object]) -> None:
        """Have something done in a while; never, if all begins anew before that."""
        age = self._age

        def due() -> None:
            if self._age == age:
                function()

        self._call_later(seconds, due)

    def pause(self, seconds: float) -> Pending[None]:
        """Something to await that comes in a while; at once, if all begins anew."""
        pause: Pending[None] = Pending()
        if seconds <= 0 or self._quiet:
            pause.set_result(None)
        else:
            self._pauses.append(pause)
            self.call_later(seconds, lambda: self._end_of(pause))
        return pause

    async def start(self, watchers: Iterable[Watcher]) -> None:
        """Start those of *watchers* that may start by themselves (``autostart``)."""
        for watcher in watchers:
            if watcher.autostart:
                await watcher.start()

    async def stop(self, watchers: Iterable[Watcher]) -> None:
        """Stop *watchers* at the same time: all are signalled before one is collected."""
        chosen = sorted(watchers, key=lambda watcher: watcher.options["priority"])
        begun = [(each, each.begin_stop()) for each in chosen if each.status != "stopped"]
        await all_of([run(each.finish_stop(kills)) for each, kills in begun])

    async def restart(self, watchers: list[Watcher]) -> None:
        """Stop *watchers*, then start them."""
        await self.stop(watchers)
        await self.start(watchers)

    async def reload(self, graceful: bool, sequential: bool) -> None:
        """Reload one watcher after the other."""
        for watcher in self.by_priority():
            await watcher.reload(graceful, sequential)

    async def quit(self, again: bool = False) -> None:
        """Stop all watchers, and circusd is to end; *again*: and to start anew."""
        self.restarts = again
        await self.stop(self.by_priority())
        self.ends = True

    # What watchers need, see `Circusd` of the model.

    def next_pid(self) -> int:
        return next(self._pids)

    def publish(self, name: str, action: str, payload: dict[str, Any]) -> None:
        if not self._quiet:
            self._emit(name, action, payload)

    def _round_is_done(self) -> bool:
        if self.busy:
            return False
        done = self.exclusively("manage_watchers", self._round())
        if done.done():
            done.result()
        return done.done()

    async def _round(self) -> None:
        for watcher in self.watchers.values():
            watcher.reap()
        await all_of([run(watcher.manage()) for watcher in [*self.watchers.values()]])

    def _is_idle(self, done: Future[Any], is_slow: bool) -> None:
        self.busy = ""
        error = done.exception()
        if is_slow and error is not None:  # nobody else would tell of it
            self._failures.append(error)

    def _end_of(self, pause: Pending[None]) -> None:
        self._pauses.remove(pause)
        pause.set_result(None)
