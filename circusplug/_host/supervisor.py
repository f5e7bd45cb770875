# Keeps a host's plugins in the state that was asked for: ordered start, restarts, stalls,
# live changes, reverse stop. It decides and calls runners; it does not wait for signals or
# messages itself (that is the engine).
#
# Owner: everything is called on the supervising thread, but `statuses`, `slot_names` and
# `instance`, which read under `_lock`; the supervising thread changes `_slots` under it.

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from .._config.specs import PLUGIN_PREFIX, HostConfig, PluginSpec
from .._errors import HostError
from .._logs import logger
from .._plugin.worker import describe
from .._runners.runner import Kind, Notice, Runner, Surroundings
from .._runners.stall_watch import StallWatch
from .._status import Counters, PluginStatus
from .._wire.endpoints import Link
from .managed_plugin import Slot
from .resources import raise_descriptor_limit
from .restart_policy import Decision, RestartPolicy

#: How long the start of one plugin keeps the next one waiting, in seconds.
ORDERED_WAIT = 2.0

#: How long a plugin may always take to park, in seconds: one that is idle needs a moment, too.
_PARK_WAIT = 0.25

#: How long isolated plugins may take to stop once the time for all of them is over, in seconds.
_RUSH_WAIT = 0.5

#: How long all isolated plugins together may take to tell their counters, in seconds.
_REFRESH_WAIT = 0.25

MakeRunner = Callable[[PluginSpec, Surroundings, Counters], Runner]


