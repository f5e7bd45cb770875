# The DEALER side of a plugin: commands to circusd, with ids and deadlines. Where the host takes
# circusd's commands in its place, those about plugins go to that door, over a socket that is made
# for the first of them; the others go straight to circusd.
#
# There are two ways to send and receive. A `call` or `cast` on the plugin's own thread blocks it
# and touches nothing but the socket. All others, those of other threads and `call_async`, go over
# the loop, see open_calls.py: the plugin's loop, and, while the plugin is parked, one that has
# nothing else to do.
#
# Owner: the plugin's thread. Any other thread hands its call over, see calls_from_threads.py.

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import zmq

from .._errors import CallError, CallTimeout
from .._loop.plugin_loop import PluginLoop
from .._wire.about_plugins import is_about_plugins
from .._wire.commands import Reply, encode_command, is_conflict
from .._wire.endpoints import MAX_MESSAGE
from .calls import UNREACHABLE, Call, cannot_send, limits, not_waited_for
from .calls_from_threads import Handover
from .channel import Channel
from .conflict_retry import FIRST_DELAY, longer, next_try
from .open_calls import MOST_CASTS, OpenCalls
from .status import Counters

#: How often one that waits for the end of what it has asked of the host looks whether it is to
#: stop itself, in seconds.
_LOOK = 0.05


