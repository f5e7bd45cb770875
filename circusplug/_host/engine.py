# One run of a host, from its set-up until everything is given back: the supervising thread,
# and the mailbox by which all others, and signal handlers, reach it.
#
# Owner: the supervising thread (the one that calls `run`, or the one that `run_aside` makes)
# alone changes what the supervisor holds, but that after `run_aside` the first to call `stop`
# takes its place. Everyone else puts orders into the mailbox. `_lock` guards the change from
# running to stopping, `_closing` who of several callers closes, `_moving` the way to circusd.

from __future__ import annotations

import concurrent.futures
import enum
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from .._config.specs import HostConfig
from .._errors import HostError, describe
from .._logs import logger
from .._loop.mailbox import Mailbox
from .._plugin.stop_guard import StopGuard
from .._runners.runner import Hooks, Notice, Surroundings
from .._signals import relay
from . import resources
from .config_difference import where_circusd_is
from .managed_plugin import ManagedPlugin
from .orders import Order, PendingOrders, log_failure
from .runner_factory import RunnerFactory
from .signals import HostSignals
from .supervisor import Supervisor
from .systemd_notify import SystemdNotify

#: How many messages are taken in before timers have their turn.
_MESSAGES_AT_ONCE = 100


class _Signal(enum.Enum):
    STOP = "stop"
    RELOAD = "reload"
    WATCH = "watch"
    REACHABLE = "reachable"  # circusd's endpoints can be connected to: there is a way


