# The runner that gives a plugin a process of its own. The process itself is child_process.py's;
# here is what its reports mean, and what the supervisor is told of them.
#
# Owner: the supervising thread calls what is in `Runner`; reports come on the reading thread, and
# `_launch` runs on a thread of its own. All of them change `_life` under `_changed` alone, and
# do what follows from it after that.

from __future__ import annotations

import enum
import signal
import threading
import time
from dataclasses import dataclass, field
from operator import add
from typing import Any

from .._config.specs import PluginSpec
from .._errors import describe
from .._logs import logger, set_plugin_level
from .._plugin.status import Counters
from .._runners.runner import Kind, Notice, Surroundings
from . import messages
from .child_main import LAST_WAIT
from .child_output import lowest_level
from .child_process import ChildProcess
from .forkserver import describe_status
from .launch import launch_for
from .pipes import Pipes

#: How long a signal is given before the next one, and a killed process to be gone, in seconds.
_SIGNAL_WAIT = 1.0
_KILL_WAIT = 2.0
#: What part of the time for stopping is kept for the signals, if a second is more than that.
_SIGNAL_PART = 0.25
#: What a signal has in any case, and a process to stop by itself, in seconds.
_SIGNAL_LEAST = 0.02
_STOP_LEAST = 0.5
#: How long a process may take to answer, beyond what the plugin may take, in seconds.
_ANSWER_WAIT = 0.5
_ORPHANED = "the forkserver died"
_KINDS = {
    messages.Begun: Kind.BEGUN,
    messages.Running: Kind.RUNNING,
    messages.Waiting: Kind.WAITING,
}


class _Stage(enum.Enum):
    NEW = "new"
    LAUNCHING = "launching"
    ALIVE = "alive"
    ENDED = "ended"


@dataclass
class _Life:
    """What is known of one life.

    Attributes:
        told: What the supervisor was told that comes once in a life.
        state: The last report of how it is doing.
        stack: The answer to `AskStack`.
        said: What the process said of its end.
        parked: Whether it has said that it is the turn of `handle_stop`.
        stop_asked_at: When it was asked to stop; 0.0 if it was not.
        stop_by: When it shall have stopped.
        state_asked_at: When it was asked for its state, if it has not answered yet; or 0.0.
        paused_at: When a signal stopped it; 0.0 if it is not stopped.
        next_stall: When the next report of a stall may come.
        given_up: Whether it is to be killed as soon as it is there.
        failure: Why it has ended.
    """

    stage: _Stage = _Stage.NEW
    told: set[Kind] = field(default_factory=set)
    state: messages.State | None = None
    stack: str | None = None
    said: messages.Ended | None = None
    parked: bool = False
    stop_asked_at: float = 0.0
    stop_by: float = 0.0
    state_asked_at: float = 0.0
    paused_at: float = 0.0
    next_stall: float = 0.0
    given_up: bool = False
    failure: str | None = None

    @property
    def is_over(self) -> bool:
        return self.stage is _Stage.ENDED


