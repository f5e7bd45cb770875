# The DEALER side of a plugin: commands to circusd, with ids and deadlines.
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
import time
from collections.abc import Callable, Mapping
from typing import Any

import zmq

from .._errors import CallError, CallTimeout
from .._loop.plugin_loop import PluginLoop
from .._status import Counters
from .._wire.commands import Reply, encode_command, is_conflict
from .._wire.endpoints import MAX_MESSAGE
from .calls import UNREACHABLE, Call, cannot_send, limits
from .calls_from_threads import Handover
from .channel import Channel
from .conflict_retry import FIRST_DELAY, longer, next_try
from .open_calls import MOST_CASTS, OpenCalls


class Client:
    """Sends commands and casts to circusd, from any thread.

    Args:
        loop: The plugin's loop.
        make_socket: Makes a connected DEALER socket; called on the plugin's thread, once at
            first and once after each call that timed out.
        counters: Where to count what is sent, conflicts, and casts that failed.
        logger: Told of casts that failed.
        max_message: The largest reply that is accepted, in bytes.
    """

    def __init__(
        self,
        loop: PluginLoop,
        make_socket: Callable[[], zmq.Socket[bytes]],
        counters: Counters,
        logger: logging.Logger,
        max_message: int = MAX_MESSAGE,
    ) -> None:
        self._counters = counters
        self._calls = OpenCalls(loop, make_socket, counters, logger, max_message)
        self._handover = Handover(self._post, self._calls.start)
        self._owner: int | None = None
        self._plugin_loop = loop
        self._parked_loop: PluginLoop | None = None
        self._parked_over = threading.Event()
        self._inherited: Channel | None = None

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
        self._calls.move_to(loop)
        self._parked_loop = loop
        loop.call_soon(self._handover.serve_all)  # what was posted to the plugin's loop
        if not self._parked_over.is_set():
            loop.run_forever()

    def end_parked(self) -> None:
        """Let `serve_parked` return; from any thread."""
        self._parked_over.set()
        if self._parked_loop is not None:
            self._parked_loop.stop_threadsafe()

    def _post(self, callback: Callable[[], object]) -> None:
        (self._parked_loop or self._plugin_loop).post(callback)

    def refuse(self, why: str) -> None:
        """Fail other threads' further calls at once, instead of at their deadline."""
        self._handover.close(why)

    def disown(self) -> None:
        """In a forked process: refuse every command, as the sockets are the parent's."""
        self._inherited, self._calls.channel = self._calls.channel, None  # it is not to be closed

    def close(self) -> None:
        """Fail what is under way and close the sockets."""
        self._handover.close()
        self._calls.close()
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
        call = Call(command, properties, timeout, patience)
        return self._handover.wait(call, self._handover.submit(call))

    def cast(self, command: str, properties: Mapping[str, Any]) -> None:
        """Send a command whose reply is not waited for; see `CircusPlugin.cast`."""
        call = Call(command, properties, is_cast=True)
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
        call = Call(command, properties, timeout, patience)
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
        self._calls.start(call)
        try:
            return await future
        finally:
            if call.on_done is not None:  # awaiting it was cancelled
                call.on_done = None
                self._calls.finish(call, None, None)

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
        calls = self._calls
        timeout, deadline, patient_until = limits(properties, timeout, patience)
        calls.last_id = call_id = calls.last_id + 1
        frame = encode_command(call_id, command, properties)
        delay = FIRST_DELAY
        try:
            while True:
                channel = self._send_here(frame, command, properties, timeout, deadline)
                reply = self._receive_here(channel, call_id, deadline)
                if reply is None:
                    calls.retire(channel)
                    raise CallTimeout(command, properties, timeout, "no reply")
                if reply.get("status") != "error" or not is_conflict(reply):
                    return reply
                self._counters.conflicts += 1
                moment = next_try(delay, patient_until)
                if moment is None:
                    return reply
                self._receive_here(channel, 0, moment)
                if patience is not None:
                    deadline = moment + timeout
                delay = longer(delay)
        except zmq.ZMQError as error:
            raise CallError(command, properties, str(error)) from error

    def _cast_here(self, call: Call) -> None:
        """Send a cast; wait only for a connection, or for room if there are too many casts."""
        channel, casts = self._calls.channel, self._calls.casts
        while channel is not None and len(casts) >= MOST_CASTS and call.remaining:
            self._receive_here(channel, 0, time.monotonic() + FIRST_DELAY)
        self._calls.prepare(call)
        channel = self._send_here(
            call.frame, call.command, call.properties, call.timeout, call.deadline
        )
        self._calls.sent(call, channel)

    def _send_here(
        self,
        frame: bytes,
        command: str,
        properties: Mapping[str, Any],
        timeout: float,
        deadline: float,
    ) -> Channel:
        """Send, waiting for a connection until the deadline if there is none."""
        channel = self._calls.channel
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

    def _receive_here(self, channel: Channel, call_id: int, until: float) -> Reply | None:
        """Wait for the reply with that id (0: for none), and pass on the others."""
        try:
            while True:
                reply = channel.receive(until)
                if reply is not None:
                    if reply.get("id") == call_id:
                        return reply
                    self._calls.dispatch(channel, reply)
        except zmq.Again:
            return None
