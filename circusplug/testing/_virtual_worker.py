# A plugin's life by a virtual clock: whether it is at rest, its calls that block, and its events
# one by one. The sockets are real. Whether a reply is on its way is asked through the very
# connection that it would come by: when the answer to that is there, all before it is there.
#
# Owner: the plugin's thread, but `Pilot.wake` and `Pilot.waits_for`, which are for any.

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import zmq

from circusplug._loop.selector import is_readable
from circusplug._plugin.channel import Channel
from circusplug._plugin.client import Client
from circusplug._plugin.open_calls import OpenCalls
from circusplug._plugin.receiver import Frames, Receiver
from circusplug._plugin.worker import Worker
from circusplug._wire.commands import Reply

from ._server import SYNC, FakeServer
from ._virtual_clock import VirtualClock
from ._virtual_loop import VirtualLoop

#: How long one wait for circusd is before it is looked whether that lives, in milliseconds.
_LOOK = 20


class Pilot:
    """Says when a plugin is at rest.

    Args:
        worker: The plugin's.
        clock: What it lives by.
        server: The sockets of the circusd that it is connected to.
    """

    def __init__(self, worker: VirtualWorker, clock: VirtualClock, server: FakeServer) -> None:
        self.clock = clock
        self.server = server
        self._worker = worker
        self.under_way = ""
        self._life = server.lives
        self._synced = (-1, -1)
        self._questions = 0
        #: How many events circusd had published that will not come, less those of other lives.
        self._before = server.matching - self._arrived

    @property
    def released(self) -> bool:
        """Whether the plugin goes on in real time."""
        return self._worker.loop.clock is None

    def wake(self) -> None:
        self._worker.loop.wake()

    def waits_for(self) -> str:
        return self.under_way or "the plugin is busy"

    def is_circusd(self, socket: object) -> bool:
        if socket is self._worker.receiver.socket:
            return True
        return any(
            socket is channel.socket
            for calls in self._worker.client.ways
            for channel in calls.channels
        )

    # Replies.

    def take_replies(self, asked: int) -> None:
        state = self._worker.counters.calls, asked
        asks, self._synced = state != self._synced, state
        for calls in self._worker.client.ways:
            for channel in calls.channels:
                if channel.calls and asks:
                    self.ask(calls, channel)
                elif channel.calls:
                    calls.read(channel)

    def ask(self, calls: OpenCalls, channel: Channel, call_id: int = 0) -> Reply | None:
        """Take the replies that circusd has sent by now; returns that of a call if it is there."""
        life, first = self.server.lives, self._questions + 1
        sent = self._question(channel)
        while True:
            self.under_way = "a reply of the fake circusd is on its way"
            ready = channel.socket.poll(_LOOK if sent else 0)
            self.under_way = ""
            if not ready:
                if not sent or self.released or life != self.server.lives or not self.server.bound:
                    return None  # nobody will answer
                # The connection may have been lost with the question, and with all before it,
                # and stand again. Then an answer to this one tells so.
                sent = self._question(channel)
                continue
            reply = channel.receive_now()
            if reply is None:
                continue
            if "sync" in reply:
                if reply["sync"] >= first:
                    return None
                continue
            if call_id and reply.get("id") == call_id:
                return reply
            calls.dispatch(channel, reply)

    def _question(self, channel: Channel) -> bool:
        self._questions += 1
        try:
            channel.socket.send(b"%s%d}" % (SYNC, self._questions), zmq.NOBLOCK)
        except zmq.Again:
            return False  # there is no connection
        return True

    def pause(self, socket: zmq.Socket[bytes], flag: int) -> None:
        """Wait until the socket is ready, or the clock is to be looked at."""
        woken = self._worker.loop.hear_wake_ups()
        poller = zmq.Poller()
        poller.register(socket, flag)
        poller.register(woken, zmq.POLLIN)
        if woken.fileno() in dict(poller.poll()):
            woken.recv(4096)  # the loop runs its callbacks in any case

    # Events.

    def next_event(self) -> object | None:
        receiver, moments = self._worker.receiver, self.server.moments
        if not receiver.awaits_event or not is_readable(receiver.socket):
            return None
        if moments:
            if moments[0] > self.clock.now:
                return None
            moments.popleft()
        socket: object = receiver.socket
        return socket

    def next_moment(self) -> float:
        receiver, moments = self._worker.receiver, self.server.moments
        return moments[0] if moments and receiver.awaits_event else math.inf

    def _event_waits(self) -> bool:
        """Whether the next event is there, and to be read later."""
        moments = self.server.moments
        waits = moments and moments[0] > self.clock.now
        return bool(waits and is_readable(self._worker.receiver.socket))

    @property
    def _arrived(self) -> int:
        counters = self._worker.counters
        return counters.received + counters.garbage

    def find_under_way(self) -> str:
        worker, server = self._worker, self.server
        if worker.loop.outside_now:
            return "what is done outside the plugin's loop, on a thread for instance"
        if not worker.begun:
            return ""
        stands = server.is_subscribed()
        receiver = worker.receiver
        if not receiver.stopping:
            channel = worker.client.ways[0].channel
            writable = channel is not None and channel.socket.poll(0, zmq.POLLOUT)
            if {stands, receiver.look(), bool(writable)} != {server.bound}:
                return "the plugin's connection to the fake circusd is to come, or to go"
        if stands and self._life != server.lives:
            self._life = server.lives
            self._before = server.matching - self._arrived
        missing = server.matching - self._arrived - self._before
        if missing < 0:  # a message of odd frames has counted twice
            self._before += missing
        if missing > 0 and stands and receiver.awaits_event and not self._event_waits():
            return f"{missing} events on their way to the plugin"
        return ""


