# From the SUB socket to `handle_recv`: events in order, one at a time.
#
# Owner: everything here belongs to the plugin's thread, but `halt`, which any thread may call:
# it only ever takes the handler away.

from __future__ import annotations

import asyncio
import inspect
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from itertools import repeat
from operator import length_hint
from typing import Any

import zmq

from .._loop.plugin_loop import PluginLoop
from .._loop.selector import is_readable
from .._wire.events import PREFIX
from .event_connection import Connection
from .status import Counters
from .turns import Place, turn

Frames = tuple[bytes, bytes]

#: How long events are taken before timers and replies have their turn, in seconds.
SLICE_SECONDS = 0.003
#: A plugin that has handled so many events within so many seconds is in a flood, and its handler
#: does not block. It takes the turn for a slice.
_FLOOD_EVENTS = 8
_FLOOD_SECONDS = 0.0008
#: How many events of a flood are received at once: what takes so long in seconds, going by the
#: ones before, but no more than so many. Only then are clock and connection looked at, as that
#: costs half of what else is done for an event.
_BATCH_SECONDS = 0.0005
_BATCH_EVENTS = 128
#: How long one that has lost its turn does without, in seconds.
_NO_TURN_SECONDS = 1.0
#: For how long a poll, or a look at the connection, is good, in seconds. It is shorter than the
#: time in which a connection can be lost and come to stand again.
_FRESH = 0.05
#: More batches than a slice can hold.
_MANY = 100_000
#: How a payload begins, and all topics come before it: more is not looked at in the hot path.
_OPENING = b"{"
_NOBLOCK = int(zmq.NOBLOCK)
_TOPIC_PLUGINS = PREFIX + b"plugin:"


