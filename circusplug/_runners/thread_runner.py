# The runner that gives a plugin a thread of this process.
#
# Owner: `_main` runs on the plugin's thread and is the only writer of `_instance`,
# `_failure` and the counters; everything else is called on the supervising thread.

from __future__ import annotations

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
from .._plugin.hints import hint_for
from .._plugin.load import load_checked
from .._plugin.owner import CircusdAway, Owner, Phase
from .._plugin.plugin_thread import PluginThread
from .._plugin.worker import Worker
from .._status import Counters
from .._wire.endpoints import Link
from .runner import Kind, Notice, Surroundings

_NOTICES = {
    Phase.WAITING: Kind.WAITING,
    Phase.RUNNING: Kind.RUNNING,
    Phase.PARKED: Kind.PARKED,
}


class ThreadRunner(Owner):
    """One life of one plugin, on a thread of its own."""

    def __init__(self, spec: PluginSpec, around: Surroundings, counters: Counters) -> None:
        self.spec = spec
        self.counters = counters
        self._around = around
        self._failure: str | None = None
        self._permanent = self._retry = False
        self._instance: Any = None
        self._errors = 0
        self._worker: Worker | None = None
        self._thread: PluginThread | None = None

    def start(self) -> None:
        worker = self._worker = Worker(
            self.spec.name,
            replace(self._around.link, max_message=self.spec.host.max_message),
            counters=self.counters,
            owner=self,
        )
        worker.loop.selector.on_wake = self._around.activity
        thread = PluginThread(worker, lambda: self._main(worker))
        try:
            thread.start()
        except RuntimeError as error:
            worker.loop.close()
            raise CircusPlugError(f"no thread for it: {error}") from error
        self._thread = thread

    def begin_stop(self, deadline: float) -> None:
        if self._thread is not None:
            self._thread.begin_stop(self.spec.host.graceful_timeout, deadline)

    def finish_stop(self, deadline: float) -> bool:
        return self._thread is None or self._thread.finish_stop(deadline, self.run_handle_stop)

    def run_handle_stop(self) -> None:
        """Run the plugin's `stop`, and by it `handle_stop`, on the calling thread."""
        if self._worker is not None:
            self._worker.stopper = threading.get_ident()
        if self._instance is not None:
            self._contain(lambda: self._around.guard(self._instance.stop))

    def run_own_stop(self, stop: Callable[[], object]) -> None:
        self._contain(stop)

    def _contain(self, stop: Callable[[], object]) -> None:
        with _logs.speaking(self.spec.name):
            try:
                stop()
            except KeyboardInterrupt:
                raise  # it is not the plugin's
            except BaseException as error:  # noqa: BLE001 - the others are to be stopped
                if self._worker is not None:
                    self._worker.last_error = f"handle_stop: {describe(error)}"
                _logs.logger.exception("%s: handle_stop failed", self.spec.name)
                self._around.hooks.on_exception(self.spec.name, error)
                self.counters.errors += 1  # last: who waits for it finds the rest done

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

    def _note_lag(self, asked: float) -> None:
        self.counters.lag = max(self.counters.lag, time.monotonic() - asked)

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
        if worker.abandoned:
            worker.stopper = threading.get_ident()
            self.run_own_stop(plugin.stop)
            return
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
        if phase is Phase.RUNNING and self._around.activity is not None:
            self._around.activity()  # the loop's first round does not wait, so it tells nobody
        if phase in _NOTICES:
            self._notify(_NOTICES[phase])

    def exception_contained(self, error: BaseException, what: str) -> None:
        self._around.hooks.on_exception(self.spec.name, error)
        self._errors += 1
        if self.spec.host.on_error != "continue" and self._errors == self.spec.host.max_errors:
            self._notify(Kind.TOO_MANY_ERRORS, f"{what}: {describe(error)}")

    def circusd_missed(self, logger: logging.Logger, link: Link) -> None:
        """The host tells of it, once for all its plugins."""

    def stop_requested(self) -> None:
        self._notify(Kind.STOP_ASKED)

    def _notify(self, kind: Kind, error: str | None = None) -> None:
        self._around.notify(Notice(self, kind, error, self._permanent, self._retry))