class VirtualReceiver(Receiver):
    """Takes one event, and the next when the plugin is at rest."""

    @property
    def socket(self) -> Any:
        """Where events come from."""
        return self._connection.socket

    @property
    def awaits_event(self) -> bool:
        """Whether the next event would be taken now."""
        idle = self._task is None and not self._backlog and not self.stopping
        return idle and self._handler is not None and self.socket is not None

    def look(self) -> bool:
        """Whether the connection stands; takes in what has become of it."""
        return self._connection.look()

    def _drain(self) -> None:
        self._connection.look()
        if self.awaits_event:
            self._take(1, 1, math.inf)


class VirtualClient(Client):
    """Waits for replies by the clock of the loop."""

    pilot: Pilot | None = None

    def _receive_here(
        self, calls: OpenCalls, channel: Channel, call_id: int, until: float
    ) -> Reply | None:
        pilot = self.pilot
        while pilot is not None and not pilot.released:
            asked = pilot.clock.asked
            reply = pilot.ask(calls, channel, call_id)
            if reply is not None or pilot.clock.now >= until:
                return reply
            if not pilot.clock.reach(asked, until):
                pilot.pause(channel.socket, zmq.POLLIN)
        return super()._receive_here(calls, channel, call_id, until)

    def _send_here(
        self,
        calls: OpenCalls,
        frame: bytes,
        command: str,
        properties: Mapping[str, Any],
        timeout: float,
        deadline: float,
    ) -> Channel:
        pilot, channel = self.pilot, calls.channel
        while pilot is not None and channel is not None and not pilot.released:
            asked = pilot.clock.asked
            if channel.socket.poll(_LOOK if pilot.server.bound else 0, zmq.POLLOUT):
                break
            if pilot.clock.now >= deadline:
                break
            if not pilot.server.bound and not pilot.clock.reach(asked, deadline):
                pilot.pause(channel.socket, zmq.POLLOUT)
        return super()._send_here(calls, frame, command, properties, timeout, deadline)


class VirtualWorker(Worker):
    """Runs a plugin by a clock; other arguments as of `Worker`."""

    loop_class = VirtualLoop
    client_class = VirtualClient
    receiver_class = VirtualReceiver
    loop: VirtualLoop
    client: VirtualClient

    #: Whether it is initialised.
    begun = False

    def __init__(self, clock: VirtualClock, server: FakeServer, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        pilot = self._pilot = self.client.pilot = Pilot(self, clock, server)
        self.loop.live_by(clock, pilot, lambda: clock.leave(pilot))
        clock.join(pilot)
        self.loop.replaying = server.replays

    @property
    def receiver(self) -> VirtualReceiver:
        """What takes its events."""
        assert isinstance(self._receiver, VirtualReceiver)
        return self._receiver

    def _initialize(self, plugin: Any) -> None:
        tornado = sys.modules.get("tornado.ioloop")
        if tornado is not None:
            tornado.IOLoop.current().time = self.loop.time
        super()._initialize(plugin)

    def _connect(self, topics: Iterable[bytes]) -> None:
        self._pilot.server.topics = topics = tuple(topics)
        super()._connect(topics)

    def _receive(self, handler: Callable[[Frames], Any]) -> BaseException | None:
        self.begun = True
        self._pilot.clock.begin()
        return super()._receive(handler)