class ProcessRunner:
    """One life of one plugin, in a process of its own.

    Args:
        state: What the life before has handed over, in JSON; None: nothing.
        only_check: See `messages.Launch`.
    """

    def __init__(
        self,
        spec: PluginSpec,
        around: Surroundings,
        counters: Counters,
        pipes: Pipes,
        state: str | None = None,
        *,
        only_check: bool = False,
    ) -> None:
        self.spec = spec
        self.hands_over = False
        self.saved: str | None = None
        self._state = state
        self._only_check = only_check
        self.counters = counters
        self._around = around
        self._reader = pipes.reader
        self._counted_before = counters.copy()
        self._child = ChildProcess(spec.name, pipes, self)
        self._changed = threading.Condition()
        self._life = _Life()
        self._refreshed = threading.Event()

    # What a host asks for.

    def start(self) -> None:
        set_plugin_level(self.spec.name, self.spec.host.loglevel)
        self._life.stage = _Stage.LAUNCHING
        # On a thread: a forkserver that hangs shall not make the host hang.
        name = f"start:{self.spec.name}"
        threading.Thread(target=self._launch, name=name, daemon=True).start()

    def begin_stop(self, deadline: float) -> None:
        now = time.monotonic()
        life = self._life
        with self._changed:
            if life.stage not in (_Stage.LAUNCHING, _Stage.ALIVE):
                return
            first = not life.stop_asked_at
            life.stop_asked_at = life.stop_asked_at or now
            life.stop_by = deadline if first else min(deadline, life.stop_by)
            if life.stage is _Stage.ALIVE:  # else it is told when it is
                self._child.send(self._stop_order())
        if first:
            self._reader.call_at(self._park_by(), self._look_whether_it_parks)

    def finish_stop(self, deadline: float) -> bool:
        self.begin_stop(deadline)
        life = self._life
        if life.stage is _Stage.NEW:
            return True
        for_signals = _for_signals(deadline)
        last = max(life.stop_asked_at + _STOP_LEAST, deadline - for_signals)
        if self._wait(lambda: life.is_over or life.parked, min(last, self._park_by())):
            self._wait(lambda: life.is_over, last)
        if life.stage is _Stage.ALIVE:
            logger.error(
                "%s is still busy after %.3g s; sending %s",
                self.spec.name,
                time.monotonic() - life.stop_asked_at,
                signal.Signals(self.spec.host.stop_signal).name,
            )
            self._child.signal(self.spec.host.stop_signal)
            self._wait(lambda: life.is_over, time.monotonic() + for_signals)
        if life.stage is _Stage.ALIVE:
            logger.error("%s does not end; killing it", self.spec.name)
        if not life.is_over:
            self.abandon()
        return life.is_over

    def abandon(self) -> None:
        with self._changed:
            self._life.given_up = True
            alive = self._life.stage is _Stage.ALIVE
        if alive:
            self._child.kill()
            self._wait(lambda: self._life.is_over, time.monotonic() + _KILL_WAIT)

    def run_handle_stop(self) -> None:
        """Nothing to do: its process has done it, or is gone."""

    def stack(self) -> str:
        life = self._life
        with self._changed:
            life.stack = None
        self._child.send(messages.AskStack())
        self._wait(lambda: life.is_over or life.stack is not None, time.monotonic() + _ANSWER_WAIT)
        if (stack := self._life.stack) is not None or self._life.is_over:
            return stack or ""
        if life.paused_at:
            return "  (its process is stopped by a signal)"
        return "  (its process does not answer: it is being set up, or a C function keeps its lock)"

    def refresh(self) -> threading.Event | None:
        life = self._life
        with self._changed:
            if Kind.BEGUN not in life.told or life.is_over:
                return None
            self._refreshed.clear()
            life.state_asked_at = life.state_asked_at or time.monotonic()
        self._child.send(messages.AskState())
        return self._refreshed

    def measure_lag(self) -> None:
        """Nothing to do: its process measures for itself."""

    def log_level_changed(self) -> None:
        self._child.send(messages.LogLevel(lowest_level(self.spec)))

    @property
    def failure(self) -> str | None:
        return self._life.failure

    @property
    def running(self) -> bool:
        return Kind.RUNNING in self._life.told and not self._life.is_over

    @property
    def connected(self) -> bool:
        state = self._life.state
        return state is not None and state.connected and not self._life.is_over

    @property
    def awaits_circusd(self) -> bool:
        state = self._life.state
        return state is not None and state.awaits_circusd and not self._life.is_over

    @property
    def last_error(self) -> str | None:
        state = self._life.state
        return self._life.failure or (state.last_error if state is not None else None)

    @property
    def thread(self) -> threading.Thread | None:
        return None

    @property
    def pid(self) -> int | None:
        return None if self._life.is_over else self._child.pid

    @property
    def busy_since(self) -> float:
        """As its process has told; one that does not answer is busy since it was asked."""
        life = self._life
        told = life.state.busy_since if life.state is not None else 0.0
        return told or life.paused_at or life.state_asked_at

    @property
    def instance(self) -> object | None:
        return None

    # Starting, on a thread of its own.

    def _launch(self) -> None:
        try:
            launch = launch_for(self.spec, self._around, self._state, self._only_check)
            # A little longer than it gives itself, see child_main.py.
            longest = max(launch.host.graceful_timeout, launch.stop_timeout)
            self._child.launch(launch, longest + 2 * LAST_WAIT)
        except Exception as error:  # noqa: BLE001 - whatever it is, this plugin has failed
            self._end(f"its process cannot be started: {describe(error)}")
            return
        with self._changed:
            if not self._life.is_over:  # it may have ended already
                self._life.stage = _Stage.ALIVE
            if self._life.stop_asked_at:
                self._child.send(self._stop_order())
            given_up = self._life.given_up
        if given_up:
            self._child.kill()

    # On the reading thread.

    def heard(self, report: Any) -> None:
        """Take in what the process has said; see `Listener`."""
        life = self._life
        with self._changed:
            if isinstance(report, messages.State):
                self._count(report)
            elif isinstance(report, messages.Stack):
                life.stack = report.stack
            elif isinstance(report, messages.Saved):
                self.saved = report.state
            elif isinstance(report, messages.Parked):
                life.parked = True
            elif isinstance(report, messages.Ended):
                life.said = report
            self._changed.notify_all()
        if type(report) in _KINDS:
            self._tell_once(_KINDS[type(report)])
        elif isinstance(report, messages.TooManyErrors):
            self._tell_once(Kind.TOO_MANY_ERRORS, report.error)
        elif isinstance(report, messages.Stalled):
            self.keeps_still(report.stack)

    def keeps_still(self, stack: str) -> None:
        """Tell that one of its callbacks runs for too long; see `Listener`."""
        now = time.monotonic()
        if now >= self._life.next_stall:  # the next one cannot come any sooner: it is no stall
            self._life.next_stall = now + self.spec.host.stall_timeout
            self._around.notify(Notice(self, Kind.STALLED, stack))

    def paused(self, is_paused: bool) -> None:
        """Note that a signal has stopped the process, or that it goes on; see `Listener`."""
        now = time.monotonic()
        self._life.paused_at = now if is_paused else 0.0
        allowed = self.spec.host.stall_timeout
        if is_paused and allowed:
            self._reader.call_at(now + allowed, lambda: self._look_whether_paused(now))

    def _look_whether_paused(self, since: float) -> None:
        if self._life.paused_at == since and self.running:
            self.keeps_still("  (its process is stopped by a signal)")

    def _look_whether_it_parks(self) -> None:
        """Have `finish_stop` called if the process does not even answer: it need not wait."""
        if not self._life.parked and not self._life.is_over:
            self._tell_once(Kind.PARKED)

    def orphaned(self) -> None:
        """Have the process stop; if it does not, kill it. See `Listener`."""
        grace = self.spec.host.graceful_timeout
        self._child.send(messages.Stop(grace))
        self._reader.call_at(time.monotonic() + grace + _SIGNAL_WAIT, self._child.kill)

    def ended(self, status: int | None) -> None:
        """Take in the end of the process; see `Listener`."""
        said = self._life.said
        if status is None:
            error = said.error if said is not None else None
            if said is None or not self._life.stop_asked_at:
                error = error or _ORPHANED
        elif said is not None and status >= 0:
            error = said.error
        else:
            error = describe_status(status)
        self._end(error)

    def _end(self, error: str | None) -> None:
        life = self._life
        with self._changed:
            if life.is_over:
                return
            life.stage = _Stage.ENDED
            life.failure = error
            said = life.said or messages.Ended(None, permanent=False, retry=False)
            self._changed.notify_all()
        self._refreshed.set()
        self._around.notify(Notice(self, Kind.ENDED, error, said.permanent, said.retry))

    def _count(self, state: messages.State) -> None:
        self._life.state = state
        self._life.state_asked_at = 0.0
        before = self._counted_before
        self.counters.lag = max(before.lag, state.lag)
        self.counters.lag_sum = before.lag_sum + state.lag_sum
        self.counters.lag_counts = tuple(map(add, before.lag_counts, state.lag_counts))
        for name in messages.COUNTED:  # last: who waits for one of them finds the rest done
            count = getattr(before, name) + getattr(state, name)
            setattr(self.counters, name, count)
        self._refreshed.set()

    def _tell_once(self, kind: Kind, error: str | None = None) -> None:
        """Tell the supervisor what happens once in a life; a process may say it for ever."""
        with self._changed:
            if kind in self._life.told or self._life.is_over:
                return
            self._life.told.add(kind)
        self._around.notify(Notice(self, kind, error))

    # From any thread.

    def _wait(self, predicate: Any, until: float) -> bool:
        with self._changed:
            return bool(self._changed.wait_for(predicate, max(0.0, until - time.monotonic())))

    def _stop_order(self) -> messages.Stop:
        by = self._life.stop_by
        seconds = max(0.0, by - _for_signals(by) - time.monotonic())
        return messages.Stop(seconds, self.hands_over)

    def _park_by(self) -> float:
        """When a process that answers has said that it is the turn of `handle_stop`."""
        life = self._life
        grace_end = life.stop_asked_at + self.spec.host.graceful_timeout
        return min(grace_end, life.stop_by) + _ANSWER_WAIT


def _for_signals(deadline: float) -> float:
    """What is kept for signals of the time until then, in seconds."""
    part = (deadline - time.monotonic()) * _SIGNAL_PART
    return min(_SIGNAL_WAIT, max(_SIGNAL_LEAST, part))
