# The commands that are under way on a plugin's loop, and the sockets that they go through.
#
# A call waits to be sent (`_unsent`), or for its reply (`Channel.calls`), or, after a conflict,
# to be sent again; its timer runs at the end of the wait. A cast is a call whose sender waits
# only until it is sent.
#
# Owner: the plugin's thread.

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import zmq

from .._errors import CallError
from .._logs import Repeats
from .._loop.plugin_loop import PluginLoop
from .._wire.commands import Reply, encode_command, error_from_reply, is_conflict
from .._wire.endpoints import MAX_MESSAGE
from .calls import UNREACHABLE, Call, cannot_send, not_waited_for
from .channel import Channel
from .conflict_retry import longer, next_try
from .status import Counters

#: How many casts may wait for their replies; with as many a further one is refused.
MOST_CASTS = 10_000
#: How long the last casts may take to leave when the plugin stops, in milliseconds.
_FAREWELL = 200


class OpenCalls:
    """Calls whose outcome is still to come.

    Args:
        loop: The plugin's loop.
        make_socket: Makes a connected DEALER socket; called once at first and once after each
            call that timed out.
        counters: Where to count what is sent, conflicts, and casts that failed.
        logger: Told of casts that failed.
        max_message: The largest reply that is accepted, in bytes.

    Attributes:
        channel: Where the next call goes; None before `open` and after `close`.
        casts: The casts that were sent, by id.
        last_id: The id of the last command.
    """

    def __init__(
        self,
        loop: PluginLoop,
        make_socket: Callable[[], zmq.Socket[bytes]],
        counters: Counters,
        logger: logging.Logger,
        max_message: int = MAX_MESSAGE,
    ) -> None:
        self.channel: Channel | None = None
        self.casts: dict[int, Call] = {}
        self.last_id = 0
        self._loop = loop
        self._make_socket = make_socket
        self._max_message = max_message
        self._counters = counters
        self._logger = logger
        self._repeats = Repeats()
        self._retired: list[Channel] = []
        self._unsent: dict[int, Call] = {}

    def open(self) -> None:
        """Connect."""
        self.channel = self._fresh_channel()

    def close(self) -> None:
        """Fail what is under way and close the sockets.

        Casts that are sent are let go, but for those that have met a conflict.
        """
        for channel in self.channels:
            self.read(channel)
        calls, channels = self._all, self.channels
        linger = _FAREWELL if self.casts else 0
        self.channel = None
        self._retired.clear()
        for call in calls:
            if call.conflict is not None:
                self.finish(call, call.conflict, None)
            elif call.id in self.casts:
                self.finish(call, {}, None)
            else:
                self.finish(call, None, cannot_send(call.command))
        for channel in channels:
            self._shut(channel, linger)

    def move_to(self, loop: PluginLoop) -> None:
        """Have another loop watch the sockets and the deadlines."""
        channels = self.channels
        for channel in channels:
            self._watch(channel, False, False)
        before, self._loop = self._loop, loop
        for call in self._all:
            if call.timer is not None:
                left = max(0.0, call.timer.when() - before.time())
                call.timer.cancel()
                call.timer = loop.call_later(left, self._due, call)
        for channel in channels:
            self._watch_open(channel)

    @property
    def channels(self) -> list[Channel]:
        """Where commands went, and go."""
        return [*self._retired, *([self.channel] if self.channel else [])]

    @property
    def _all(self) -> list[Call]:
        sent = [call for channel in self.channels for call in channel.calls.values()]
        return [*self._unsent.values(), *sent]

    # Sending.

    def start(self, call: Call) -> None:
        """Send without waiting; `on_done` hears the outcome.

        Raises:
            CallError: It cannot be said in JSON, or too many casts wait for their replies.
            PluginStateError: There is no channel.
        """
        self.prepare(call)
        self._unsent[call.id] = call
        self._set_timer(call, call.remaining)
        self._flush(call)

    def prepare(self, call: Call) -> Channel:
        """Give a call its id and its frame; raises as `start` does."""
        if self.channel is None:
            raise cannot_send(call.command)
        if call.is_cast and len(self.casts) >= MOST_CASTS:
            raise call.timed_out(f"not sent, no reply to {MOST_CASTS} casts before it")
        self.last_id = call.id = self.last_id + 1
        call.frame = encode_command(call.id, call.command, call.properties, call.is_cast)
        return self.channel

    def sent(self, call: Call, channel: Channel) -> None:
        """Expect the reply to a call that was sent."""
        channel.calls[call.id] = call
        call.channel = channel
        if call.is_cast and call.id not in self.casts:
            self.casts[call.id] = call
            on_done, call.on_done = call.on_done, functools.partial(self._cast_done, call)
            call.allow_reply()
            self._set_timer(call, call.remaining)
            if on_done is not None:
                on_done({}, None)
        self._watch_open(channel)

    def _flush(self, new: Call | None = None) -> None:
        """Send what is to be sent, if there is a connection."""
        channel = self.channel
        if channel is None:
            return
        for call in list(self._unsent.values()):
            if call is not new and not call.remaining:
                # This thread was busy, so its timer is late. Nobody waits for it any more.
                self._give_up(call)
                continue
            try:
                channel.socket.send(call.frame, zmq.NOBLOCK)
            except zmq.Again:
                break
            except zmq.ZMQError as error:
                self.finish(call, None, CallError(call.command, call.properties, str(error)))
                continue
            del self._unsent[call.id]
            self._counters.calls += 1
            self.sent(call, channel)
        self._watch_open(channel)

    # Replies, and when there is none.

    def read(self, channel: Channel) -> None:
        """Take the replies that are there."""
        try:
            while channel.calls:
                reply = channel.receive_now()
                if reply is not None:
                    self.dispatch(channel, reply)
        except zmq.Again:
            pass

    def dispatch(self, channel: Channel, reply: Reply) -> None:
        """Take a reply to its call, which after a conflict is sent again if there is time."""
        reply_id = reply.get("id")
        call = channel.calls.get(reply_id) if isinstance(reply_id, int) else None
        if call is None:
            return
        if is_conflict(reply):
            self._counters.conflicts += 1
            moment = next_try(call.delay, call.patient_until, self._loop.time())
            if moment is not None:
                call.conflict = reply
                if call.patience is not None:
                    call.deadline = moment + call.timeout
                self._set_timer(call, call.delay)
                call.delay = longer(call.delay)
                return
        self.finish(call, reply, None)

    def _set_timer(self, call: Call, seconds: float) -> None:
        if call.timer is not None:
            call.timer.cancel()
        if not self._loop.is_closed():  # the plugin may have done so
            call.timer = self._loop.call_later(seconds, self._due, call)

    def _due(self, call: Call) -> None:
        """Send a call again that met a conflict; give up one whose deadline is over."""
        if call.conflict is None or not call.remaining:
            self._give_up(call)
            return
        call.conflict = None
        self._take_off(call)
        self._unsent[call.id] = call
        self._set_timer(call, call.remaining)
        self._flush(call)

    def _give_up(self, call: Call) -> None:
        channel = call.channel
        if call.conflict is not None:
            self.finish(call, call.conflict, None)
        elif channel is None:
            self.finish(call, None, call.timed_out(UNREACHABLE))
        else:
            self.finish(call, None, call.timed_out("no reply"))
            self.retire(channel)

    def stop_waiting(self) -> None:
        """End those calls that wait until the work is done; it is done all the same."""
        for call in self._all:
            if not call.properties.get("waiting") or call.is_cast:
                continue
            if call.channel is not None:
                self.finish(call, not_waited_for(call.id), None)
            else:
                self.finish(call, None, cannot_send(call.command, "the plugin stops"))

    def finish(self, call: Call, reply: Reply | None, error: Exception | None) -> None:
        """Forget a call and tell the outcome, if that was not done before."""
        if call.timer is not None:
            call.timer.cancel()
        self._unsent.pop(call.id, None)
        self.casts.pop(call.id, None)
        self._take_off(call)
        on_done, call.on_done = call.on_done, None
        if on_done is not None:
            on_done(reply, error)

    def _cast_done(self, call: Call, reply: Reply | None, error: Exception | None) -> None:
        error = error or error_from_reply(call.command, call.properties, reply or {})
        if error is not None:
            self._counters.casts_failed += 1
            what = f"{type(error).__name__} {call.command} {call.properties.get('name')!r:.100}"
            self._repeats.log_warning(self._logger, what, "cast failed: %s", error)

    # Sockets.

    def retire(self, channel: Channel) -> None:
        """Put a fresh socket in place; the old one stays only for the calls open on it."""
        if channel is not self.channel:
            return  # that was done
        try:
            fresh = self._fresh_channel()
        except zmq.ZMQError as error:
            text = "no fresh connection to circusd, keeping the old one: %s"
            self._repeats.log_warning(self._logger, "connection", text, error)
            return
        self.channel = fresh
        self._retired.append(channel)
        self._watch_open(channel)
        self._flush()

    def _fresh_channel(self) -> Channel:
        return Channel(self._make_socket(), self._counters, self._max_message, self._loop.time)

    def _take_off(self, call: Call) -> None:
        channel, call.channel = call.channel, None
        if channel is not None:
            channel.calls.pop(call.id, None)
            self._watch_open(channel)

    def _watch_open(self, channel: Channel) -> None:
        """Have the loop watch a socket for what is open on it; close an old one if nothing is."""
        if not channel.calls and channel in self._retired:
            self._retired.remove(channel)
            self._shut(channel)
        else:
            writes = bool(self._unsent) and channel is self.channel
            self._watch(channel, bool(channel.calls), writes)

    def _watch(self, channel: Channel, reads: bool, writes: bool) -> None:
        if channel.watched == (reads, writes) or self._loop.is_closed() or channel.socket.closed:
            return
        channel.watched = (reads, writes)
        self._loop.watch_socket(
            channel.socket,
            (lambda: self.read(channel)) if reads else None,
            self._flush if writes else None,
        )

    def _shut(self, channel: Channel, linger: int = 0) -> None:
        self._watch(channel, False, False)
        channel.socket.close(linger)
