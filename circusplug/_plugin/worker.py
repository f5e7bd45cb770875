# One plugin's life on the current thread: connect, init, receive, park, close.
#
# It knows nothing of threads, processes or how a plugin was made: a plugin is an object with
# handle_init, initialize, handle_recv and handle_reconnect.
#
# Owner: the thread that calls `run`. Other threads may call `park`, `end` and `request_stop`,
# and read `phase` and `counters`. `_lock` guards `phase`, so that `handle_stop` runs once.

from __future__ import annotations

import asyncio
import contextlib
import enum
import inspect
import logging
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from types import FrameType
from typing import Any, Protocol

import zmq

from .._errors import CircusPlugError
from .._loop.plugin_loop import PluginLoop
from .._status import Counters
from .._wire.endpoints import Link, configure_link
from .._wire.events import PREFIX
from .client import Client
from .receiver import Frames, Receiver

#: How long cancelled tasks may take to end when a plugin is parked, in seconds.
TASK_GRACE = 1.0
#: How long `stop()` of a plugin without a host waits for the plugin's thread, in seconds.
STOP_WAIT = 5.0

_TOPIC_PLUGINS = PREFIX + b"plugin:"


class Phase(enum.Enum):
    """Where in its life a plugin is; it only ever goes down this list."""

    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    PARKED = "parked"
    ENDED = "ended"


class Hooks(Protocol):
    """What a worker calls on a plugin; all of it on the thread of `Worker.run`."""

    def handle_init(self) -> Any: ...
    def initialize(self) -> Any: ...
    def handle_recv(self, data: Frames) -> Any: ...
    def handle_reconnect(self) -> Any: ...


