# The runner that gives a plugin a thread of this process.
#
# Owner: `_main` runs on the plugin's thread and is the only writer of `_instance`,
# `_failure` and the counters; everything else is called on the supervising thread, which
# sets `_given_up` once.

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .. import _logs
from .._config.specs import PluginSpec
from .._errors import CallError, CircusPlugError, PluginLoadError, SpecError
from .._plugin.construction import worker_for_construction
from .._plugin.load import load_plugin_class
from .._plugin.worker import Phase, Worker, describe
from .._status import Counters
from .runner import Kind, Notice, Surroundings

#: How long a cancelled coroutine handler, and at least a thread's end, is waited for, in seconds.
_SHORT_WAIT = 0.5
#: How long the thread of a plugin that has stopped may take to end if there is time, in seconds.
#: It only closes its sockets, which takes long on a busy machine alone.
_END_WAIT = 5.0


class ThreadRunner:
    """One life of one plugin, on a thread of its own."""

    def __init__(self, spec: PluginSpec, around: Surroundings, counters: Counters) -> None:
        self.spec = spec
        self.counters = counters
        self._failure: str | None = None
        self._permanent = False
        self._around = around
        self._instance: Any = None
        self._errors = 0
        self._given_up = False
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None
        self._worker: Worker | None = None

    def prepare(self) -> None:
        """Nothing to do: a thread is there at once."""

    def start(self, connect_wait: float) -> None:
        worker = self._worker = Worker(
            self.spec.name,
            replace(self._around.link, connect_wait=connect_wait),
            counters=self.counters,
            hosted=True,
            on_phase=self._on_phase,
            on_error=self._on_error,
            on_stop_request=lambda: self._notify(Kind.STOP_ASKED),
        )
        worker.loop.selector.on_wake = self._around.activity
        # A daemon, because one that is stuck must not keep the process from ending.
        self._thread = threading.Thread(
            target=self._main, args=(worker,), name=f"plugin:{self.spec.name}", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads
            self._failure = f"no thread for it: {error}"
            worker.loop.close()
            self._ready.set()
            self._notify(Kind.ENDED, self._failure)

    def wait_ready(self, timeout: float) -> bool:
        return self._ready.wait(timeout)

    def park(self) -> None:
        if self._worker is not None:
            self._worker.park()

    def rush(self, limit: float) -> None:
        self.park()  # its handle_stop has to wait for its turn on the host's thread

    def wait_parked(self, timeout: float) -> bool:
        """Wait until a parked plugin does nothing any more; False if that takes longer."""
        return self._worker is None or self._worker.parked.wait(timeout)

    def stop(self, grace: float, limit: float = 0.0) -> bool:
        worker, thread = self._worker, self._thread
        if worker is None or thread is None:
            return True
        began = time.monotonic()
        worker.park()
        if not worker.parked.wait(grace):
            worker.cancel_in_hand()
            if not worker.parked.wait(min(grace, _SHORT_WAIT)):
                _logs.logger.error(
                    "%s is still busy after %.3g s and is left behind; it is at\n%s",
                    self.spec.name,
                    grace,
                    self.stack(),
                )
                worker.abandoned = True
                worker.client.refuse("the plugin's thread is stuck and was left behind")
        self.run_handle_stop()
        worker.end()
        if not worker.abandoned:
            left = began + limit - time.monotonic()
            thread.join(max(_SHORT_WAIT, min(left, _END_WAIT)))
            if thread.is_alive():
                _logs.logger.error(
                    "%s has stopped, but its thread does not end and is left behind; it is at\n%s",
                    self.spec.name,
                    self.stack(),
                )
        return not thread.is_alive()

    def run_handle_stop(self) -> None:
        """Run the plugin's `stop`, and by it `handle_stop`, on the calling thread."""
        self._run_stop(self._around.guard)

    def _run_stop(self, guard: Callable[[Callable[[], object]], object]) -> None:
        if self._instance is None:
            return
        if self._worker is not None:
            self._worker.stopper = threading.get_ident()
        with _logs.speaking(self.spec.name):
            try:
                guard(self._instance.stop)
            except KeyboardInterrupt:
                raise  # it is not the plugin's
            except BaseException as error:  # noqa: BLE001 - the others are to be stopped
                if self._worker is not None:
                    self._worker.last_error = f"handle_stop: {describe(error)}"
                _logs.logger.exception("%s: handle_stop failed", self.spec.name)
                self.counters.errors += 1  # last: who waits for it finds the rest done

    def abandon(self) -> None:
        self._given_up = True
        if self._worker is not None:
            self._worker.park()
            self._worker.end()

    def stack(self) -> str:
        thread = self._thread
        frame = sys._current_frames().get(thread.ident or 0) if thread is not None else None
        return "".join(traceback.format_stack(frame)).rstrip() if frame is not None else ""

    def refresh(self) -> None:
        """Nothing to do, and nothing to wait for: the counters are the plugin's own."""

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
    def last_error(self) -> str | None:
        return self._failure or (self._worker.last_error if self._worker else None)

    @property
    def thread(self) -> threading.Thread | None:
        return self._thread if self._thread is not None and self._thread.is_alive() else None

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

    def ping(self) -> None:
        """Measure how long the plugin's loop takes to come round to a callback."""
        if self._worker is not None:
            self._worker.loop.post(self._pong, time.monotonic())

    def _pong(self, sent: float) -> None:
        self.counters.lag = max(self.counters.lag, time.monotonic() - sent)

    # On the plugin's thread.

    def _main(self, worker: Worker) -> None:
        with _logs.speaking(self.spec.name):
            try:
                self._live(worker)
            except SystemExit as error:
                if error.code not in (None, 0):
                    self._failure = f"left by sys.exit({error.code!r})"
            except CircusPlugError as error:
                # Its text says it all, and the supervisor logs it. Not so where a plugin's call
                # failed, or what an import ran into.
                self._permanent = isinstance(error, SpecError)
                called = isinstance(error, CallError)
                self._failure = describe(error) if called else str(error)
                if called or error.__cause__ is not None:
                    worker.logger.error("cannot start", exc_info=error.__cause__ or error)
            except BaseException as error:
                self._failure = describe(error)
                worker.logger.exception("cannot start")
            finally:
                if not worker.loop.is_closed():
                    worker.loop.close()
                worker.parked.set()
                self._ready.set()
                self._notify(Kind.ENDED, self._failure)

    def _live(self, worker: Worker) -> None:
        config = self._around.config
        plugin_class = load_plugin_class(self.spec.use, self.spec.where)
        with worker_for_construction(worker):
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
        if self._given_up:
            self._run_stop(lambda stop: stop())
            return
        plugin.active = True  # the host has looked at it; some drop their config on the way up
        plugin.start()
        if worker.phase is Phase.NEW:
            raise PluginLoadError(
                f"{self.spec.place}: the start() of {self.spec.use_name} must call super().start()"
            )

    def _on_phase(self, phase: Phase) -> None:
        if phase is Phase.RUNNING:
            self._ready.set()
            self._notify(Kind.RUNNING)
            if self._around.activity is not None:
                self._around.activity()  # the loop's first round does not wait, so it tells nobody
        elif self._given_up and phase in (Phase.PARKED, Phase.ENDED):
            # It has come through after all. Nobody waits for it any more, so it stops itself.
            self._given_up = False
            self._run_stop(lambda stop: stop())

    def _on_error(self, error: BaseException, what: str) -> None:
        self._errors += 1
        if self.spec.host.on_error != "continue" and self._errors == self.spec.host.max_errors:
            self._notify(Kind.TOO_MANY_ERRORS, f"{what}: {describe(error)}")

    def _notify(self, kind: Kind, error: str | None = None) -> None:
        self._around.notify(Notice(self, kind, error, self._permanent))