class Engine:
    """Runs one host, once.

    Args:
        config: What to host.
        factory: Makes the runners; it is opened and closed here.
        exit_when_done: Whether to end when no plugin is left that runs.
        on_reload: Called on the supervising thread for a SIGHUP; must not wait.
        on_change: Told of each plugin whose state has changed; of None if more has, and at the end.
        hooks: What the plugins' threads tell somebody.
        systemd: Told what happens to the host.
    """

    def __init__(
        self,
        config: HostConfig,
        factory: RunnerFactory,
        exit_when_done: bool,
        on_reload: Callable[[], object],
        on_change: Callable[[ManagedPlugin | None], object],
        hooks: Hooks,
        systemd: SystemdNotify,
    ) -> None:
        self._config = config
        self._exit_when_done = exit_when_done
        self._on_reload = on_reload
        self._on_change = on_change
        self._hooks = hooks
        self._systemd = systemd
        self._lock = threading.Lock()
        self._closing = threading.Lock()
        self._moving = threading.Lock()
        self._mailbox: Mailbox[Notice | Order | _Signal] = Mailbox()
        self._pending = PendingOrders()
        self._factory = factory
        self.check_users = factory.check_users
        self._guard = StopGuard(config.stop_timeout)
        self._supervisor: Supervisor | None = None
        self._aside: threading.Thread | None = None
        self._supervising = threading.get_ident()
        self._stop_asked = self._started = False
        self._all_ended = False
        self._closed_by_stop = False
        self._ready = threading.Event()
        self.over = threading.Event()  # all is given back
        #: Done when the host is about to stop: nobody waits for anything else any more.
        self.ends: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._failure: str | None = None

    # Running.

    def run(self) -> None:
        """Host the plugins on the calling thread's watch, until stopped.

        Raises:
            HostError: The host cannot be set up.
        """
        self._set_up()
        mailbox = self._mailbox
        signals = HostSignals(
            lambda: mailbox.put(_Signal.STOP), lambda: mailbox.put(_Signal.RELOAD)
        )
        try:
            with signals.installed(mailbox.wakeup_fd), relay.served(self._take_signal):
                try:
                    self._supervise()
                finally:
                    self._close()
        finally:
            self._give_back_mailbox()  # not sooner: the signal handlers write there

    def run_aside(self) -> None:
        """Host the plugins on a thread of its own; returns when each is ready, or too slow.

        Raises:
            HostError: The host cannot be set up.
        """
        self._set_up()
        thread = threading.Thread(target=self._run_aside, name="circusplug-arbiter", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads
            self._close_aside()
            raise HostError(f"no thread for the host: {error}") from error
        self._aside = thread  # not any sooner, as `stop` joins it
        try:
            self._ready.wait()
            if self.failure is not None and not self._started:
                raise HostError(self.failure)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop every plugin; from any thread, any number of times. Returns when all is over.

        `handle_stop` runs on the thread of `run`; on the calling one after `run_aside`.
        """
        # On a thread that it would have to wait for, it does not wait.
        within = self.supervises_here or self.in_plugin_thread
        with self._lock:
            self._stop_asked = True
            aside = None if within else self._aside
            self._closed_by_stop = self._closed_by_stop or aside is not None
        self._mailbox.put(_Signal.STOP)
        if aside is not None:
            aside.join()
            with self._closing:
                if not self.over.is_set():
                    self._close_aside()
        elif not within:
            self.over.wait()

    def fail(self, reason: str) -> None:
        """Have the host stop because of a failure; from any thread, returns at once."""
        with self._lock:
            if self._stop_asked:
                return
            self._failure = reason
        self._mailbox.put(_Signal.STOP)

    def order(self, action: Callable[[Supervisor], tuple[Any, Sequence[ManagedPlugin]]]) -> Any:
        """Have something done on the supervising thread, and return what it returns.

        It is done when the plugins that it concerns have started or stopped. On a plugin's own
        thread, in a `handle_stop` and on the supervising thread None is returned at once: the
        order may well be to stop this very plugin.

        Raises:
            HostError: The host has stopped, or is not set up yet.
        """
        order = Order(action, concurrent.futures.Future())
        with self._lock:
            self.refuse_if_over()
            self._mailbox.put(order)
        if self.may_wait:
            return order.done.result()
        order.done.add_done_callback(log_failure)
        return None

    def reconfigure(self, config: HostConfig, edited: Collection[str]) -> list[str]:
        """Change to another configuration; what is done, a line each. Raises as `order`.

        The plugins named in `edited` start again in any case. Only where `may_wait` is true.
        """
        with self._moving:
            if where_circusd_is(config) == where_circusd_is(self.supervisor.config):
                return self._change(config, None, edited)
            with self._factory.moved(config) as link:
                return self._change(config, link, edited)

    def _change(self, config: HostConfig, link: Any, edited: Collection[str]) -> list[str]:
        def change(supervisor: Supervisor) -> tuple[list[str], Sequence[ManagedPlugin]]:
            self._guard.seconds = config.stop_timeout
            todo, plugins = supervisor.reconfigure(config, link, edited)
            return todo.lines, plugins

        return list(self.order(change))

    def refuse_if_over(self) -> None:
        """Raise as `order` does."""
        if not self.is_set_up:
            raise HostError("the arbiter has not been started")
        if self._stop_asked:
            raise HostError("the host has stopped")

    # Looking, from any thread.

    @property
    def supervisor(self) -> Supervisor:
        """Who knows the plugins.

        Raises:
            HostError: The host is not set up yet.
        """
        if self._supervisor is None:
            raise HostError("the arbiter has not been started")
        return self._supervisor

    @property
    def is_set_up(self) -> bool:
        """Whether there is a supervisor."""
        return self._supervisor is not None

    @property
    def failure(self) -> str | None:
        """Why the host stopped by itself, or None."""
        return self._failure or (self._supervisor.failure if self._supervisor else None)

    @property
    def supervises_here(self) -> bool:
        """Whether the caller is the supervising thread, on which each `handle_stop` runs, too."""
        return self._supervising == threading.get_ident()

    @property
    def in_plugin_thread(self) -> bool:
        """Whether the caller runs on a plugin's thread."""
        return self._supervisor is not None and self._supervisor.owns_current_thread

    @property
    def may_wait(self) -> bool:
        """Whether the caller's thread is not needed for what it would wait for."""
        return not (self.supervises_here or self.in_plugin_thread)

    def _take_signal(self, number: int) -> None:
        """Have a signal handed on to plugins; from any thread."""

        def install(_: Supervisor) -> tuple[None, tuple[()]]:
            relay.install(number)
            return None, ()

        self._mailbox.put(Order(install, concurrent.futures.Future()))

    # On the supervising thread.

    def _set_up(self) -> None:
        try:
            resources.refuse_while_importing_main()
            resources.raise_descriptor_limit(len(self._config.plugins))
            resources.start_forkserver_for(self._config)
            link = self._factory.open(
                on_up=lambda: self._mailbox.put(_Signal.REACHABLE),
                on_failed=self.fail,
                on_quit=lambda: self._mailbox.put(_Signal.STOP),
            )
        except BaseException:
            self._give_back(all_ended=True)
            self._give_back_mailbox()
            raise
        mailbox = self._mailbox
        self._supervisor = Supervisor(
            self._config,
            Surroundings(self._config, link, mailbox.put, guard=self._guard.run, hooks=self._hooks),
            self._factory.make,
            lambda: mailbox.put(_Signal.WATCH),
            self._on_change,
            self._systemd,
        )

    def _run_aside(self) -> None:
        self._supervising = threading.get_ident()
        try:
            self._supervise()
        except BaseException as error:  # noqa: BLE001 - then the plugins are stopped
            logger.exception("the host has failed")
            self._failure = describe(error)
        finally:
            self._ready.set()
        with self._lock:
            closes = not self._closed_by_stop
        if closes:  # it stopped by itself; whoever calls `stop` later has nothing to do
            self._close_aside()

    def _close_aside(self) -> None:
        try:
            self._close()
        finally:
            self._give_back_mailbox()

    def _supervise(self) -> None:
        """Start the plugins when there is a way to circusd, and look after them until a stop."""
        names = ", ".join(spec.name for spec in self._config.plugins if spec.active)
        logger.info("hosting %s", names or "no plugin")
        supervisor = self.supervisor
        while not self._stop_asked:
            supervisor.run_timers()
            self._pending.settle()
            done = self._exit_when_done and self._started and supervisor.all_over
            if supervisor.failure or done:
                break
            self._take_in()

    def _take_in(self) -> None:
        """Wait for messages or the next timer, and take in what has come."""
        wait = self._time_left()
        for _ in range(_MESSAGES_AT_ONCE):
            item = self._mailbox.get(wait)
            wait = 0.0
            if isinstance(item, Notice):
                self.supervisor.handle(item)
            elif isinstance(item, Order):
                self._carry_out(item)
            elif item is _Signal.REACHABLE:
                self._start_plugins()
            elif item is _Signal.WATCH:
                self.supervisor.begin_watch()
            elif item is _Signal.RELOAD:
                self._on_reload()
            elif item is _Signal.STOP:
                self._stop_asked = True
            if item is None or self._stop_asked:
                return

    def _start_plugins(self) -> None:
        self._started = True
        ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        ready.add_done_callback(lambda _: self._ready.set())
        ready.add_done_callback(lambda _: self._systemd.ready())
        plugins = self.supervisor.start_all()
        self._pending.add(ready, None, plugins)
        self._pending.add(self._factory.listening, None, plugins, imported=True)

    def _time_left(self) -> float | None:
        moments = self.supervisor.next_timer(), self._pending.next_look()
        due = min((moment for moment in moments if moment is not None), default=None)
        return None if due is None else max(0.0, due - time.monotonic())

    def _carry_out(self, order: Order) -> None:
        try:
            value, plugins = order.action(self.supervisor)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            order.done.set_exception(error)
        else:
            self._pending.add(order.done, value, plugins)

    def _close(self) -> None:
        """Stop the plugins on the calling thread and give everything back."""
        self._supervising = threading.get_ident()
        with self._lock:
            self._stop_asked = True  # no order comes in from here on
        self.ends.set_result(None)
        self._systemd.stopping()
        waiting = self._pending.give_up()
        while (item := self._mailbox.get(0.0)) is not None:
            if isinstance(item, Order):
                waiting.append(item.done)
        for done in waiting:  # its thread may be one that a handle_stop waits for
            done.set_exception(HostError("the host has stopped"))
        self._guard.begin(time.monotonic() + self.supervisor.config.stop_timeout)
        try:
            self.supervisor.stop_all()
        finally:
            self._give_back(self.supervisor.all_ended)
        logger.info("all plugins are stopped")

    def _give_back(self, all_ended: bool) -> None:
        self._factory.close(all_ended)
        self._all_ended = all_ended
        self.over.set()
        self._on_change(None)

    def _give_back_mailbox(self) -> None:
        if self._all_ended:  # else threads left behind may still use it; it goes with the process
            self._mailbox.close()