class Client:
    """Sends commands and casts to circusd, from any thread.

    Args:
        loop: The plugin's loop.
        make_socket: Makes a connected DEALER socket; called on the plugin's thread, once at
            first and once after each call that timed out.
        counters: Where to count what is sent, conflicts, and casts that failed.
        logger: Told of casts that failed.
        max_message: The largest reply that is accepted, in bytes.
        make_door_socket: The same as `make_socket`, for commands about plugins; None: there is no
            door, and they go where all go.
    """

    def __init__(
        self,
        loop: PluginLoop,
        make_socket: Callable[[], zmq.Socket[bytes]],
        counters: Counters,
        logger: logging.Logger,
        max_message: int = MAX_MESSAGE,
        make_door_socket: Callable[[], zmq.Socket[bytes]] | None = None,
    ) -> None:
        self._counters = counters
        self._clock = loop.time  # deadlines are told by it
        more = counters, logger, max_message
        self._calls = OpenCalls(loop, make_socket, *more)
        self._door = OpenCalls(loop, make_door_socket, *more) if make_door_socket else None
        self._stopping = False
        self._handover = Handover(self._post, self._start)
        self._owner: int | None = None
        self._plugin_loop = loop
        self._parked_loop: PluginLoop | None = None
        self._parked_over = threading.Event()
        self._inherited: list[Channel | None] = []

    # Life, all of it on the plugin's thread.

    def open(self) -> None:
        """Make the calling thread the owner and connect."""
        self._owner = threading.get_ident()
        self._calls.open()
        self._handover.open()

    def renew(self) -> None:
        """Connect anew now that circusd is there: the old socket may not try for seconds."""
        if self._calls.channel is not None:
            self._calls.retire(self._calls.channel)

    def serve_parked(self) -> None:
        """Carry out other threads' calls, and nothing else, until `end_parked`."""
        try:
            loop = PluginLoop()
        except OSError as error:
            self.refuse(f"the plugin stops, and no descriptor is left: {error}")
            self._parked_over.wait()
            return
        for calls in self.ways:
            calls.move_to(loop)
        self._parked_loop = loop
        loop.call_soon(self._handover.serve_all)  # what was posted to the plugin's loop
        if not self._parked_over.is_set():
            loop.run_forever()

    def end_parked(self) -> None:
        """Let `serve_parked` return; from any thread."""
        self._parked_over.set()
        if self._parked_loop is not None:
            self._parked_loop.stop_threadsafe()

    def stop_waiting(self) -> None:
        """Wait no longer for the end of what the host was asked for; from any thread.

        It may be the end of this very plugin, or wait for that.
        """
        if self._door is not None:
            self._stopping = True
            self._post(self._door.stop_waiting)

    @property
    def ways(self) -> list[OpenCalls]:
        """The calls to circusd, and those to the door if there is one."""
        return [self._calls] if self._door is None else [self._calls, self._door]

    def _post(self, callback: Callable[[], object]) -> None:
        (self._parked_loop or self._plugin_loop).post(callback)

    def refuse(self, why: str) -> None:
        """Fail other threads' further calls at once, instead of at their deadline."""
        self._handover.close(why)

    def disown(self) -> None:
        """In a forked process: refuse every command, as the sockets are the parent's."""
        for calls in self.ways:
            self._inherited.append(calls.channel)  # it is not to be closed
            calls.channel = None

    def close(self) -> None:
        """Fail what is under way and close the sockets."""
        self._handover.close()
        for calls in self.ways:
            calls.close()
        self._handover.serve_all()
        if self._parked_loop is not None:
            self._parked_loop.close()

    # Commands, from any thread.

    def call(
        self,
        command: str,
        properties: Mapping[str, Any],
        timeout: float | None = None,
        patience: float | None = None,
    ) -> Reply:
        """Send a command and wait for its reply; see `CircusPlugin.call`."""
        if threading.get_ident() == self._owner:
            return self._call_here(command, properties, timeout, patience)
        call = Call(command, properties, timeout, patience, clock=self._clock)
        return self._handover.wait(call, self._handover.submit(call))

    def cast(self, command: str, properties: Mapping[str, Any]) -> None:
        """Send a command whose reply is not waited for; see `CircusPlugin.cast`."""
        call = Call(command, properties, is_cast=True, clock=self._clock)
        if threading.get_ident() == self._owner:
            self._cast_here(call)
        else:
            self._handover.wait(call, self._handover.submit(call))

    async def call_async(
        self,
        command: str,
        properties: Mapping[str, Any],
        timeout: float | None = None,
        patience: float | None = None,
    ) -> Reply:
        """Send a command and await its reply; see `CircusPlugin.call_async`."""
        call = Call(command, properties, timeout, patience, clock=self._clock)
        if threading.get_ident() != self._owner:
            return await self._handover.wait_async(call, self._handover.submit(call))
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def tell(reply: Reply | None, error: Exception | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(reply or {})

        call.on_done = tell
        way = self._start(call)
        try:
            return await future
        finally:
            if call.on_done is not None:  # awaiting it was cancelled
                call.on_done = None
                way.finish(call, None, None)

    def _start(self, call: Call) -> OpenCalls:
        way = self._way(call.command, call.properties)
        if way is self._door and self._stopping:
            call.properties = {**call.properties, "waiting": False}
        way.start(call)
        return way

    def _way(self, command: str, properties: Mapping[str, Any]) -> OpenCalls:
        """Where a command goes.

        Raises:
            CallError: There is no descriptor left for a connection to the door.
        """
        door = self._door
        if door is None or not is_about_plugins(command, properties):
            return self._calls
        if door.channel is None and self._calls.channel is not None:
            try:
                door.open()
            except zmq.ZMQError as error:
                raise CallError(command, properties, str(error)) from error
        return door

    # The blocking way, on the plugin's thread.

    def _call_here(
        self,
        command: str,
        properties: Mapping[str, Any],
        timeout: float | None,
        patience: float | None,
    ) -> Reply:
        """Send and wait, blocking the plugin's thread; other calls' replies are passed on.

        There is no `Call`, no timer and no poll: beside JSON and the socket it costs nothing.
        """
        calls = self._calls if self._door is None else self._way(command, properties)
        timeout, deadline, patient_until = limits(properties, timeout, patience, self._clock())
        calls.last_id = call_id = calls.last_id + 1
        frame = encode_command(call_id, command, properties)
        delay = FIRST_DELAY
        try:
            while True:
                channel = self._send_here(calls, frame, command, properties, timeout, deadline)
                if calls is self._door and properties.get("waiting"):
                    reply = self._receive_from_door(calls, channel, call_id, deadline)
                else:
                    reply = self._receive_here(calls, channel, call_id, deadline)
                if reply is None:
                    calls.retire(channel)
                    raise CallTimeout(command, properties, timeout, "no reply")
                if reply.get("status") != "error" or not is_conflict(reply):
                    return reply
                self._counters.conflicts += 1
                moment = next_try(delay, patient_until, self._clock())
                if moment is None:
                    return reply
                self._receive_here(calls, channel, 0, moment)
                if patience is not None:
                    deadline = moment + timeout
                delay = longer(delay)
        except zmq.ZMQError as error:
            raise CallError(command, properties, str(error)) from error

    def _cast_here(self, call: Call) -> None:
        """Send a cast; wait only for a connection, or for room if there are too many casts."""
        calls = self._way(call.command, call.properties)
        channel, casts = calls.channel, calls.casts
        while channel is not None and len(casts) >= MOST_CASTS and call.remaining:
            self._receive_here(calls, channel, 0, self._clock() + FIRST_DELAY)
        calls.prepare(call)
        channel = self._send_here(
            calls, call.frame, call.command, call.properties, call.timeout, call.deadline
        )
        calls.sent(call, channel)

    def _send_here(
        self,
        calls: OpenCalls,
        frame: bytes,
        command: str,
        properties: Mapping[str, Any],
        timeout: float,
        deadline: float,
    ) -> Channel:
        """Send, waiting for a connection until the deadline if there is none."""
        channel = calls.channel
        if channel is None:
            raise cannot_send(command)
        try:
            channel.send(frame, deadline)
        except zmq.Again:
            raise CallTimeout(command, properties, timeout, UNREACHABLE) from None
        except zmq.ZMQError as error:
            raise CallError(command, properties, str(error)) from error
        self._counters.calls += 1
        return channel

    def _receive_here(
        self, calls: OpenCalls, channel: Channel, call_id: int, until: float
    ) -> Reply | None:
        """Wait for the reply with that id (0: for none), and pass on the others."""
        try:
            while True:
                reply = channel.receive(until)
                if reply is not None:
                    if reply.get("id") == call_id:
                        return reply
                    calls.dispatch(channel, reply)
        except zmq.Again:
            return None

    def _receive_from_door(
        self, calls: OpenCalls, channel: Channel, call_id: int, until: float
    ) -> Reply | None:
        """The same, for a call that may wait for the end of this very plugin."""
        while not self._stopping:
            look_at = min(until, self._clock() + _LOOK)
            reply = self._receive_here(calls, channel, call_id, look_at)
            if reply is not None or look_at == until:
                return reply
        return not_waited_for(call_id)
