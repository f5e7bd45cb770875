# One plugin's life on the current thread: connect, init, receive, park, close.
#
# It knows nothing of threads, processes or how a plugin was made: a plugin is an object with
# handle_init, initialize, handle_recv, handle_connect and handle_reconnect.
#
# Owner: the thread that calls `run`. Other threads may call `park`, `abandon`, `end`,
# `request_stop` and `stop_plugin`, and read `phase` and `counters`. `_lock` guards `_stop_due`
# and `abandoned`, so that `handle_stop` runs once.

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import zmq

from .._errors import CircusPlugError, SpecError, describe
from .._logs import Repeats
from .._loop import forks
from .._loop.plugin_loop import PluginLoop
from .._wire.endpoints import Link, command_socket
from .._wire.events import PREFIX
from .client import Client
from .event_connection import Connection
from .late_circusd import Wait, is_away
from .owner import CircusdAway, Hooks, Owner, Phase, tell_garbage, tell_too_large
from .receiver import Frames, Receiver, without_plugins
from .status import Counters

#: How long cancelled tasks may take to end when a plugin is parked, in seconds.
TASK_GRACE = 1.0
#: How long `stop()` of a plugin without a host waits for the plugin's thread, in seconds.
STOP_WAIT = 5.0


class Worker:
    """Runs one plugin on the thread that calls `run`.

    Args:
        name: The plugin's name, for messages.
        link: What to connect to.
        counters: Where to count; a new instance of a plugin goes on with the old one's.
        owner: Who will stop it, run `handle_stop` and then call `end`; None: it does so itself.
    """

    #: What it is made of; the test kit has others, see testing/_virtual_worker.py.
    loop_class: type[PluginLoop] = PluginLoop
    client_class = Client
    receiver_class = Receiver

    def __init__(
        self,
        name: str,
        link: Link | None = None,
        *,
        counters: Counters | None = None,
        owner: Owner | None = None,
    ) -> None:
        self.name = name
        self.link = link or Link()
        self.logger = logging.getLogger(
            f"circusplug.plugin.{name}" if name else "circusplug.plugin"
        )
        self.counters = counters or Counters()
        self.owner = owner
        self.connected = False
        self.last_error: str | None = None
        self._repeats = Repeats()
        self.phase = Phase.NEW
        self.parked = threading.Event()
        self.ended = threading.Event()
        #: Whether its owner waits for it no longer. Then it runs its own `handle_stop`, if that
        #: is still to be done, and ends.
        self.abandoned = False
        #: The thread that runs `handle_stop`, if it has an owner.
        self.stopper: int | None = None
        self.loop = self.loop_class()
        self.loop.set_exception_handler(self._callback_failed)
        self.client = self.client_class(
            self.loop,
            lambda: self.make_dealer(self.link.endpoint),
            self.counters,
            self.logger,
            self.link.max_message,
            (lambda: self.make_dealer(self.link.door)) if self.link.door else None,
        )
        self._connection = Connection(self._given_up)
        self._receiver = self.receiver_class(
            self.loop,
            self._connection,
            self.counters,
            self._contain,
            functools.partial(tell_garbage, self._repeats, self.logger),
            self._link_changed,
        )
        self._context: zmq.Context[Any] | None = None
        self._plugin: Hooks | None = None
        self._observer: Callable[[bytes], object] | None = None
        self._lock = threading.Lock()
        self._stop_due = False
        self._park_asked = False
        self._looping = self._forked = False
        self._was_connected = False
        self._wait = Wait()
        self._thread: int | None = None

    # On the plugin's thread.

    def run(
        self,
        plugin: Hooks,
        topics: Iterable[bytes] = (PREFIX,),
        ignore_plugins: bool = False,
        stop: Callable[[], object] = lambda: None,
    ) -> None:
        """Live the plugin's life: returns when it is stopped and closed.

        Args:
            plugin: What to run.
            topics: The prefixes to subscribe to.
            ignore_plugins: Leave out the events of circusd's own plugin watchers.
            stop: Runs the plugin's `handle_stop`, where that is not its owner's to do.

        Raises:
            CircusdAway: `handle_init` failed while circusd could not be reached. It can be
                reached now, or the plugin is to be stopped.
        """
        self._plugin = plugin
        self._thread = threading.get_ident()
        self._enter(Phase.STARTING)
        asyncio.set_event_loop(self.loop)
        forks.on_fork(self._disown)
        ended_by: BaseException | None = None
        try:
            self._connect(topics)
            if not self._park_asked:  # else it was stopped, or given up, before it began
                self._initialize(plugin)
                if self.owner is not None:
                    self.owner.initialized()
                with self._lock:
                    self._stop_due = True
                self._enter(Phase.RUNNING)
                handler = plugin.handle_recv
                ended_by = self._receive(without_plugins(handler) if ignore_plugins else handler)
            if self.owner is not None and not self._park_asked:
                self.owner.stop_requested()
            self._enter(Phase.PARKED)
            if self.owner is not None:
                self.client.serve_parked()
            if self.owner is None or self.abandoned:
                self.stopper = threading.get_ident()
                (self.owner or Owner()).run_own_stop(stop)
        finally:
            self._close()
        if ended_by is not None:
            raise ended_by

    def _receive(self, handler: Callable[[Frames], Any]) -> BaseException | None:
        """Run the loop until it is to end; returns what ended it, if it was no request."""
        ended_by: BaseException | None = None
        self._receiver.start(handler)
        if self._observer is not None:
            self._receiver.observe(self._observer)
        try:
            self._looping = True
            if not self._park_asked:
                if self.connected and (awaited := self._connected_anew(first=True)):
                    self._receiver.await_in_order(awaited, "handle_connect")
                self.loop.run_forever()
        except (KeyboardInterrupt, SystemExit) as error:
            ended_by = error
            self._receiver.cancel_in_hand()  # nobody waits for it any more
        finally:
            self._looping = False
        try:
            self.loop.finish(self._receiver.stop(), TASK_GRACE)
        except (KeyboardInterrupt, SystemExit) as error:
            ended_by = ended_by or error
        return ended_by

    def _connect(self, topics: Iterable[bytes]) -> None:
        link = self.link
        self._context = link.context or zmq.Context()
        try:
            self._connection.open(self._context, link.pubsub_endpoint, topics, link.max_message)
            self.client.open()
        except zmq.ZMQError as error:
            raise CircusPlugError(
                f"cannot connect to {link.endpoint} and {link.pubsub_endpoint}: {error}"
            ) from None
        if self._connection.wait(link.connect_wait):
            self.connected = True
        else:
            (self.owner or Owner()).circusd_missed(self.logger, link)

    def make_dealer(self, endpoint: str) -> zmq.Socket[bytes]:
        """Make a socket for commands; raises what `command_socket` raises."""
        assert self._context is not None
        return command_socket(self._context, endpoint)

    def _initialize(self, plugin: Hooks) -> None:
        try:
            for hook in (plugin.handle_init, plugin.initialize):
                result = self.loop.call_directly(hook)
                if inspect.isawaitable(result):
                    self.loop.run_until_complete(forks.awaited(result))
        except SpecError:
            raise
        except Exception as error:
            if not is_away(self._connection, error):
                raise
            self.last_error = f"handle_init: {describe(error)}"
            self.logger.warning(
                "handle_init failed while circusd could not be reached (commands: %s, events: "
                "%s): %s; it starts again when circusd is there",
                self.link.endpoint,
                self.link.pubsub_endpoint,
                describe(error),
            )
            self._enter(Phase.WAITING)
            self._wait.until_up(self._connection)
            raise CircusdAway(describe(error)) from error

    def observe(self, observer: Callable[[bytes], object]) -> None:
        """Show each further topic to `observer` before its event is handled.

        After a reconnection it is shown an empty one, since what was published meanwhile is gone.
        """
        if self._observer is None:
            self._observer = observer
            self._receiver.observe(observer)

    def _close(self) -> None:
        forks.on_fork(None)
        self._enter(Phase.ENDED)
        self.client.close()
        self._receiver.close()
        self._connection.close()
        if not self.loop.is_closed():
            self.loop.close()
        asyncio.set_event_loop(None)
        if self.link.context is None and self._context is not None:
            self._context.term()
        self.connected = False
        self.parked.set()
        self.ended.set()

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        if phase is Phase.PARKED:
            self.parked.set()
        if self.owner is not None:
            self.owner.phase_entered(phase)

    def _link_changed(self, up: bool) -> Awaitable[object] | None:
        self.connected = up
        if not up:
            self.logger.warning("connection to circusd lost; what it publishes meanwhile is gone")
            return None
        self.client.renew()
        first = not self._was_connected
        if first:
            self.logger.info("connected to circusd")
        else:
            self.counters.reconnects += 1
            self.logger.info("circusd is back")
            if self._observer is not None:
                self._observer(b"")
        return self._connected_anew(first)

    def _connected_anew(self, first: bool) -> Awaitable[object] | None:
        """Tell the plugin that the connection has come to stand; returns what is to be awaited."""
        self._was_connected = True
        assert self._plugin is not None
        hooks = [("handle_connect", self._plugin.handle_connect)]
        if not first:
            hooks.append(("handle_reconnect", self._plugin.handle_reconnect))
        awaited = []
        for name, hook in hooks:
            try:
                result = self.loop.call_directly(hook)
            except Exception as error:  # noqa: BLE001 - contained, logged and counted
                self._contain(error, name)
            else:
                if inspect.isawaitable(result):
                    awaited.append(result)
        return _await_all(awaited) if awaited else None

    def _contain(self, error: BaseException, what: str) -> None:
        if self._forked:
            forks.end(error)
        self.last_error = f"{what}: {describe(error)}"
        try:
            self._repeats.log_exception(self.logger, what, error)
            if self.owner is not None:
                self.owner.exception_contained(error, what)
        finally:
            self.counters.errors += 1  # last: who waits for it finds the rest done

    def _callback_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        message = str(context.get("message", "callback"))
        if isinstance(error, BaseException):
            self._contain(error, message)
        else:
            self.logger.error("%s", message)

    def _given_up(self) -> None:
        tell_too_large(self.logger, self.link)
        self.counters.too_large += 1  # last: who waits for it finds the rest done

    def _disown(self) -> None:
        """In a process that the plugin has forked: take part in nothing of its parent's."""
        self._forked = True
        self._receiver.halt()
        self.client.disown()
        self.loop.disown()

    # From any thread.

    def park(self) -> None:
        """Ask for the event in hand to be finished and nothing more to be run; see `parked`."""
        self._park_asked = True
        self._receiver.halt()
        self.client.stop_waiting()
        self.loop.post(self._park_here)
        self._wait.give_up()

    def _park_here(self, _: object = None) -> None:
        if not self._looping:
            return  # still starting, and `run` will see `_park_asked`; or on its way already
        in_hand = self._receiver.stop()
        if in_hand is None or in_hand.done():
            self.loop.stop()
        else:
            in_hand.add_done_callback(self._park_here)

    def cancel_in_hand(self) -> None:
        """Cancel a handler that is awaited for too long; one that blocks cannot be helped."""
        self.loop.post(self._receiver.cancel_in_hand)

    def abandon(self) -> None:
        """Wait for it no longer: it stops itself as soon as it comes through."""
        with self._lock:
            self.abandoned = True
        self.park()
        self.end()

    def end(self) -> None:
        """Let a parked worker that has an owner close and return."""
        self.client.end_parked()

    def request_stop(self) -> None:
        """Have the plugin stopped: by its owner if it has one, else by itself."""
        if self.owner is not None:
            self.owner.stop_requested()
            return
        self.park()
        if threading.get_ident() != self._thread and not self.ended.wait(STOP_WAIT):
            self.logger.error("still busy %g s after stop() was called", STOP_WAIT)

    def stop_plugin(self, handle_stop: Callable[[], object]) -> bool:
        """Stop in the way that fits the moment; what `CircusPlugin.stop` does.

        Runs `handle_stop` on the calling thread if the plugin is parked (or was left behind)
        and it did not run yet; asks for a stop if the plugin still runs.

        Returns:
            Whether the plugin is over, as far as the caller is concerned.
        """
        with self._lock:
            over = self.phase in (Phase.PARKED, Phase.ENDED) or self.abandoned
            # handle_stop is its owner's to run, not that of any thread which asks.
            over = over and (self.owner is None or self.stopper == threading.get_ident())
            due, self._stop_due = self._stop_due and over, self._stop_due and not over
        if due:
            with forks.end_of_forked():
                handle_stop()
        elif not over and self.phase is not Phase.NEW:
            self.request_stop()
        elif self.phase is Phase.NEW and not self.loop.is_running():
            self.loop.close()
            over = True
        return over

    @property
    def in_plugin_thread(self) -> bool:
        """Whether the caller runs on the plugin's own thread."""
        return threading.get_ident() == self._thread


async def _await_all(awaitables: Iterable[Awaitable[object]]) -> None:
    for awaitable in awaitables:
        await awaitable
