# The SUB side of a plugin: from the socket to `handle_recv`, in order, one at a time.
#
# Owner: everything here belongs to the plugin's thread, but `halt`, which any thread may call:
# it only ever takes the handler away.

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import struct
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import zmq

from .._loop.plugin_loop import PluginLoop
from .._status import Counters
from .._wire.endpoints import configure_link
from .._wire.events import PREFIX

Frames = tuple[bytes, bytes]

#: A burst may fill this many events before libzmq drops any.
RECEIVE_HIGH_WATER_MARK = 100_000
#: How much is received before timers and replies have their turn: events, and seconds.
SLICE_EVENTS = 1000
SLICE_SECONDS = 0.01
#: How a payload and a topic begin, which is all that is looked at in the hot path; of what
#: has another beginning, and of nothing else, `_resynchronise` finds out what it is.
_OPENING = ord("{")
_INITIAL = PREFIX[0]
_EVENT_HEADER = struct.Struct("=hi")


class Receiver:
    """Receives a plugin's events and hands them over.

    Args:
        loop: The plugin's loop.
        counters: The plugin's counters.
        on_error: Told of each exception a handler raised, with what was being done.
        on_garbage: Told of each message that is no event.
        on_link: Told True when the connection stands and False when it is lost.
    """

    def __init__(
        self,
        loop: PluginLoop,
        counters: Counters,
        on_error: Callable[[BaseException, str], object],
        on_garbage: Callable[[bytes], object],
        on_link: Callable[[bool], Awaitable[object] | None],
    ) -> None:
        self._loop = loop
        self._counters = counters
        self._on_error = on_error
        self._on_garbage = on_garbage
        self._on_link = on_link
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._handler: Callable[[Frames], Any] | None = None
        self._task: asyncio.Task[None] | None = None
        self._backlog: list[tuple[Awaitable[object], str]] = []
        self._up = False
        self.stopping = False

    def open(self, context: zmq.Context[Any], endpoint: str, topics: Iterable[bytes]) -> None:
        """Make the SUB socket and connect it."""
        socket = self._socket = context.socket(zmq.SUB)
        configure_link(socket, endpoint)
        socket.setsockopt(zmq.RCVHWM, RECEIVE_HIGH_WATER_MARK)
        self._monitor = socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        )
        for topic in topics:
            socket.setsockopt(zmq.SUBSCRIBE, topic)
        socket.connect(endpoint)
        self._up = endpoint.startswith("inproc://")  # of which no monitor tells

    def wait_connected(self, seconds: float) -> bool:
        """Wait until the connection stands; False if it does not within `seconds`."""
        monitor = self._monitor
        assert monitor is not None
        deadline = time.monotonic() + seconds
        while (remaining := deadline - time.monotonic()) > 0:
            if monitor.poll(max(1, int(remaining * 1000))) and self._read_monitor(monitor):
                self._up = True
                return True
        return False

    def start(self, handler: Callable[[Frames], Any]) -> None:
        """Hand each event to `handler` from now on."""
        assert self._socket is not None and self._monitor is not None
        self._handler = handler
        if self.stopping:  # by another thread, a moment ago
            self._handler = None
            return
        self._loop.watch_socket(self._monitor, self._on_monitor)
        self._watch()

    def observe(self, observer: Callable[[bytes], object]) -> None:
        """Show each topic to `observer` before it is handled, from the next event on."""
        handler = self._handler
        if handler is None:
            return

        def handle_observed(frames: Frames) -> Any:
            observer(frames[0])
            return handler(frames)

        self._handler = handle_observed
        if self.stopping:  # by another thread, a moment ago
            self._handler = None

    def halt(self) -> None:
        """Take no further event; from any thread, at the end of the handler in hand."""
        self.stopping = True
        self._handler = None

    def stop(self) -> asyncio.Task[None] | None:
        """Stop receiving; returns the task of the event in hand, if it is awaited."""
        self.halt()
        for socket in (self._socket, self._monitor):
            if socket is not None:
                self._loop.watch_socket(socket, None)
        return self._task

    def cancel_in_hand(self) -> None:
        """Cancel the handler that is being awaited, if there is one."""
        if self._task is not None:
            self._task.cancel()

    def close(self) -> None:
        """Close the sockets; may be called twice."""
        self.halt()
        for awaitable, _ in self._backlog:
            if inspect.iscoroutine(awaitable):
                awaitable.close()
        self._backlog.clear()
        if self._socket is not None:
            self._socket.disable_monitor()
        for socket in (self._monitor, self._socket):
            if socket is not None:
                if not self._loop.is_closed():
                    self._loop.watch_socket(socket, None)
                socket.close(0)
        self._socket = self._monitor = None

    def _drain(self) -> None:
        """Receive until there is nothing left or the slice is used up.

        This is the hot path: two plain receives, two looks at the frames and the call.
        Whether a frame is the last of its message is asked only of those that look wrong.
        """
        handler = self._handler
        if handler is None or self._socket is None:
            return
        receive = self._socket.recv
        counters = self._counters
        first = received = counters.received
        last = received + SLICE_EVENTS
        handled = counters.handled  # brought up to date at the end, and when a handler fails
        failed = 0
        # The clock is read after the 1st, 2nd, 4th, 8th event and then after each 16th: a
        # slow handler ends its slice at once, a quick one hardly pays for the clock.
        step = 1
        look = received + 1
        topic: bytes | None = None
        end = time.monotonic() + SLICE_SECONDS
        try:
            while self._handler is handler:  # neither halted nor observed since
                topic = receive(1)  # zmq.NOBLOCK, spelt out: an attribute less to look up
                payload = receive(1)
                if not (topic and payload) or payload[0] != _OPENING or topic[0] != _INITIAL:
                    frames = self._resynchronise(topic, payload)
                    if frames is None:
                        topic = None
                        continue
                    topic, payload = frames
                received += 1
                counters.received = received
                try:
                    result = handler((topic, payload))
                    if result is not None and inspect.isawaitable(result):
                        failed += 1  # not handled yet; `_consume` counts it
                        self._await_in_order(result, "handle_recv")
                        topic = None
                        return
                except (SystemExit, KeyboardInterrupt):
                    failed += 1
                    raise
                except BaseException as error:  # noqa: BLE001 - contained, logged and counted
                    failed += 1
                    counters.handled = handled + received - first - failed
                    self._on_error(error, "handle_recv")
                topic = None
                if received >= look:
                    if received >= last or time.monotonic() > end:
                        return
                    look += step
                    if step < 16:
                        step += step
        except zmq.Again:
            if topic is not None:
                self._garbage(topic)  # a message of one frame, with nothing behind it
        finally:
            counters.handled = handled + received - first - failed

    def _resynchronise(self, topic: bytes, payload: bytes) -> Frames | None:
        """Find the next event among frames of which one is not what it should be."""
        socket = self._socket
        assert socket is not None
        while True:
            if topic[:8] == PREFIX and payload.lstrip()[:1] == b"{":
                return topic, payload
            if payload[:8] != PREFIX:
                # Not an event, nor the first frame of one: leave out this message's rest.
                while socket.getsockopt(zmq.RCVMORE):
                    socket.recv()
                self._garbage(topic)
                return None
            self._garbage(topic)
            topic = payload
            if not socket.getsockopt(zmq.RCVMORE):
                self._garbage(topic)
                return None
            payload = socket.recv()

    def _garbage(self, topic: bytes) -> None:
        self._on_garbage(topic)
        self._counters.garbage += 1  # last: who waits for it finds the rest done

    def _await_in_order(self, awaitable: Awaitable[object], what: str) -> None:
        """Await a handler's result; no further event is received until it is there."""
        if self._task is not None:
            self._backlog.append((awaitable, what))
            return
        assert self._socket is not None
        self._loop.watch_socket(self._socket, None)
        self._task = self._loop.create_task(self._consume(awaitable, what))
        self._task.add_done_callback(functools.partial(self._resume, awaitable))

    def _resume(self, awaitable: Awaitable[object], task: asyncio.Task[None]) -> None:
        self._task = None
        if task.cancelled():
            if inspect.iscoroutine(awaitable):
                awaitable.close()  # it may have been cancelled before it began
        else:
            task.exception()  # a SystemExit has ended the loop, and is known
        if self._backlog and not self.stopping:
            self._await_in_order(*self._backlog.pop(0))
        else:
            self._watch()

    async def _consume(self, awaitable: Awaitable[object], what: str) -> None:
        """Await one result after the other, as long as there are events at hand."""
        counters = self._counters
        for turn in itertools.count(1):
            try:
                await awaitable
                if what == "handle_recv":
                    counters.handled += 1
            except asyncio.CancelledError as error:
                if self.stopping:  # it is this task that is meant
                    raise
                self._on_error(error, what)
            except Exception as error:  # noqa: BLE001 - contained, logged and counted
                self._on_error(error, what)
            if self.stopping or self._backlog:
                return
            if turn % 100 == 0:
                await asyncio.sleep(0)  # the others' turn
            following = self._next_awaitable()
            if following is None:
                return
            awaitable, what = following, "handle_recv"

    def _next_awaitable(self) -> Awaitable[object] | None:
        frames = self._receive() if self._up else None
        return None if frames is None else self._handle(frames)

    def _drain_warily(self) -> None:
        """Receive while the connection counts as lost: each event may be the first of a new one.

        libzmq tells of a new connection before it lets an event through, but a poll may come
        to see the event alone.
        """
        end = time.monotonic() + SLICE_SECONDS
        while not self._up and time.monotonic() < end:
            frames = self._receive()
            if frames is None:
                return
            self._on_monitor()
            if self._task is not None:  # handle_reconnect is awaited
                self._backlog.append((self._handle_later(frames), "handle_recv"))
                return
            awaitable = self._handle(frames)
            if awaitable is not None:
                self._await_in_order(awaitable, "handle_recv")
                return

    def _receive(self) -> Frames | None:
        """Receive one event, outside the hot path; None if there is none, or garbage."""
        if self._handler is None or self._socket is None:
            return None
        topic: bytes | None = None
        try:
            topic = self._socket.recv(1)
            frames: Frames | None = (topic, self._socket.recv(1))
        except zmq.Again:
            if topic is not None:
                self._garbage(topic)
            return None
        assert frames is not None
        if frames[1][:1] != b"{" or frames[0][:8] != PREFIX:
            frames = self._resynchronise(*frames)
        if frames is not None:
            self._counters.received += 1
        return frames

    def _handle(self, frames: Frames) -> Awaitable[object] | None:
        """Hand one event over, outside the hot path; returns what is to be awaited, if anything."""
        handler = self._handler
        if handler is None:
            return None
        try:
            result = handler(frames)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - contained, logged and counted
            self._on_error(error, "handle_recv")
            return None
        if inspect.isawaitable(result):
            return result
        self._counters.handled += 1
        return None

    async def _handle_later(self, frames: Frames) -> None:
        handler = self._handler
        if handler is not None:
            result = handler(frames)
            if inspect.isawaitable(result):
                await result

    def _watch(self) -> None:
        """Wait for events, if nothing is being awaited."""
        if self._socket is not None and self._task is None and not self.stopping:
            take = self._drain if self._up else self._drain_warily
            self._loop.watch_socket(self._socket, take)

    def _on_monitor(self) -> None:
        monitor = self._monitor
        assert monitor is not None
        while not self.stopping and monitor.poll(0):
            self._up = self._read_monitor(monitor)
            awaitable = self._on_link(self._up)
            if awaitable is not None:
                self._await_in_order(awaitable, "handle_reconnect")
        self._watch()

    @staticmethod
    def _read_monitor(monitor: zmq.Socket[bytes]) -> bool:
        frames = monitor.recv_multipart()
        event: int = _EVENT_HEADER.unpack_from(frames[0])[0]
        return event == zmq.EVENT_HANDSHAKE_SUCCEEDED
