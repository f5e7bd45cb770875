# Decides from circusd's events what is trouble that somebody should know of. No sockets, no
# threads, no clock: time is what the events say.

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from circusplug import Event

from ._deaths import DeathWatch, describe_exit, within
from ._watchers import PLUGIN

Kind = Literal["crash", "flapping", "gave_up", "start_failed", "hook_failed", "plugin_failed"]

#: The longest error of a hook or a plugin that is passed on, in characters.
_LONGEST_ERROR = 500


@dataclass(frozen=True)
class Trouble:
    """Something that somebody should know of.

    Attributes:
        kind: A `Kind`, or ``well_again``, or ``test``.
        watcher: The watcher's name as in events.
        what: What has happened, to be read behind the watcher's name.
        time: When, in seconds since the epoch; 0: now.
        facts: The numbers in it, for programs.
        count: How many such have come to be one, of which this is the last.
        stopped: Whether the watcher is stopped by it.
    """

    kind: str
    watcher: str
    what: str
    time: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    count: int = 1
    stopped: bool = False


class Limits(Protocol):
    """What counts for one watcher: expected exit codes, how many deaths within how long."""

    @property
    def exit_codes(self) -> tuple[int, ...]: ...
    @property
    def attempts(self) -> int: ...
    @property
    def window(self) -> float: ...


class Troubles:
    """What circusd's events tell of troubles.

    Args:
        kill_grace: For how many seconds a kill excuses the death of its process.
        limits: Tells what counts for a watcher.
    """

    def __init__(self, kill_grace: float, limits: Callable[[str], Limits]) -> None:
        self._deaths = DeathWatch(kill_grace)
        self._limits = limits
        self._started: dict[str, bool] = {}  # of those that it is known of
        self._crashed: dict[str, float] = {}  # when, last
        self._known_at = 0.0

    def begin(self, statuses: Mapping[str, str], moment: float) -> None:
        """Begin anew with what circusd's ``status`` says; events may have been missed.

        Args:
            statuses: The state of each watcher by its name in events.
            moment: When it was so: events from before it say nothing new of starts.
        """
        self._deaths.forget()
        self._crashed.clear()
        self._started = {name: state == "active" for name, state in statuses.items()}
        self._known_at = moment

    def take(self, event: Event) -> list[Trouble]:
        """Take in an event; returns the troubles that it tells of."""
        watcher, action = event.watcher, event.action
        is_crash = self._deaths.is_crash(event)
        if watcher.startswith(PLUGIN):
            return _of_plugin(event, is_crash)
        if is_crash:
            return self._of_crash(event)
        if action == "hook_failure":
            hook, error = (_text(event.payload.get(key)) for key in ("name", "error"))
            what = f"its hook {hook} failed: {error}"
            stopped = self._started.get(watcher) is False
            facts = {"hook": hook, "error": error}
            return [Trouble("hook_failed", watcher, what, event.time, facts, stopped=stopped)]
        if action == "stop":
            return self._of_stop(event)
        if action in ("start", "add"):
            self._started[watcher] = action == "start"
        elif action == "remove":
            self._started.pop(watcher, None)
            self._crashed.pop(watcher, None)
        return []

    def _of_crash(self, event: Event) -> list[Trouble]:
        watcher, code = event.watcher, event.payload.get("exit_code")
        limits = self._limits(watcher)
        if code in limits.exit_codes:
            return []
        self._crashed[watcher] = event.time
        facts = {"pid": event.pid, "exit_code": code}
        what = f"a process (pid {event.pid}) died {describe_exit(code)}"
        found = [Trouble("crash", watcher, what, event.time, facts)]
        flap = self._deaths.count(event, limits.attempts, limits.window)
        if flap is not None:
            facts = {**facts, "deaths": flap.deaths, "seconds": flap.seconds}
            found.append(Trouble("flapping", watcher, flap.what, event.time, facts))
        return found

    def _of_stop(self, event: Event) -> list[Trouble]:
        """A watcher has stopped: because somebody wanted it, or in vain tried to start it."""
        watcher = event.watcher
        was_started = self._started.get(watcher)
        crashed = self._crashed.pop(watcher, None)
        if event.time < self._known_at:
            return []
        self._started[watcher] = False
        if was_started is False:
            what = "did not start; circusd's log says why"
            return [Trouble("start_failed", watcher, what, event.time, stopped=True)]
        if crashed is not None and within(crashed, event.time, self._limits(watcher).window):
            what = "was stopped after a crash, and not started again"
            return [Trouble("gave_up", watcher, what, event.time, stopped=True)]
        return []


def _of_plugin(event: Event, is_crash: bool) -> list[Trouble]:
    code = event.payload.get("exit_code")
    if is_crash and code != 0:
        what, facts = f"died {describe_exit(code)}", {"pid": event.pid, "exit_code": code}
    elif event.action == "failed":
        error = _text(event.payload.get("error"))
        what, facts = f"failed, and is not started again: {error}", {"error": error}
    else:
        return []
    stopped = event.action == "failed"
    return [Trouble("plugin_failed", event.watcher, what, event.time, facts, stopped=stopped)]


def _text(value: object) -> str:
    return " ".join(str(value).split())[:_LONGEST_ERROR]
