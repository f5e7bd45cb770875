# One plugin in its host, from life to life: which state it is in, and what follows what. A life
# is a runner; runners come and go, the counters and the restart policy stay.
#
# Owner: the supervising thread; other threads only ask for the `status`.

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .._config.specs import PluginSpec
from .._errors import describe
from .._logs import logger
from .._plugin.plugin_thread import PARK_WAIT
from .._plugin.status import Counters, PluginStatus
from .._runners.runner import Kind, Notice, Runner
from .restart_policy import Decision, RestartPolicy

#: How long whoever asked for a plugin's start waits until it runs, in seconds.
READY_WAIT = 2.0
#: What an isolated plugin's stop keeps of its time for signals, in seconds.
_SIGNALS = 1.0
#: How long a plugin's process is given to answer, in seconds.
_ANSWER_WAIT = 1.0
#: The shortest delay before a restart that is worth telling, in seconds.
_SHORTEST_TOLD = 0.1


@dataclass(frozen=True)
class Services:
    """What a plugin's transitions need of its host.

    Attributes:
        enqueue: Has a plugin launched when it is its turn.
        make_runner: Makes a runner for a new life, with what the one before has handed over.
        changed: To be called when a plugin's state or its next timer has changed.
        left_behind: Takes a runner whose thread does not end.
        gave_up: Told of a plugin that has failed for good, and why.
        stop_timeout: How long a stop may take, in seconds.
    """

    enqueue: Callable[[ManagedPlugin], object]
    make_runner: Callable[[PluginSpec, Counters, Any], Runner]
    changed: Callable[[ManagedPlugin], object]
    left_behind: Callable[[Runner], object]
    gave_up: Callable[[ManagedPlugin, str], object]
    stop_timeout: Callable[[], float]


