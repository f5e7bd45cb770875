# From the SUB socket to `handle_recv`: events in order, one at a time.
#
# Owner: everything here belongs to the plugin's thread, but `halt`, which any thread may call:
# it only ever takes the handler away.

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any

import zmq

from .._loop.plugin_loop import PluginLoop
from .._status import Counters
from .._wire.events import PREFIX
from .connection import Connection
from .turns import Place, turn

Frames = tuple[bytes, bytes]

#: How much is received before timers and replies have their turn: events, and seconds.
SLICE_EVENTS = 1000
SLICE_SECONDS = 0.01
#: A plugin that has handled so many events within so many seconds is in a flood, and its handler
#: does not block. It takes the turn for what is left of its slice, which is then shorter.
_FLOOD_EVENTS = 8
_FLOOD_SECONDS = 0.0008
_TURN_SECONDS = 0.003
#: How long one that has lost its turn does without, in seconds.
_NO_TURN_SECONDS = 1.0
#: How a payload and a topic begin, which is all that is looked at in the hot path; of what
#: has another beginning, and of nothing else, `_resynchronise` finds out what it is.
_OPENING = ord("{")
_INITIAL = PREFIX[0]
# As plain ints: arithmetic with pyzmq's enum members costs more than the question.
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)


class Receiver:
    """Receives a plugin's events and hands them over.

    Args:
        loop: The plugin's loop.
        connection: Where the events come from.
        counters: The plugin's counters.
        on_error: Told of each exception a handler raised, with what was being done.
        on_garbage: Told of each message that is no event.
        on_link: Told True when the connection stands and False when it is lost; may return what
            is to be awaited before the next event.
    """

    def __init__(
        self,
        loop: PluginLoop,
        connection: Connection,
        counters: Counters,
        on_error: Callable[[BaseException, str], object],
        on_garbage: Callable[[bytes], object],
        on_link: Callable[[bool], Awaitable[object] | None],
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._counters = counters
        self._on_error = on_error
        self._on_garbage = on_garbage
        self._on_link = on_link
        self._handler: Callable[[Frames], Any] | None = None
        self._task: asyncio.Task[None] | None = None
        self._backlog: list[tuple[Awaitable[object], str]] = []
        self._place = Place()
        self._no_turn_until = 0.0
        self.stopping = False

    def start(self, handler: Callable[[Frames], Any]) -> None:
        """Hand each event to `handler` from now on."""
        self._handler = handler
        if self.stopping:  # by another thread, a moment ago
            self._handler = None
            return
        self._connection.watch(self._loop, self._connection_changed)
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
        self._connection.unwatch()
        self._ignore_socket()
        return self._task

    def cancel_in_hand(self) -> None:
        """Cancel the handler that is being awaited, if there is one."""
        if self._task is not None:
            self._task.cancel()

    def close(self) -> None:
        """Let go of what is still to be awaited; may be called twice."""
        self.halt()
        for awaitable, _ in self._backlog:
            if inspect.iscoroutine(awaitable):
                awaitable.close()
        self._backlog.clear()
        self._ignore_socket()

    def _drain(self) -> None:
        """Receive until there is nothing left or the slice is used up.

        This is the hot path: two plain receives, two looks at the frames and the call.
        Whether a frame is the last of its message is asked only of those that look wrong.
        """
        handler, socket, connection = self._handler, self._connection.socket, self._connection
        if handler is None or socket is None:
            return
        if not connection.up:
            # libzmq tells of a new connection before it lets an event through, but a poll may
            # come to see the event alone.
            connection.look()
            if self._task is not None:  # what follows a connection is awaited first
                return
        receive = socket.recv
        counters = self._counters
        first = received = counters.received
        # While the connection counts as lost, each event may be the first of a new one.
        last = received + (SLICE_EVENTS if connection.up else 1)
        handled = counters.handled  # brought up to date at the end, and when a handler fails
        failed = 0
        # The clock is read after the 1st, 2nd, 4th, 8th event and then after each 16th: a
        # slow handler ends its slice at once, a quick one hardly pays for the clock.
        step = 1
        look = received + 1
        topic: bytes | None = None
        began = time.monotonic()
        end = began + SLICE_SECONDS
        has_turn = False
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
                        self.await_in_order(result, "handle_recv")
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
                    now = time.monotonic()
                    if received >= last or now > end:
                        return
                    if step < 16:
                        # A look costs half of a receive that finds nothing, and keeps the
                        # interpreter's lock.
                        if not int(socket.getsockopt(_EVENTS)) & _POLLIN:
                            return
                        if (
                            received - first == _FLOOD_EVENTS
                            and now - began < _FLOOD_SECONDS
                            and now >= self._no_turn_until
                        ):
                            turn.take(self._place)
                            has_turn = True
                            end = time.monotonic() + _TURN_SECONDS
                    look += step
                    if step < 16:
                        step += step
        except zmq.Again:
            if topic is not None:
                self._garbage(topic)  # a message of one frame, with nothing behind it
        finally:
            counters.handled = handled + received - first - failed
            if has_turn and not turn.give(self._place):
                self._no_turn_until = time.monotonic() + _NO_TURN_SECONDS

    def _resynchronise(self, topic: bytes, payload: bytes) -> Frames | None:
        """Find the next event among frames of which one is not what it should be."""
        socket = self._connection.socket
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

    def await_in_order(self, awaitable: Awaitable[object], what: str) -> None:
        """Await a handler's result; no further event is received until it is there."""
        if self._task is not None:
            self._backlog.append((awaitable, what))
            return
        self._ignore_socket()
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
            self.await_in_order(*self._backlog.pop(0))
        else:
            self._watch()

    async def _consume(self, awaitable: Awaitable[object], what: str) -> None:
        """Await one result after the other, as long as there are events at hand."""
        counters = self._counters
        for count in itertools.count(1):
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
            if count % 100 == 0:
                await asyncio.sleep(0)  # the others' turn
            following = self._next_awaitable()
            if following is None:
                return
            awaitable, what = following, "handle_recv"

    def _next_awaitable(self) -> Awaitable[object] | None:
        frames = self._receive() if self._connection.up else None
        return None if frames is None else self._handle(frames)

    def _receive(self) -> Frames | None:
        """Receive one event, outside the hot path; None if there is none, or garbage."""
        socket = self._connection.socket
        if self._handler is None or socket is None:
            return None
        topic: bytes | None = None
        try:
            topic = socket.recv(1)
            frames: Frames | None = (topic, socket.recv(1))
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

    def _watch(self) -> None:
        """Wait for events, if nothing is being awaited."""
        socket = self._connection.socket
        if socket is not None and self._task is None and not self.stopping:
            self._loop.watch_socket(socket, self._drain)

    def _ignore_socket(self) -> None:
        """Do not wait for events."""
        socket = self._connection.socket
        if socket is not None and not self._loop.is_closed():
            self._loop.watch_socket(socket, None)

    def _connection_changed(self, up: bool) -> None:
        if self.stopping:
            return
        try:
            awaitable = self._on_link(up)
        except BaseException as error:
            if isinstance(error, SystemExit | KeyboardInterrupt):
                raise
            self._on_error(error, "handling the connection")
        else:
            if awaitable is not None:
                self.await_in_order(awaitable, "handle_connect")