class Worker:
    """Runs one plugin on the thread that calls `run`.

    Args:
        name: The plugin's name, for messages.
        link: What to connect to.
        counters: Where to count; a new instance of a plugin goes on with the old one's.
        hosted: Whether somebody else will run `handle_stop` and then call `end`.
        on_phase: Told of each new phase, on the worker's thread.
        on_error: Told of each exception that was contained, on the worker's thread.
    """

    def __init__(
        self,
        name: str,
        link: Link | None = None,
        *,
        counters: Counters | None = None,
        hosted: bool = False,
        on_phase: Callable[[Phase], object] | None = None,
        on_error: Callable[[BaseException, str], object] | None = None,
        on_stop_request: Callable[[], object] | None = None,
    ) -> None:
        self.name = name
        self.link = link or Link()
        self.logger = logging.getLogger(
            f"circusplug.plugin.{name}" if name else "circusplug.plugin"
        )
        self.counters = counters or Counters()
        self.hosted = hosted
        self.connected = False
        self.last_error: str | None = None
        self.phase = Phase.NEW
        self.parked = threading.Event()
        self.ended = threading.Event()
        self.loop = PluginLoop()
        self.loop.set_exception_handler(self._callback_failed)
        self.client = Client(self.loop, self._make_dealer, self.counters, self.logger)
        self._receiver = Receiver(
            self.loop, self.counters, self._contain, self._report_garbage, self._link_changed
        )
        self._on_phase = on_phase
        self._on_error = on_error
        self._on_stop_request = on_stop_request
        self._context: zmq.Context[Any] | None = None
        self._plugin: Hooks | None = None
        self._observer: Callable[[bytes], object] | None = None
        self._lock = threading.Lock()
        self._stop_due = False
        self._park_asked = False
        self._took_sigint = False
        self._interrupted = False
        self._looping = False
        self._was_connected = False
        self._thread: int | None = None

    # On the plugin's thread.

    def run(
        self,
        plugin: Hooks,
        topics: Iterable[bytes] = (PREFIX,),
        ignore_plugins: bool = False,
        stop: Callable[[], object] | None = None,
    ) -> None:
        """Live the plugin's life: returns when it is stopped and closed.

        Args:
            plugin: What to run.
            topics: The prefixes to subscribe to.
            ignore_plugins: Leave out the events of circusd's own plugin watchers.
            stop: Runs the plugin's `handle_stop`; called here unless hosted.
        """
        self._plugin = plugin
        self._thread = threading.get_ident()
        self._enter(Phase.STARTING)
        asyncio.set_event_loop(self.loop)
        ended_by: BaseException | None = None
        try:
            if not self.hosted:
                self._take_signals()
            self._connect(topics)
            if not self._park_asked:  # else it was stopped, or given up, before it began
                self._initialize(plugin)
                with self._lock:
                    self._stop_due = True
                self._enter(Phase.RUNNING)
                ended_by = self._receive(self._handler(plugin, ignore_plugins))
            if not self.hosted:
                self._enter(Phase.PARKED)
                if stop is not None:
                    stop()
            else:
                if not self._park_asked and self._on_stop_request is not None:
                    self._on_stop_request()
                self._enter(Phase.PARKED)
                self.client.serve_parked()
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
                self.loop.run_forever()
        except (KeyboardInterrupt, SystemExit) as error:
            ended_by = error
        finally:
            self._looping = False
        try:
            self._settle()
        except (KeyboardInterrupt, SystemExit) as error:
            ended_by = ended_by or error
        return ended_by or (KeyboardInterrupt() if self._interrupted else None)

    def _take_signals(self) -> None:
        """End cleanly on SIGTERM and SIGINT, if nobody else has said what they shall do."""
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            self.loop.add_signal_handler(signal.SIGTERM, self.park)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._interrupt)
            self._took_sigint = True

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        # An exception that is raised while pyzmq raises its own is lost, so the loop is told
        # to end as well.
        self._interrupted = True
        self.park()
        raise KeyboardInterrupt

    def _connect(self, topics: Iterable[bytes]) -> None:
        link = self.link
        self._context = link.context or zmq.Context()
        try:
            self._receiver.open(self._context, link.pubsub_endpoint, topics)
            self.client.open()
        except zmq.ZMQError as error:
            raise CircusPlugError(
                f"cannot connect to {link.endpoint} and {link.pubsub_endpoint}: {error}"
            ) from None
        if self._receiver.wait_connected(link.connect_wait):
            self.connected = self._was_connected = True
        elif link.connect_wait:  # otherwise a plugin before this one has said so
            self.logger.warning(
                "no circusd at %s yet (events: %s); going on, and receiving once it is there",
                link.endpoint,
                link.pubsub_endpoint,
            )

    def _make_dealer(self) -> zmq.Socket[bytes]:
        assert self._context is not None
        socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        configure_link(socket, self.link.endpoint)
        # Without a connection a command is refused at once, instead of waiting in a queue
        # for a circusd that is down and firing minutes later.
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.connect(self.link.endpoint)
        return socket

    def _initialize(self, plugin: Hooks) -> None:
        for hook in (plugin.handle_init, plugin.initialize):
            result = self.loop.call_directly(hook)
            if inspect.isawaitable(result):
                self.loop.run_until_complete(_await(result))

    def _handler(self, plugin: Hooks, ignore_plugins: bool) -> Callable[[Frames], Any]:
        handle_recv = plugin.handle_recv
        if not ignore_plugins:
            return handle_recv

        def handle_others(frames: Frames) -> Any:
            if not frames[0].startswith(_TOPIC_PLUGINS):
                return handle_recv(frames)
            return None

        return handle_others

    def observe(self, observer: Callable[[bytes], object]) -> None:
        """Show each further topic to `observer` before its event is handled.

        After a reconnection it is shown an empty one, since what was published meanwhile is gone.
        """
        if self._observer is None:
            self._observer = observer
            self._receiver.observe(observer)

    def _settle(self) -> None:
        """Finish the event in hand, cancel the other tasks; then nothing runs any more."""
        self.loop.settling = True  # the loop runs on for a moment, but no period begins
        in_hand = self._receiver.stop()
        if in_hand is not None:
            self._complete(asyncio.wait([in_hand]))
        deadline = time.monotonic() + TASK_GRACE
        self._cancel_tasks(deadline)
        self._complete(self.loop.shutdown_asyncgens())
        self._cancel_tasks(deadline)  # those that timers have made meanwhile

    def _cancel_tasks(self, deadline: float) -> None:
        """Cancel tasks until there is none, or time is over; once in any case."""
        while tasks := asyncio.all_tasks(self.loop):
            left = deadline - time.monotonic()
            for task in tasks:
                task.cancel()
            self._complete(asyncio.wait(tasks, timeout=max(0.0, left)))
            if left <= 0:
                return

    def _complete(self, work: Coroutine[Any, Any, object]) -> None:
        """Run the loop until something is done, be it stopped by the plugin or not."""
        task = self.loop.create_task(work)
        while not task.done() and not self.loop.is_closed():
            with contextlib.suppress(RuntimeError):
                self.loop.run_until_complete(task)

    def _close(self) -> None:
        self._enter(Phase.ENDED)
        self.client.close()
        self._receiver.close()
        if not self.loop.is_closed():
            self.loop.close()
        asyncio.set_event_loop(None)
        if self._took_sigint:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self.link.context is None and self._context is not None:
            self._context.term()
        self.connected = False
        self.parked.set()
        self.ended.set()

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        if phase is Phase.PARKED:
            self.parked.set()
        if self._on_phase is not None:
            self._on_phase(phase)

    def _link_changed(self, up: bool) -> Awaitable[object] | None:
        self.connected = up
        if not up:
            self.logger.warning("connection to circusd lost; what it publishes meanwhile is gone")
            return None
        self.client.renew()
        first, self._was_connected = not self._was_connected, True
        if first:
            self.logger.info("connected to circusd")
            return None
        self.counters.reconnects += 1
        self.logger.info("circusd is back")
        if self._observer is not None:
            self._observer(b"")
        assert self._plugin is not None
        try:
            result = self._plugin.handle_reconnect()
        except Exception as error:  # noqa: BLE001 - contained, logged and counted
            self._contain(error, "handle_reconnect")
            return None
        return result if inspect.isawaitable(result) else None

    def _contain(self, error: BaseException, what: str) -> None:
        self.last_error = f"{what}: {describe(error)}"
        try:
            self.logger.error("%s failed: %s", what, describe(error), exc_info=error)
            if self._on_error is not None:
                self._on_error(error, what)
        finally:
            self.counters.errors += 1  # last: who waits for it finds the rest done

    def _callback_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        message = str(context.get("message", "callback"))
        if isinstance(error, BaseException):
            self._contain(error, message)
        else:
            self.logger.error("%s", message)

    def _report_garbage(self, topic: bytes) -> None:
        self.logger.warning("not an event, left out: message that begins with %r", topic[:80])

    # From any thread.

    def park(self) -> None:
        """Ask for the event in hand to be finished and nothing more to be run; see `parked`."""
        self._park_asked = True
        self._receiver.halt()
        self.loop.post(self._park_here)

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

    def end(self) -> None:
        """Let a parked, hosted worker close and return."""
        self.client.end_parked()

    def request_stop(self) -> None:
        """Have the plugin stopped: by the host if there is one, else by itself."""
        if self.hosted:
            if self._on_stop_request is not None:
                self._on_stop_request()
        else:
            self.park()

    def stop_plugin(self, handle_stop: Callable[[], object]) -> bool:
        """Stop in the way that fits the moment; what `CircusPlugin.stop` does.

        Runs `handle_stop` on the calling thread if the plugin is parked (or was left behind)
        and it did not run yet; asks for a stop if the plugin still runs.

        Returns:
            Whether the plugin is over, as far as the caller is concerned.
        """
        with self._lock:
            over = self.phase in (Phase.PARKED, Phase.ENDED) or self.abandoned
            # Under a host handle_stop is the host's to run, not that of any thread which asks.
            over = over and (not self.hosted or self.stopper == threading.get_ident())
            due, self._stop_due = self._stop_due and over, self._stop_due and not over
        if due:
            handle_stop()
        elif not over and self.phase is not Phase.NEW:
            self.request_stop()
            if not self.hosted and threading.get_ident() != self._thread:
                self._wait_ended()
        elif self.phase is Phase.NEW and not self.loop.is_running():
            self.loop.close()
            over = True
        return over

    def _wait_ended(self) -> None:
        if not self.ended.wait(STOP_WAIT):
            self.logger.error("still busy %g s after stop() was called", STOP_WAIT)

    #: Set by the host when it stops waiting for this worker.
    abandoned = False
    #: Set by the host: the thread that it runs `handle_stop` on.
    stopper: int | None = None

    @property
    def in_plugin_thread(self) -> bool:
        """Whether the caller runs on the plugin's own thread."""
        return threading.get_ident() == self._thread


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def describe(error: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