def without_plugins(handler: Callable[[Frames], Any]) -> Callable[[Frames], Any]:
    """Leave out the events of circusd's own plugin watchers."""

    def handle_others(frames: Frames) -> Any:
        return None if frames[0].startswith(_TOPIC_PLUGINS) else handler(frames)

    return handle_others


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
        self._task: asyncio.Task[None] | None = None  # awaits what is in the backlog, in order
        self._backlog: deque[tuple[Awaitable[object], str]] = deque()
        self._rest: Iterator[Frames] = iter(())  # received, and not yet handed over
        self._left: Iterator[object] = iter(())  # as many as those
        self._place = Place()
        self._no_turn_until = 0.0
        self.stopping = False

    def start(self, handler: Callable[[Frames], Any]) -> None:
        """Hand each event to `handler` from now on."""
        self._set_handler(handler)
        if not self.stopping:
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

        self._set_handler(handle_observed)

    def halt(self) -> None:
        """Take no further event; from any thread, at the end of the handler in hand."""
        self.stopping = True
        self._handler = None
        turn.cancel(self._place)

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
        self._leave_rest()
        self._ignore_socket()

    def _leave_rest(self) -> None:
        """Let go of events that nobody will handle: they count as never received."""
        self._counters.received -= sum(1 for _ in self._rest)

    def _set_handler(self, handler: Callable[[Frames], Any]) -> None:
        self._handler = handler
        if self.stopping:  # by another thread, a moment ago
            self._handler = None

    def _drain(self) -> None:
        """Take events until there is none, one is to be awaited, or the slice is over.

        A lone event, a few of them, and a flood are told apart: only a flood is worth the turn,
        and a lone one is not worth the receive that finds nothing.
        """
        connection = self._connection
        began = time.monotonic()
        if began - self._loop.selector.busy_since > _FRESH or not connection.up:
            # An event may be the first one of a new connection. libzmq tells of that before it
            # lets the event through, but a poll may come to see the event alone.
            connection.look()
            began = time.monotonic()
        socket, up = connection.socket, connection.up
        if socket is None or self._backlog or not self._hand_over():
            return
        if self._task is not None and not up:
            return  # no poll has told of the next event
        end = began + SLICE_SECONDS
        if not self._take(1, 1, end) or not up or not is_readable(socket):
            return
        if not self._take(_FLOOD_EVENTS - 1, 1, end):
            return
        now = time.monotonic()
        if now - began > _FLOOD_SECONDS or now < self._no_turn_until:
            self._take(_MANY, 1, end)
        elif turn.take(self._place):
            try:
                begins = time.monotonic()
                if begins - now > _FRESH:
                    connection.look()
                if connection.up and not self._backlog:
                    count = int(_BATCH_SECONDS * _FLOOD_EVENTS / max(now - began, 1e-9)) + 1
                    self._take(_MANY, min(count, _BATCH_EVENTS), begins + SLICE_SECONDS)
            finally:
                if not turn.give(self._place):
                    self._no_turn_until = time.monotonic() + _NO_TURN_SECONDS

    def _take(self, times: int, count: int, end: float) -> bool:
        """Receive and hand over `count` events, `times` times; returns whether all came in time."""
        for _ in range(times):
            all_came = self._receive(count)
            if not self._hand_over() or not all_came or time.monotonic() > end:
                return False
        return True

    # The hot path: receives that do not wait, all in one `map`, a look at how the frames begin,
    # and the call in `_hand_over`.

    def _receive(self, count: int) -> bool:
        """Receive up to `count` events; returns whether so many were there."""
        socket = self._connection.socket
        if socket is None or self._handler is None:
            return False
        frames: list[bytes] = []
        try:
            frames.extend(map(socket.recv, repeat(_NOBLOCK, 2 * count)))
        except zmq.Again:  # what came is in the list all the same
            if not frames:
                return False
        topics, payloads = frames[::2], frames[1::2]
        if len(topics) != len(payloads) or max(topics) >= _OPENING or min(payloads) < _OPENING:
            self._left = self._rest = iter(self._sort_out(frames))
        else:
            self._left = left = iter(topics)
            self._rest = zip(left, payloads, strict=True)
        self._counters.received += length_hint(self._left)
        return len(frames) >= 2 * count

    def _hand_over(self) -> bool:
        """Hand over what was received; returns False if one is awaited, or the handler is gone."""
        counters, left = self._counters, self._left
        # What is neither left nor one of these is handled, which is counted at the end, and when a
        # handler fails.
        unhandled = counters.received - length_hint(left) - counters.handled
        try:
            for frames in self._rest:
                handler = self._handler
                if handler is None:
                    counters.received -= 1
                    self._leave_rest()
                    return False
                try:
                    result = handler(frames)
                    if result is not None and inspect.isawaitable(result):
                        unhandled += 1
                        self.await_in_order(result, "handle_recv")  # which counts it
                        return False
                except (SystemExit, KeyboardInterrupt):
                    unhandled += 1
                    raise
                except BaseException as error:  # noqa: BLE001 - contained, logged and counted
                    unhandled += 1
                    counters.handled = counters.received - length_hint(left) - unhandled
                    self._on_error(error, "handle_recv")
            return self._handler is not None
        finally:
            counters.handled = counters.received - length_hint(left) - unhandled

    def _sort_out(self, frames: list[bytes]) -> list[Frames]:
        """Find the events among frames of which one is not what it should be.

        A message begins with a topic, as nothing else is subscribed to. So what looks like one is
        taken for the beginning of a message, but where the socket says that it is not.
        """
        socket = self._connection.socket
        assert socket is not None
        messages: list[list[bytes]] = []
        for frame in frames:
            if frame.startswith(PREFIX) or not messages:
                messages.append([])
            messages[-1].append(frame)
        while socket.getsockopt(zmq.RCVMORE):
            messages[-1].append(socket.recv())
        events: list[Frames] = []
        for message in messages:
            topic, payload = [*message, b""][:2]
            if topic.startswith(PREFIX) and payload.lstrip().startswith(_OPENING):
                events.append((topic, payload))
                del message[:2]
            if message:
                self._garbage(message[0])
        return events

    def _garbage(self, topic: bytes) -> None:
        self._on_garbage(topic)
        self._counters.garbage += 1  # last: who waits for it finds the rest done

    def await_in_order(self, awaitable: Awaitable[object], what: str) -> None:
        """Await a handler's result; no further event is taken until it is there."""
        self._backlog.append((awaitable, what))
        if self._task is None:
            self._ignore_socket()
            self._task = self._loop.create_task(self._await_all())
            self._task.add_done_callback(self._all_awaited)

    async def _await_all(self) -> None:
        """Await one result after the other, as long as there are events at hand."""
        while self._backlog and not self.stopping:
            awaitable, what = self._backlog.popleft()
            try:
                await awaitable
                if what == "handle_recv":
                    self._counters.handled += 1
            except asyncio.CancelledError as error:
                if self.stopping:  # it is this task that is meant
                    raise
                self._on_error(error, what)
            except Exception as error:  # noqa: BLE001 - contained, logged and counted
                self._on_error(error, what)
            if time.monotonic() - self._loop.selector.busy_since > SLICE_SECONDS:
                await asyncio.sleep(0)  # the others' turn
                self._connection.look()  # whose own turn may come after this one's
            if not self._backlog:
                self._drain()

    def _all_awaited(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled():
            task.exception()  # a SystemExit has ended the loop, and is known
        if self._backlog and not self.stopping:
            self.await_in_order(*self._backlog.pop())  # the task was cancelled before it began
        else:
            self._watch()

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