class ManagedPlugin:
    """The place of one plugin in the host.

    Attributes:
        awaits_launch: Whether it waits for its turn to start.
        begun: Whether the life that is starting has got as far as its constructor.
        launched_at: When the life in it was started, in seconds of `time.monotonic`.
        started: The same in seconds since 1970.
        last_error: The last thing that went wrong, in one line.
    """

    def __init__(self, spec: PluginSpec, services: Services) -> None:
        self.spec = spec
        self.counters = Counters()
        self.runner: Runner | None = None
        self.state = "stopped" if spec.active else "inactive"
        self.awaits_launch = False
        self.begun = self._asked = False
        self.launched_at = self.started = 0.0
        self._services = services
        self._policy = RestartPolicy(spec.host)
        self.last_error: str | None = None
        self._restart_at: float | None = None
        self._start_deadline: float | None = None
        self._stop_due: float | None = None
        self._stop_deadline = 0.0
        self._then: Callable[[], object] | None = None
        self._hands_over = False
        self._state: Any = None  # what a life has handed over, until one has taken it

    # Looking.

    def status(self, is_stalled: Callable[[Runner], bool]) -> PluginStatus:
        """What it is doing, from any thread."""
        spec, runner, state = self.spec, self.runner, self.state
        counters = self.counters.copy()
        if runner is None:  # or not any more, a moment ago
            return PluginStatus(
                spec.name, spec.use_name, state, spec.isolate, counters, self.last_error
            )
        return PluginStatus(
            spec.name,
            spec.use_name,
            "stalled" if state == "running" and is_stalled(runner) else state,
            spec.isolate,
            counters,
            runner.last_error or self.last_error,
            runner.thread,
            runner.pid,
            runner.connected,
            self.started,
        )

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen in it by itself."""
        return self.runner is None and self._restart_at is None and not self.awaits_launch

    @property
    def is_alive(self) -> bool:
        """Whether it runs or will run, and is not about to stop."""
        return not self.is_over and self._stop_due is None

    def settled(self, now: float, imported: bool = False) -> bool:
        """Whether what was asked of it is done; a start counts as done when it takes long.

        Args:
            now: The time, of `time.monotonic`.
            imported: Whether such a start must have come to the constructor at least; soon after
                that it is connected.
        """
        if self.awaits_launch or self._stop_due is not None:
            return False
        due = self.settles_by(imported)
        return self.state != "starting" or (due is not None and now >= due)

    def settles_by(self, imported: bool = False) -> float | None:
        """When it counts as settled although nothing has happened; None: not before it has."""
        waits = self.awaits_launch or self._stop_due is not None or (imported and not self.begun)
        return None if waits else self.launched_at + READY_WAIT

    def next_timer(self) -> float | None:
        """When `run_timers` is due, in seconds of `time.monotonic`; None: never."""
        times = (self._restart_at, self._start_deadline, self._stop_due)
        return min((moment for moment in times if moment is not None), default=None)

    # Starting.

    def start(self) -> None:
        """Start it if it does not run; its failures are forgotten."""
        if self._stop_due is not None:
            self._then = self.start
        elif self.runner is None and not self.awaits_launch:
            self._policy = RestartPolicy(self.spec.host)
            self._enqueue()

    def launch(self) -> None:
        """Begin a life; it is its turn."""
        self.awaits_launch = self.begun = self._asked = False
        self.launched_at = time.monotonic()
        self.started = time.time()
        self._start_deadline = self.launched_at + self.spec.host.start_timeout
        try:
            self.runner = self._services.make_runner(self.spec, self.counters, self._state)
            self.runner.start()
        except Exception as error:  # noqa: BLE001 - no descriptors or threads left, for one
            self._over(f"cannot be started: {describe(error)}")
        self._services.changed(self)

    def become(self, spec: PluginSpec) -> None:
        """Go on with another specification, now that it has stopped."""
        if (spec.use, spec.isolate) != (self.spec.use, self.spec.isolate):
            self._state = None
        self.spec = spec
        self._enter("stopped" if spec.active else "inactive")
        if spec.active:
            self.start()

    def _enqueue(self) -> None:
        self._restart_at = None
        self.awaits_launch = True
        self._enter("starting")
        self._services.enqueue(self)

    # Stopping.

    def restart(self, spec: PluginSpec | None = None) -> None:
        """Stop it and begin a new life, with the state of the old one; returns at once.

        Args:
            spec: Another specification to go on with; None: the same.
        """
        then = self.start if spec is None else functools.partial(self.become, spec)
        self.stop(then, hands_over=True)

    def stop(self, then: Callable[[], object] | None = None, *, hands_over: bool = False) -> None:
        """Stop it, or its attempts to start again; returns at once.

        Args:
            then: What follows once it has stopped; it takes the place of what another stop that
                is under way would have been followed by.
            hands_over: Whether the life that follows gets the state of this one.
        """
        self._then = then
        if not hands_over:
            self._state = None
        if self._stop_due is not None:
            self._hands_over = self._hands_over and hands_over
            return
        self._hands_over = hands_over
        limit = max(self.spec.host.graceful_timeout, PARK_WAIT, self._services.stop_timeout())
        if self.begin_stop(time.monotonic() + limit):
            return
        self._stopped()

    def begin_stop(self, deadline: float) -> bool:
        """Ask the life in it to end by `deadline`; False if there is none."""
        self.awaits_launch = False
        self._restart_at = self._start_deadline = None
        runner = self.runner
        if runner is None:
            return False
        grace = self.spec.host.graceful_timeout
        longest = deadline - time.monotonic() - _SIGNALS if self.spec.isolate else grace
        self._stop_due = time.monotonic() + max(longest, PARK_WAIT)
        self._stop_deadline = deadline
        self._enter("stopping")
        runner.hands_over = self._hands_over
        runner.begin_stop(deadline)
        return True

    def finish_stop(self) -> None:
        """End the stop that `begin_stop` began; waits for what it still takes."""
        runner = self.runner
        assert runner is not None
        ended = runner.finish_stop(self._stop_deadline)
        self._stop_due = None
        self.last_error = runner.last_error or self.last_error
        self.runner = None
        if self._hands_over and runner.saved is not None:
            self._state = runner.saved
        self._hands_over = False
        if not ended:
            self._services.left_behind(runner)
        self._stopped("stopped" if ended else "abandoned")

    def _stopped(self, state: str = "stopped") -> None:
        if state == "stopped" and not self.spec.active:
            state = "inactive"
        then, self._then = self._then, None
        if state == "abandoned" or (then is None and self.state != "abandoned"):
            self._enter(state)
        if then is not None:
            then()

    # What happens meanwhile.

    def run_timers(self, now: float) -> None:
        """Do what is due: a restart, the end of a start or a stop that takes too long."""
        if self._stop_due is not None:
            if self._stop_due <= now:
                self.finish_stop()
        elif self._restart_at is not None and self._restart_at <= now:
            self.counters.restarts += 1
            self._enqueue()
        elif self._start_deadline is not None and self._start_deadline <= now:
            self._start_timed_out(now)
        self._services.changed(self)

    def handle(self, notice: Notice) -> None:
        """Take in what its runner said."""
        kind = notice.kind
        stopping = self._stop_due is not None
        if kind is Kind.STALLED:
            self._stalls_in_its_process(notice.error or "")
        elif stopping:
            if kind in (Kind.PARKED, Kind.ENDED):
                self.finish_stop()
        elif kind is Kind.BEGUN:
            self.begun = True
        elif kind is Kind.RUNNING:
            self.begun = True
            self._start_deadline = self._state = None
            self._policy.running()
            self._enter("running")
        elif kind is Kind.WAITING:
            self.begun = True
            self._start_deadline = None
            self._enter("waiting")
        elif kind is Kind.STOP_ASKED:
            logger.info("%s stops of its own accord", self.spec.name)
            runner = notice.runner
            self.stop(then=lambda: self._over(runner.failure))
        elif kind is Kind.TOO_MANY_ERRORS:
            self.stop(then=lambda: self._too_many_errors(notice.error or "too many errors"))
        elif kind is Kind.ENDED:
            self._ended(notice)

    def _ended(self, notice: Notice) -> None:
        notice.runner.run_handle_stop()
        if notice.retry:
            self.runner = None
            self._enqueue()
        elif notice.permanent:
            self._gave_up(notice.error or "failed")
        else:
            self._over(notice.error)

    def _too_many_errors(self, error: str) -> None:
        if self.spec.host.on_error == "stop":
            self._gave_up(f"{error} (host.on_error = stop)")
        else:
            self._over(error)

    def stalls(self, seconds: float, stack: str) -> None:
        """Note that one of its callbacks runs for too long, here for `seconds` so far."""
        self.last_error = f"stalled: a callback runs for more than {seconds:.3g} s"
        logger.warning(
            "%s has been busy with one callback for %.3g s; it is at\n%s",
            self.spec.name,
            seconds,
            stack,
        )
        self.counters.stalls += 1  # last: who waits for it finds the rest done
        self._services.changed(self)

    def _stalls_in_its_process(self, stack: str) -> None:
        self.stalls(self.spec.host.stall_timeout, stack)
        runner = self.runner
        if self.spec.host.on_stall == "restart" and runner is not None and self._stop_due is None:
            runner.abandon()
            self._over(self.last_error)

    def _start_timed_out(self, now: float) -> None:
        runner = self.runner
        seconds = self.spec.host.start_timeout
        if runner is None or runner.running:
            self._start_deadline = None  # its notice is on the way
            return
        if self.spec.isolate and not self._asked:
            self._asked = True
            runner.refresh()  # only its process knows whether it is connected
            self._start_deadline = now + _ANSWER_WAIT
            return
        if runner.awaits_circusd:
            # It may well wait for circusd, which is no failure of the plugin.
            self._asked = False
            self._start_deadline = now + seconds
            self._enter("waiting")
            return
        logger.error(
            "%s is not initialised after %.3g s; it is at\n%s",
            self.spec.name,
            seconds,
            runner.stack(),
        )
        runner.abandon()
        self._services.left_behind(runner)
        self._over(f"not initialised after {seconds:g} s")

    # After a life.

    def _over(self, error: str | None) -> None:
        """A life has ended by itself: begin another, or leave it at that."""
        if error is not None:
            self.last_error = error  # first: who finds no runner looks for it here
        self.runner = self._state = None
        self._start_deadline = None
        decision = self._policy.ended(clean=error is None)
        if decision.restart:
            self._back_off(decision, error)
        elif decision.gave_up:
            self._gave_up(error or "failed")
        elif self.state != "abandoned":
            self._enter("stopped")

    def _back_off(self, decision: Decision, error: str | None) -> None:
        name, delay = self.spec.name, max(_SHORTEST_TOLD, decision.delay)
        if error is None:
            logger.info("%s has ended; it starts again in %.1f s", name, delay)
        else:
            logger.error("%s has failed: %s; it starts again in %.1f s", name, error, delay)
        self._restart_at = time.monotonic() + decision.delay
        self._enter("backoff")

    def _gave_up(self, error: str) -> None:
        self.runner = self._state = None
        self._start_deadline = None
        self.last_error = error
        failures = f" after {self._policy.failures} failures" if self._policy.failures > 1 else ""
        logger.error("%s has failed for good%s: %s", self.spec.name, failures, error)
        self._enter("failed")
        self._services.gave_up(self, error)

    def _enter(self, state: str) -> None:
        self.state = state
        self._services.changed(self)