class Supervisor:
    """Runs the plugins of one host."""

    def __init__(
        self,
        config: HostConfig,
        around: Surroundings,
        make_runner: MakeRunner,
        wake: Callable[[], object],
        changed: Callable[[], object],
    ) -> None:
        self.config = config
        self.failure: str | None = None
        self._left_behind: list[Runner] = []
        self.watch = StallWatch(wake)
        self._around = replace(around, activity=self.watch.activity)
        self._make_runner = make_runner
        self._changed = changed
        self._slots: dict[str, Slot] = {}
        self._lock = threading.Lock()
        for spec in config.plugins:
            self._slots[spec.name] = Slot(spec)

    # Reading, from any thread.

    def statuses(self) -> dict[str, PluginStatus]:
        """What each plugin is doing, by name, in the order of their start."""
        with self._lock:
            slots = list(self._slots.values())
        runners = [slot.runner for slot in slots]  # a slot's may be gone a moment later
        asked = [runner.refresh() for runner in runners if runner is not None]
        deadline = time.monotonic() + _REFRESH_WAIT
        for fresh in asked:
            if fresh is not None:
                fresh.wait(max(0.0, deadline - time.monotonic()))
        return {slot.spec.name: slot.status(self.watch.is_stalled) for slot in slots}

    def instance(self, name: str) -> object | None:
        """The plugin object, if it lives in this process."""
        runner = self._slot(name).runner
        return runner.instance if runner is not None else None

    @property
    def owns_current_thread(self) -> bool:
        """Whether the caller runs on a plugin's thread."""
        with self._lock:
            runners = [slot.runner for slot in self._slots.values()]
        here = threading.current_thread()
        return any(runner is not None and runner.thread is here for runner in runners)

    # Starting.

    def start_all(self, interrupted: Callable[[], bool]) -> None:
        """Start every active plugin, each after the one before it is ready, or is too slow.

        The process of the next one is made meanwhile.
        """
        slots = list(self._slots.values())
        for slot, following in itertools.zip_longest(slots, slots[1:]):
            if interrupted():
                return
            if self._may_start(slot):
                self._launch(slot, following)

    def _may_start(self, slot: Slot) -> bool:
        """Whether nobody has removed or stopped it meanwhile, or started it already."""
        return self._slots.get(slot.spec.name) is slot and slot.awaits_start

    def _launch(self, slot: Slot, following: Slot | None = None) -> None:
        slot.awaits_start = False
        slot.restart_at = None
        slot.start_deadline = time.monotonic() + slot.spec.host.start_timeout
        slot.link = self._around.link
        connect_wait = self._connect_wait()
        slot.runner, slot.prepared = slot.prepared, None  # from here on its notices are heard
        try:
            if slot.runner is None or slot.runner.wait_ready(0.0):  # or it has ended already
                slot.runner = self._make_runner(slot.spec, self._around, slot.counters)
            self._enter(slot, "starting")
            slot.runner.start(connect_wait)
        except Exception as error:  # noqa: BLE001 - no descriptors left, for one
            self._over(slot, f"cannot be started: {describe(error)}")
            return
        if following is not None and self._may_start(following):
            self._prepare(following)
        if not slot.runner.wait_ready(min(ORDERED_WAIT, slot.spec.host.start_timeout)):
            logger.warning("%s is slow to start; not waiting for it", slot.spec.name)
        elif slot.runner.running:
            self._runs(slot)  # its notice may come a moment after it was waited for

    def _runs(self, slot: Slot) -> None:
        if slot.state == "starting":
            slot.start_deadline = None
            slot.policy.running()
            self._enter(slot, "running")

    def _prepare(self, slot: Slot) -> None:
        # If that fails it fails again when it is this plugin's turn, and is told of then.
        with contextlib.suppress(Exception):
            slot.prepared = self._make_runner(slot.spec, self._around, slot.counters)
            slot.prepared.prepare()

    def _connect_wait(self) -> float:
        """How long a new plugin waits; not at all for a circusd that no other one has found."""
        others = [
            slot.runner
            for slot in self._slots.values()
            if slot.runner is not None and slot.link is self._around.link
        ]
        if not others or any(runner.connected for runner in others):
            return self._around.link.connect_wait
        return 0.0

    def _enter(self, slot: Slot, state: str) -> None:
        slot.state = state
        self._changed()

    # What happens meanwhile.

    def next_timer(self) -> float | None:
        """When `run_timers` is due, in seconds of `time.monotonic`; None: never."""
        times = [self.watch.next_look]
        for slot in self._slots.values():
            times += [slot.restart_at, slot.start_deadline]
        return min((moment for moment in times if moment is not None), default=None)

    def run_timers(self) -> None:
        """Do what is due: restarts, starts that take too long, stalls."""
        now = time.monotonic()
        for slot in list(self._slots.values()):
            if slot.restart_at is not None and slot.restart_at <= now:
                slot.counters.restarts += 1
                self._launch(slot)
            elif slot.start_deadline is not None and slot.start_deadline <= now:
                if slot.runner is not None and slot.runner.running:
                    slot.start_deadline = None  # its notice has not been taken in yet
                else:
                    self._start_timed_out(slot)
        for runner, seconds in self.watch.look(self._threads()):
            self._stalled(runner, seconds, runner.stack())

    def begin_watch(self) -> None:
        """Watch for stalls from now on; what to do after `wake`."""
        self.watch.begin(self._threads())

    def handle(self, notice: Notice) -> None:
        """Take in what a runner said."""
        slot = next((s for s in self._slots.values() if s.runner is notice.runner), None)
        if slot is None:
            return
        if notice.kind is Kind.RUNNING:
            self._runs(slot)
        elif notice.kind is Kind.STALLED:
            self._stalled(notice.runner, slot.spec.host.stall_timeout, notice.error or "")
        elif notice.kind is Kind.ENDED:
            notice.runner.run_handle_stop()
            if notice.permanent:
                slot.last_error = notice.error
                self._gave_up(slot, notice.error or "failed")
            else:
                self._over(slot, notice.error)
        elif notice.kind is Kind.STOP_ASKED:
            logger.info("%s stops of its own accord", slot.spec.name)
            self._end(slot)
            self._over(slot, notice.runner.failure)
        elif notice.kind is Kind.TOO_MANY_ERRORS:
            self._end(slot)
            slot.last_error = notice.error
            if slot.spec.host.on_error == "stop":
                self._gave_up(slot, f"{notice.error} (host.on_error = stop)")
            else:
                self._over(slot, notice.error or "too many errors")

    def _over(self, slot: Slot, error: str | None) -> None:
        """A life has ended by itself: start another, or leave it at that."""
        if error is not None:
            slot.last_error = error  # first: who finds no runner looks for it here
        slot.runner = None
        slot.start_deadline = None
        decision = slot.policy.ended(clean=error is None)
        if decision.restart:
            self._back_off(slot, decision, error)
        elif decision.gave_up:
            self._gave_up(slot, error or "failed")
        elif slot.state != "abandoned":
            self._enter(slot, "stopped")

    def _back_off(self, slot: Slot, decision: Decision, error: str | None) -> None:
        name, delay = slot.spec.name, max(0.1, decision.delay)
        if error is None:
            logger.info("%s has ended; it starts again in %.1f s", name, delay)
        else:
            logger.error("%s has failed: %s; it starts again in %.1f s", name, error, delay)
        slot.restart_at = time.monotonic() + decision.delay
        self._enter(slot, "backoff")

    def _gave_up(self, slot: Slot, error: str) -> None:
        slot.runner = None
        slot.start_deadline = None
        failures = f" after {slot.policy.failures} failures" if slot.policy.failures > 1 else ""
        logger.error("%s has failed for good%s: %s", slot.spec.name, failures, error)
        if slot.spec.host.critical:
            self.failure = f"{slot.spec.name} is critical and has failed for good: {error}"
        self._enter(slot, "failed")

    def _start_timed_out(self, slot: Slot) -> None:
        assert slot.runner is not None
        seconds = slot.spec.host.start_timeout
        logger.error(
            "%s is not initialised after %.3g s; it is at\n%s",
            slot.spec.name,
            seconds,
            slot.runner.stack(),
        )
        slot.runner.abandon()
        self._leave_behind(slot.runner)
        self._over(slot, f"not initialised after {seconds:g} s")

    def _leave_behind(self, runner: Runner) -> None:
        """Remember a thread that does not end; those that have ended meanwhile are forgotten."""
        self._left_behind = [
            each for each in (*self._left_behind, runner) if each.thread is not None
        ]

    def _stalled(self, runner: Runner, seconds: float, stack: str) -> None:
        slot = next((s for s in self._slots.values() if s.runner is runner), None)
        if slot is None:
            return
        slot.last_error = f"stalled: a callback runs for more than {seconds:.3g} s"
        logger.warning(
            "%s has been busy with one callback for %.3g s; it is at\n%s",
            slot.spec.name,
            seconds,
            stack,
        )
        slot.counters.stalls += 1  # last: who waits for it finds the rest done
        if slot.spec.isolate and slot.spec.host.on_stall == "restart":
            runner.abandon()
            self._over(slot, slot.last_error)
        self._changed()

    def _threads(self) -> list[Runner]:
        """The runners to be watched from here; a process watches its own."""
        runners = [slot.runner for slot in self._slots.values()]
        return [item for item in runners if item is not None and not item.spec.isolate]

    # Stopping.

    def stop_all(self) -> None:
        """Stop all plugins in reverse order of their start, within `stop_timeout` in all."""
        deadline = time.monotonic() + max(self.config.stop_timeout, _PARK_WAIT)
        hurry = rush = False
        interrupted: KeyboardInterrupt | None = None
        slots = list(reversed(self._slots.values()))
        for index, slot in enumerate(slots):
            slot.restart_at = None
            left = max(0.0, deadline - time.monotonic())
            if left <= _PARK_WAIT and not rush:
                rush = True  # those in processes of their own can do it at the same time
                for other in slots[index:]:
                    if other.runner is not None:
                        other.runner.rush(_RUSH_WAIT)
            began = time.monotonic()
            try:
                ended = self._end(slot, left)
            except KeyboardInterrupt as error:
                # A host in the background has no signal handlers. One Ctrl-C shall not cost
                # the other plugins their stop; a second one gets through.
                interrupted = error
                ended = self._end(slot, left)
            if ended:
                self._enter(slot, "stopped" if slot.spec.active else "inactive")
            if not hurry and time.monotonic() - began >= min(_grace(slot.spec), left):
                # One has used up its time, so the others share what is left: let them all
                # finish what they have in hand at the same time. Parking takes a moment, so a
                # plugin that is not stuck must not find the deadline past.
                hurry = True
                deadline = max(deadline, time.monotonic() + _PARK_WAIT)
                for other in slots[index + 1 :]:
                    if other.runner is not None:
                        other.runner.park()
        if interrupted is not None:
            raise interrupted

    def _end(self, slot: Slot, limit: float | None = None) -> bool:
        """Stop the life in a slot; False if there was nothing to stop, or it is left behind."""
        runner = slot.runner
        slot.start_deadline = None
        if slot.prepared is not None:
            slot.prepared.stop(_PARK_WAIT, _RUSH_WAIT)
            slot.prepared = None
        if runner is None:
            return slot.state == "backoff"
        self._enter(slot, "stopping")
        grace = _grace(slot.spec)
        if limit is None:
            limit = max(grace, self.config.stop_timeout)
        stopped = runner.stop(min(grace, limit), limit)
        slot.last_error = runner.last_error or slot.last_error
        slot.runner = None
        if not stopped:
            self._leave_behind(runner)
            self._enter(slot, "abandoned")
        return stopped

    # Live changes.

    def start_plugin(self, name: str) -> None:
        """Start a plugin that does not run; its failures are forgotten."""
        slot = self._slot(name)
        if slot.runner is None:
            slot.policy = RestartPolicy(slot.spec.host)
            self._launch(slot)

    def stop_plugin(self, name: str) -> None:
        """Stop a plugin, or the attempts to restart it."""
        slot = self._slot(name)
        slot.restart_at = None
        slot.awaits_start = False
        if self._end(slot) or slot.state == "failed":
            self._enter(slot, "stopped")

    def restart_plugin(self, name: str) -> None:
        """Stop a plugin if it runs and start a new instance."""
        self.stop_plugin(name)
        self.start_plugin(name)

    def add_plugin(self, spec: PluginSpec) -> None:
        """Add a plugin, after all others in the order of start, and start it if active."""
        if spec.name in self._slots:
            raise HostError(f"there is a plugin named {spec.name!r} already")
        slot = Slot(spec)
        with self._lock:
            self._slots[spec.name] = slot
        self._configured()
        if spec.active:
            raise_descriptor_limit(len(self._slots))
            self._launch(slot)

    def remove_plugin(self, name: str) -> None:
        """Stop a plugin and forget it."""
        slot = self._slot(name)
        self.stop_plugin(name)
        with self._lock:
            del self._slots[slot.spec.name]
        self._configured()

    def reconfigure(
        self, config: HostConfig, link: Link | None, interrupted: Callable[[], bool]
    ) -> list[str]:
        """Bring the plugins to what `config` says, touching only those that differ.

        Args:
            config: The new configuration; if circusd is elsewhere now, all plugins differ.
            link: What to connect to in that case; None: what it was.
            interrupted: Whether the host is to stop; then the rest is left as it is.

        Returns:
            What was done, a line each.
        """
        wanted = {spec.name: spec for spec in config.plugins}
        done = []
        relinked = _told(config) != _told(self.config)
        self.config = replace(config, plugins=self.config.plugins)
        if relinked:
            self._around = replace(self._around, config=self.config, link=link or self._around.link)
        for name in [name for name in self._slots if name not in wanted]:
            self.remove_plugin(name)
            done.append(f"removed {name}")
        for name, spec in wanted.items():
            if interrupted():
                return done
            slot = self._slots.get(name)
            if slot is not None and slot.spec == spec and not relinked:
                if slot.state == "failed":  # what it lacked may be there by now
                    self.start_plugin(name)
                    done.append(f"tried {name} again")
                continue
            if slot is not None:
                self.remove_plugin(name)
            self.add_plugin(spec)
            done.append(f"{'changed' if slot is not None else 'added'} {name}")
        with self._lock:
            self._slots = {name: self._slots[name] for name in wanted}
        self._configured()
        return done

    def _configured(self) -> None:
        specs = tuple(slot.spec for slot in self._slots.values())
        self.config = replace(self.config, plugins=specs)
        self._changed()

    def _slot(self, name: str) -> Slot:
        with self._lock:
            slot = self._slots.get(name) or self._slots.get(name.removeprefix(PLUGIN_PREFIX))
            known = ", ".join(self._slots)
        if slot is None:
            raise HostError(f"there is no plugin named {name!r}; there are: {known or 'none'}")
        return slot

    @property
    def all_over(self) -> bool:
        """Whether no plugin runs, and none will by itself."""
        return all(slot.is_over for slot in self._slots.values())

    @property
    def all_ended(self) -> bool:
        """Whether no plugin runs any more, nor any thread that was left behind."""
        stopped = all(slot.runner is None for slot in self._slots.values())
        return stopped and all(runner.thread is None for runner in self._left_behind)


def _grace(spec: PluginSpec) -> float:
    return max(spec.host.graceful_timeout, _PARK_WAIT)


def _told(config: HostConfig) -> tuple[object, ...]:
    """What every plugin is told of the host: a change of it concerns them all."""
    return config.endpoint, config.pubsub_endpoint, config.check_delay, config.ssh_server
