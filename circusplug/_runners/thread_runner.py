# The runner that gives a plugin a thread of this process.
#
# Owner: `_main` runs on the plugin's thread and is the only writer of `_instance`,
# `_failure` and the counters; everything else is called on the supervising thread.

from __future__ import annotations

import inspect
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .. import _logs
from .._config.specs import PluginSpec
from .._errors import CallError, CircusPlugError, PluginLoadError, SpecError, describe
from .._loop.forks import end_of_forked
from .._plugin.construction import worker_for_construction
from .._plugin.edited_code import remember
from .._plugin.hints import hint_for
from .._plugin.load import load_checked, module_of
from .._plugin.owner import CircusdAway, Owner, Phase
from .._plugin.plugin_thread import PluginThread
from .._plugin.status import Counters
from .._plugin.worker import Worker
from .._wire.endpoints import Link
from .runner import Kind, Notice, Surroundings

_NOTICES = {
    Phase.WAITING: Kind.WAITING,
    Phase.RUNNING: Kind.RUNNING,
    Phase.PARKED: Kind.PARKED,
}


class ThreadRunner(Owner):
    """One life of one plugin, on a thread of its own.

    Args:
        state: What the life before has handed over; None: nothing.
    """

    def __init__(
        self, spec: PluginSpec, around: Surroundings, counters: Counters, state: Any = None
    ) -> None:
        self.spec = spec
        self.counters = counters
        self.hands_over = self._initialized = False
        self.saved: Any = None
        self._state = state
        self._around = around
        self._failure: str | None = None
        self._permanent = self._retry = False
        self._instance: Any = None
        self._errors = 0
        self._worker: Worker | None = None
        self._thread: PluginThread | None = None

    def start(self) -> None:
        _logs.set_plugin_level(self.spec.name, self.spec.host.loglevel)
        worker = self._worker = self._around.hooks.make_worker(
            self.spec.name,
            replace(self._around.link, max_message=self.spec.host.max_message),
            counters=self.counters,
            owner=self,
        )
        worker.loop.selector.on_wake = self._around.activity
        # Known before it starts: the plugin may ask its host to stop before `start` returns.
        self._thread = PluginThread(worker, lambda: self._main(worker))
        try:
            self._thread.start()
        except RuntimeError as error:
            worker.loop.close()
            raise CircusPlugError(f"no thread for it: {error}") from error

    def begin_stop(self, deadline: float) -> None:
        if self._thread is not None:
            self._thread.begin_stop(self.spec.host.graceful_timeout, deadline)

    def finish_stop(self, deadline: float) -> bool:
        return self._thread is None or self._thread.finish_stop(deadline, self._stop_and_save)

    def _stop_and_save(self) -> None:
        """Run `handle_stop` and then `get_state`: what it still counts, or gives away, counts."""
        worker = self._worker
        stopped = self._stop_plugin() and worker is not None and not worker.abandoned
        if self.hands_over and stopped and self._initialized and self._can_hand_over:
            self._contain(lambda: self._around.guard(self._save), "get_state")

    def _save(self) -> None:
        self.saved = _refuse_async(self._instance.get_state())

    @property
    def _can_hand_over(self) -> bool:
        """Whether it has both methods; one alone may be anything."""
        names = ("get_state", "set_state")
        return all(callable(getattr(self._instance, name, None)) for name in names)

    def run_handle_stop(self) -> None:
        """Run the plugin's `stop`, and by it `handle_stop`, on the calling thread."""
        self._stop_plugin()

    def _stop_plugin(self) -> bool:
        if self._worker is not None:
            self._worker.stopper = threading.get_ident()
        instance = self._instance
        return instance is None or self._contain(lambda: self._around.guard(instance.stop))

    def run_own_stop(self, stop: Callable[[], object]) -> None:
        self._contain(stop)

    def _contain(self, call: Callable[[], object], what: str = "handle_stop") -> bool:
        """Call a method of the plugin; False if it has failed, which is told of."""
        with _logs.speaking(self.spec.name):
            try:
                call()
            except KeyboardInterrupt:
                raise  # it is not the plugin's
            except BaseException as error:  # noqa: BLE001 - the others are to be stopped
                if self._worker is not None:
                    self._worker.last_error = f"{what}: {describe(error)}"
                _logs.logger.exception("%s: %s failed", self.spec.name, what)
                self._around.hooks.on_exception(self.spec.name, error)
                self.counters.errors += 1  # last: who waits for it finds the rest done
                return False
        return True

    def abandon(self) -> None:
        if self._worker is not None:
            self._worker.abandon()

    def stack(self) -> str:
        return self._thread.stack() if self._thread is not None else ""

    def refresh(self) -> None:
        """Nothing to do, and nothing to wait for: the counters are the plugin's own."""

    def measure_lag(self) -> None:
        if self._worker is not None:
            self._worker.loop.post(self._note_lag, time.monotonic())

    def log_level_changed(self) -> None:
        """Nothing to do: this process's log is that of the host."""

    def _note_lag(self, asked: float) -> None:
        self.counters.note_lag(time.monotonic() - asked)

    @property
    def failure(self) -> str | None:
        return self._failure

    @property
    def running(self) -> bool:
        return self._worker is not None and self._worker.phase is Phase.RUNNING

    @property
    def connected(self) -> bool:
        return self._worker is not None and self._worker.connected

    @property
    def awaits_circusd(self) -> bool:
        worker = self._worker
        return worker is not None and worker.phase is Phase.STARTING and not worker.connected

    @property
    def last_error(self) -> str | None:
        return self._failure or (self._worker.last_error if self._worker else None)

    @property
    def thread(self) -> threading.Thread | None:
        return self._thread.thread if self._thread is not None else None

    @property
    def pid(self) -> int | None:
        return os.getpid() if self.thread is not None else None

    @property
    def busy_since(self) -> float:
        return self._worker.loop.selector.busy_since if self._worker is not None else 0.0

    @property
    def instance(self) -> object | None:
        instance: object | None = self._instance
        return instance

    # On the plugin's thread.

    def _main(self, worker: Worker) -> None:
        with _logs.speaking(self.spec.name):
            try:
                self._live(worker)
            except SystemExit as error:
                if error.code not in (None, 0):
                    self._failed(error, f"left by sys.exit({error.code!r})")
            except CircusdAway as error:
                self._retry = True
                self._failure = str(error)
            except CircusPlugError as error:
                # Its text says it all, and the supervisor logs it. Not so where a plugin's call
                # failed, or what an import ran into.
                self._permanent = isinstance(error, SpecError)
                called = isinstance(error, CallError)
                self._failed(error, describe(error) if called else str(error))
                if called or error.__cause__ is not None:
                    worker.logger.error("cannot start", exc_info=error.__cause__ or error)
            except BaseException as error:
                self._failed(error, describe(error))
                worker.logger.exception("cannot start")
            finally:
                if not worker.loop.is_closed():
                    worker.loop.close()
                worker.parked.set()
                self._notify(Kind.ENDED, self._failure)

    def _failed(self, error: BaseException, text: str) -> None:
        hint = hint_for(error)
        self._failure = f"{text}; {hint}" if hint else text
        self._around.hooks.on_exception(self.spec.name, error)

    def _live(self, worker: Worker) -> None:
        config = self._around.config
        plugin_class = load_checked(self.spec)
        begun = worker_for_construction(worker, lambda: self._notify(Kind.BEGUN))
        with begun, end_of_forked():
            plugin = plugin_class(
                config.endpoint,
                config.pubsub_endpoint,
                config.check_delay,
                config.ssh_server,
                **self.spec.config,
            )
        if getattr(plugin, "_circusplug_worker", None) is not worker:
            raise PluginLoadError(
                f"{self.spec.place}: the __init__ of {self.spec.use_name} must call "
                "super().__init__(*args, **config)"
            )
        self._instance = plugin
        self._around.hooks.on_constructed(self.spec.name, plugin)
        plugin.active = True  # the host has looked at it; some drop their config on the way up
        try:
            plugin.start()
        except BaseException:
            if worker.abandoned:  # and there is nobody else to clean up what its constructor made
                worker.stopper = threading.get_ident()
                self.run_own_stop(plugin.stop)
            raise
        if worker.phase is Phase.NEW:
            raise PluginLoadError(
                f"{self.spec.place}: the start() of {self.spec.use_name} must call super().start()"
            )

    def phase_entered(self, phase: Phase) -> None:
        if phase is Phase.RUNNING:
            if (module := module_of(self.spec)) is not None:
                remember(module)  # again: `handle_init` may have imported more
            if self._around.activity is not None:
                self._around.activity()  # the loop's first round does not wait: it tells nobody
        if phase in _NOTICES:
            self._notify(_NOTICES[phase])

    def initialized(self) -> None:
        """Give it what the life before has handed over: `handle_init` would have begun anew."""
        worker, state, self._state = self._worker, self._state, None
        self._initialized = True
        if state is not None and worker is not None and self._can_hand_over:
            set_state = self._instance.set_state
            self._contain(
                lambda: _refuse_async(worker.loop.call_directly(set_state, state)), "set_state"
            )

    def exception_contained(self, error: BaseException, what: str) -> None:
        self._around.hooks.on_exception(self.spec.name, error)
        self._errors += 1
        if self.spec.host.on_error != "continue" and self._errors == self.spec.host.max_errors:
            self._notify(Kind.TOO_MANY_ERRORS, f"{what}: {describe(error)}")

    def circusd_missed(self, logger: logging.Logger, link: Link) -> None:
        """The host looks for itself, once for all its plugins (_host/endpoint_check.py)."""

    def stop_requested(self) -> None:
        self._notify(Kind.STOP_ASKED)

    def _notify(self, kind: Kind, error: str | None = None) -> None:
        self._around.notify(Notice(self, kind, error, self._permanent, self._retry))


def _refuse_async(result: Any) -> Any:
    """Return what a method returned, unless it is one that has to be awaited."""
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError("it cannot be async; make it a plain function")
    return result
