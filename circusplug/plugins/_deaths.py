# Decides when a watcher's processes die too often. No sockets, no threads, no clock: time is
# what the events say, so a backlog that is read late is judged as it happened.

from __future__ import annotations

import signal
from collections import deque
from dataclasses import dataclass

from circusplug import Event


@dataclass(frozen=True)
class Flap:
    """A watcher whose processes died too often.

    Attributes:
        watcher: Its name as in events.
        deaths: How many processes died.
        seconds: Within which time.
        last: The event of the last death.
    """

    watcher: str
    deaths: int
    seconds: float
    last: Event

    @property
    def what(self) -> str:
        """What has happened, to be read behind the watcher's name."""
        code = self.last.payload.get("exit_code")
        processes = "process" if self.deaths == 1 else "processes"
        return (
            f"{self.deaths} {processes} died within {self.seconds:.3g} s, "
            f"the last one (pid {self.last.pid}) {describe_exit(code)}"
        )

    def describe(self, name: str) -> str:
        """Say it in a line, with the watcher's real name."""
        return f"{name}: {self.what}"


class DeathWatch:
    """Counts the deaths of each watcher that circusd did not ask for.

    circusd publishes ``kill`` when it signals a process, be it for a stop, a reload or because
    of its age; the ``reap`` that follows is no crash. As a signal need not end a process (HUP,
    for one), a ``kill`` excuses a death for a limited time only.

    Args:
        kill_grace: For how many seconds a kill excuses the death of its process.
    """

    def __init__(self, kill_grace: float) -> None:
        self._kill_grace = kill_grace
        self._deaths: dict[str, deque[float]] = {}
        self._killed: dict[int, float] = {}  # when, by pid; the oldest first

    def is_crash(self, event: Event) -> bool:
        """Take in an event; whether it is a death that circusd did not ask for."""
        pid = event.pid
        if event.action == "kill" and pid is not None:
            self._remember_kill(pid, event.time)
        elif event.action == "spawn" and pid is not None:
            self._killed.pop(pid, None)  # a new process that got an old number
        elif event.action == "remove":
            self._deaths.pop(event.watcher, None)
        return event.action == "reap" and not self._was_asked_for(pid, event.time)

    def count(self, event: Event, attempts: int, window: float) -> Flap | None:
        """Count a crash; the watcher's `Flap` if that was one death too many.

        The count begins anew after that.

        Args:
            event: The crash.
            attempts: How many deaths are too many.
            window: Within how many seconds.
        """
        deaths = self._deaths.setdefault(event.watcher, deque())
        while deaths and not within(deaths[0], event.time, window):
            deaths.popleft()
        deaths.append(event.time)
        if len(deaths) < attempts:
            return None
        del self._deaths[event.watcher]
        return Flap(event.watcher, len(deaths), event.time - deaths[0], event)

    def forget(self) -> None:
        """Begin anew, for events may have been missed."""
        self._deaths.clear()
        self._killed.clear()

    def _remember_kill(self, pid: int, moment: float) -> None:
        self._killed.pop(pid, None)
        self._killed[pid] = moment
        while not within(
            self._killed[oldest := next(iter(self._killed))], moment, self._kill_grace
        ):
            del self._killed[oldest]

    def _was_asked_for(self, pid: int | None, moment: float) -> bool:
        killed = self._killed.pop(pid, None) if pid is not None else None
        return killed is not None and within(killed, moment, self._kill_grace)


def within(earlier: float, later: float, seconds: float) -> bool:
    """Whether both moments are that near; false if a clock was set back between them."""
    return 0 <= later - earlier <= seconds


def describe_exit(code: object) -> str:
    """How a process died, as a ``reap`` event has it in ``exit_code``."""
    if not isinstance(code, int):
        return "in a way that circusd did not see"
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"of {signal.Signals(-code).name}"
    except ValueError:
        return f"of signal {-code}"
