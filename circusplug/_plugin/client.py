# The DEALER side of a plugin: commands to circusd, with ids and deadlines.
#
# Owner: the sockets and the tables of open calls belong to the plugin's thread. Any other
# thread hands its call over, see calls_from_threads.py.

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import zmq

from .._errors import CallError, CallTimeout, PluginStateError
from .._loop.plugin_loop import PluginLoop
from .._wire.commands import Reply, encode_call, encode_cast
from .calls import UNREACHABLE, Call, Channel, cannot_send, seconds_for
from .calls_from_threads import Handover


class Client:
    """Sends commands and casts to circusd, from any thread.

    Args:
        loop: The plugin's loop.
        make_socket: Makes a connected DEALER socket; called on the plugin's thread, once at
            first and once after each call that timed out.
        count_call: Called for each command sent.
    """

    def __init__(
        self,
        loop: PluginLoop,
        make_socket: Callable[[], zmq.Socket[bytes]],
        count_call: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._make_socket = make_socket
        self._count_call = count_call
        self._channel: Channel | None = None
        self._retired: list[Channel] = []
        self._last_id = 0
        self._owner: int | None = None
        self._handover = Handover(self._post, self._serve)
        self._parked_over = False

    # Life, all of it on the plugin's thread.

    def open(self) -> None:
        """Make the calling thread the owner and connect."""
        self._owner = threading.get_ident()
        self._channel = Channel(self._make_socket())
        self._handover.open()

    def renew(self) -> None:
        """Connect anew now that circusd is there: the old socket may not try for seconds."""
        if self._channel is not None:
            self._retire(self._channel)

    def serve_parked(self) -> None:
        """Carry out other threads' calls, and nothing else, until `end_parked`.

        That takes a loop on which nothing of the plugin is: what it has put on its own stays there.
        """
        loop = PluginLoop()
        try:
            self._loop = loop
            for channel in self._channels:
                for call in channel.open_calls:
                    self._set_timer(call)
                self._watch(channel)
            # What was handed over to the other loop, and not carried out by that any more.
            loop.call_soon(self._handover.serve_rest)
            if not self._parked_over:
                loop.run_forever()
        finally:
            loop.close()

    def end_parked(self) -> None:
        """Let `serve_parked` return; from any thread."""
        self._parked_over = True
        self._loop.stop_threadsafe()

    @property
    def _channels(self) -> list[Channel]:
        return [*self._retired, *([self._channel] if self._channel else [])]

    def refuse(self, why: str) -> None:
        """Fail other threads' further calls at once, instead of at their deadline."""
        self._handover.close(why)

    def close(self) -> None:
        """Fail what is under way and close the sockets."""
        self._handover.close()
        channels = self._channels
        self._channel = None
        self._retired.clear()
        self._handover.serve_rest()
        for channel in channels:
            for call in channel.open_calls:
                self._finish(call, None, self._cannot_send(call.command))
            self._shut(channel)

    # Calls, from any thread.

    def call(self, command: str, properties: Mapping[str, Any], timeout: float | None) -> Reply:
        """Send a command and wait for its reply; see `CircusPlugin.call`."""
        if threading.get_ident() == self._owner:
            timeout = seconds_for(properties, timeout)
            return self._call_here(command, properties, timeout, time.monotonic() + timeout)
        return self._hand_over(Call(command, properties, timeout))

    def cast(self, command: str, properties: Mapping[str, Any]) -> None:
        """Send a command that gets no reply; see `CircusPlugin.cast`."""
        timeout = seconds_for({}, None)  # "waiting" or not: it need only be sent
        if threading.get_ident() == self._owner:
            self._send_here(command, properties, timeout, time.monotonic() + timeout, 0)
        else:
            self._hand_over(Call(command, properties, timeout, wants_reply=False))

    async def call_async(
        self, command: str, properties: Mapping[str, Any], timeout: float | None
    ) -> Reply:
        """Send a command and await its reply; see `CircusPlugin.call_async`."""
        call = Call(command, properties, timeout)
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
        self._start(call)
        try:
            return await future
        finally:
            if call.on_done is not None:  # awaiting it was cancelled
                call.on_done = None
                self._finish(call, None, None)

    # On the plugin's thread.

    def _assign(self, call: Call) -> Channel:
        """Give a call its channel, its id and its frame."""
        if self._channel is None:
            raise self._cannot_send(call.command)
        self._last_id += 1
        call.id = self._last_id
        if call.wants_reply:
            call.frame = encode_call(call.id, call.command, call.properties)
        else:
            call.frame = encode_cast(call.command, call.properties)
        call.channel = self._channel
        return self._channel

    def _send_here(
        self,
        command: str,
        properties: Mapping[str, Any],
        timeout: float,
        deadline: float,
        call_id: int,
    ) -> Channel:
        """Send, waiting for a connection until the deadline if there is none; id 0: a cast."""
        channel = self._channel
        if channel is None:
            raise self._cannot_send(command)
        if call_id:
            frame = encode_call(call_id, command, properties)
        else:
            frame = encode_cast(command, properties)
        try:
            try:
                channel.socket.send(frame, 1)  # zmq.NOBLOCK: with a connection it fits
            except zmq.Again:
                channel.limit_send(max(0.0, deadline - time.monotonic()))
                channel.socket.send(frame)
        except zmq.Again:
            raise CallTimeout(command, properties, timeout, UNREACHABLE) from None
        except zmq.ZMQError as error:
            raise CallError(command, properties, str(error)) from error
        self._count_call()
        return channel

    def _call_here(
        self, command: str, properties: Mapping[str, Any], timeout: float, deadline: float
    ) -> Reply:
        """Send and wait, blocking the plugin's thread; other calls' replies are passed on.

        There is no `Call`, no timer and no poll: beside JSON and the socket it costs nothing.
        """
        self._last_id = call_id = self._last_id + 1
        channel = self._send_here(command, properties, timeout, deadline, call_id)
        try:
            while (remaining := deadline - time.monotonic()) > 0:
                channel.limit_receive(remaining)
                reply = channel.receive()
                if reply is not None:
                    if reply.get("id") == call_id:
                        return reply
                    self._dispatch(channel, reply)
        except zmq.Again:
            pass
        except zmq.ZMQError as error:
            raise CallError(command, properties, str(error)) from error
        self._retire(channel)
        raise CallTimeout(command, properties, timeout, "no reply")

    def _start(self, call: Call) -> None:
        """Send without waiting; `on_done` hears the outcome, on the loop."""
        channel = self._assign(call)
        self._set_timer(call)
        channel.unsent[call.id] = call
        self._flush(channel, call)

    def _post(self, serve: Callable[[], object]) -> None:
        self._loop.post(serve)

    def _set_timer(self, call: Call) -> None:
        if call.timer is not None:
            call.timer.cancel()
        call.timer = self._loop.call_later(call.remaining, self._expire, call)

    def _flush(self, channel: Channel, new: Call | None = None) -> None:
        for call in list(channel.unsent.values()):
            if call is not new and not call.remaining:
                # This thread was busy, so its timer is late. Nobody waits for it any more.
                self._expire(call)
                continue
            try:
                channel.socket.send(call.frame, zmq.NOBLOCK)
            except zmq.Again:
                break
            except zmq.ZMQError as error:
                self._finish(call, None, CallError(call.command, call.properties, str(error)))
                continue
            del channel.unsent[call.id]
            self._count_call()
            if call.wants_reply:
                channel.calls[call.id] = call
            else:
                self._finish(call, {}, None)
        self._watch(channel)

    def _watch(self, channel: Channel) -> None:
        if self._loop.is_closed() or channel.socket.closed:
            return
        self._loop.watch_socket(
            channel.socket,
            (lambda: self._on_readable(channel)) if channel.calls else None,
            (lambda: self._flush(channel)) if channel.unsent else None,
        )

    def _on_readable(self, channel: Channel) -> None:
        try:
            while channel.calls:
                reply = channel.receive(zmq.NOBLOCK)
                if reply is not None:
                    self._dispatch(channel, reply)
        except zmq.Again:
            pass

    def _dispatch(self, channel: Channel, reply: Reply) -> None:
        call = channel.call_for(reply)
        if call is not None:
            self._finish(call, reply, None)

    def _expire(self, call: Call) -> None:
        channel = call.channel
        sent = channel is not None and call.id in channel.calls
        self._finish(call, None, call.timed_out("no reply" if sent else UNREACHABLE))
        if sent and channel is not None and channel is self._channel:
            self._retire(channel)

    def _finish(self, call: Call, reply: Reply | None, error: Exception | None) -> None:
        """Take a call off its channel and tell the outcome, if that was not done before."""
        if call.timer is not None:
            call.timer.cancel()
        channel = call.channel
        if channel is not None:
            channel.calls.pop(call.id, None)
            channel.unsent.pop(call.id, None)
            if channel in self._retired and not channel.calls:
                self._retired.remove(channel)
                self._shut(channel)
            else:
                self._watch(channel)
        on_done, call.on_done = call.on_done, None
        if on_done is not None:
            on_done(reply, error)

    def _retire(self, channel: Channel) -> None:
        """Put a fresh socket in place; the old one stays only for the calls open on it."""
        fresh = self._channel = Channel(self._make_socket())
        for call in channel.unsent.values():
            call.channel = fresh
        fresh.unsent.update(channel.unsent)
        channel.unsent.clear()
        if channel.calls:
            self._retired.append(channel)
            self._watch(channel)
        else:
            self._shut(channel)
        if fresh.unsent:
            self._flush(fresh)

    def _cannot_send(self, command: str) -> PluginStateError:
        return cannot_send(command, self._handover.why_closed)

    def _shut(self, channel: Channel) -> None:
        if not self._loop.is_closed():
            self._loop.watch_socket(channel.socket, None)
        channel.socket.close(0)

    # For other threads.

    def _hand_over(self, call: Call) -> Reply:
        return self._handover.wait(call, self._handover.submit(call))

    def _serve(self, call: Call, done: concurrent.futures.Future[Reply]) -> None:
        call.on_done = lambda reply, error: _settle(done, reply, error)
        try:
            self._start(call)
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits
            done.set_exception(error)


def _settle(
    done: concurrent.futures.Future[Reply], reply: Reply | None, error: Exception | None
) -> None:
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(reply or {})
