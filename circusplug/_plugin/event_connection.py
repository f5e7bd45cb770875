# The SUB socket of a plugin, and whether its connection stands: what libzmq's monitor of the
# socket tells. Receiving is the receiver's business.
#
# Owner: the plugin's thread.

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable
from typing import Any

import zmq

from .._loop.plugin_loop import Cancellable, PluginLoop
from .._wire.endpoints import MAX_MESSAGE, configure_link, next_event

#: A burst may fill this many events before libzmq drops any. It counts events, not bytes, and must
#: not be changed once connected: libzmq may then wait for ever for a sign that there is room.
RECEIVE_HIGH_WATER_MARK = 100_000

#: How often a connection that does not stand is made anew, in seconds. libzmq tries by itself,
#: but gives up without a word on a peer that sent a message larger than allowed, or that is no
#: publisher; circusd may come to that endpoint later.
RENEW_INTERVAL = 5.0

#: How long after a loss libzmq is taken to have given up if it has not said that it tries again,
#: in seconds. It says so at once.
GIVEN_UP_WAIT = 0.5

#: What the monitor tells. Tries are told of until the first one: a circusd that is away on this
#: machine is looked for ten times a second, and each word of that would wake the plugin's thread.
_CHANGES = int(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_MONITOR_STOPPED)
_CHANGES_AND_TRIES = _CHANGES | int(zmq.EVENT_CONNECT_RETRIED)
_numbers = itertools.count()


class Connection:
    """A SUB socket and the state of its connection.

    Args:
        on_given_up: Called when libzmq has ended a connection that stood, and does not try again:
            a message was larger than allowed, or was none of ZMQ's. The connection is made anew.

    Attributes:
        up: Whether the connection stands, as far as has been looked.
    """

    def __init__(self, on_given_up: Callable[[], object] = lambda: None) -> None:
        self.up = False
        self._on_given_up = on_given_up
        self._given_up = False  # unless it says that it tries again
        self._socket: zmq.Socket[bytes] | None = None
        #: The monitor that is read, and those which are read when that one has stopped.
        self._monitors: list[zmq.Socket[bytes]] = []
        self._hears_tries = False
        self._endpoint = ""
        self._renewal: Cancellable | None = None
        self._loop: PluginLoop | None = None
        self._on_change: Callable[[bool], object] | None = None

    def open(
        self,
        context: zmq.Context[Any],
        endpoint: str,
        topics: Iterable[bytes],
        max_message: int = MAX_MESSAGE,
    ) -> None:
        """Make the socket and connect it; a larger message than `max_message` bytes ends that.

        Raises:
            zmq.ZMQError: That cannot be done.
        """
        socket = self._socket = context.socket(zmq.SUB)
        self._endpoint = endpoint
        configure_link(socket, endpoint)
        socket.setsockopt(zmq.MAXMSGSIZE, max_message)
        socket.setsockopt(zmq.RCVHWM, RECEIVE_HIGH_WATER_MARK)
        self._hear(_CHANGES_AND_TRIES)
        for topic in topics:
            socket.setsockopt(zmq.SUBSCRIBE, topic)
        socket.connect(endpoint)
        self.up = endpoint.startswith("inproc://")  # of which no monitor tells

    @property
    def socket(self) -> zmq.Socket[bytes] | None:
        """The SUB socket, while it is open."""
        return self._socket

    def wait(self, seconds: float) -> bool:
        """Wait until the connection stands; False if it does not within `seconds`."""
        deadline = time.monotonic() + seconds
        while not self.look():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            self._monitors[0].poll(max(1, int(remaining * 1000)))
        return True

    def watch(self, loop: PluginLoop, on_change: Callable[[bool], object]) -> None:
        """Call back on `loop` whenever the connection has come to stand, or is lost."""
        self._loop, self._on_change = loop, on_change
        loop.watch_socket(self._monitors[0], self.look)
        self._renew_later()

    def unwatch(self) -> None:
        """Call back no more."""
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None
        if self._loop is not None and self._monitors and not self._loop.is_closed():
            self._loop.watch_socket(self._monitors[0], None)
        self._loop = self._on_change = None

    def look(self) -> bool:
        """Take in what there is to be known right now; returns whether the connection stands."""
        while self._monitors and self._monitors[0].poll(0):
            self._take(next_event(self._monitors[0]))
        self._renew_later()
        return self.up

    def _take(self, event: int) -> None:
        if event == zmq.EVENT_MONITOR_STOPPED:
            self._next_monitor()
        elif event == zmq.EVENT_CONNECT_RETRIED:
            self._given_up = False
            self._hear(_CHANGES)
        else:
            up = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
            # One that never stood is not lost: libzmq tells of each try that fails.
            changed, self.up = up != self.up, up
            if changed:
                self._given_up = self._hears_tries and not up
                if up:
                    self._hear(_CHANGES_AND_TRIES)
                if self._on_change is not None:
                    self._on_change(up)

    def _hear(self, events: int) -> None:
        """Have libzmq tell of `events`, but of what has happened so far as it was asked before."""
        tries = events == _CHANGES_AND_TRIES
        if self._socket is None or (self._monitors and tries == self._hears_tries):
            return
        address = f"inproc://connection-{next(_numbers)}"
        monitor = None
        try:
            monitor = self._socket.context.socket(zmq.PAIR)
            # No limit: if the monitor were full, because a handler blocks while the connection
            # comes and goes, libzmq's I/O thread would wait for it, and all plugins with it.
            monitor.setsockopt(zmq.RCVHWM, 0)
            monitor.connect(address)  # first, as that thread would wait for this, too
            self._socket.monitor(address, events)
        except zmq.ZMQError:
            if monitor is not None:
                monitor.close(0)
            if not self._monitors:
                raise
            return  # no descriptor is left: it goes on telling what it tells
        self._monitors.append(monitor)
        self._hears_tries = tries

    def _next_monitor(self) -> None:
        stopped = self._monitors.pop(0)
        if self._loop is not None:
            self._loop.watch_socket(stopped, None)
            self._loop.watch_socket(self._monitors[0], self.look)
        stopped.close(0)

    def _renew_later(self) -> None:
        if self._loop is not None and not self.up and self._renewal is None:
            wait = GIVEN_UP_WAIT if self._given_up else RENEW_INTERVAL
            self._renewal = self._loop.call_later_for_real(wait, self._renew)

    def _renew(self) -> None:
        self._renewal = None
        socket = self._socket
        if self.look() or socket is None or self._loop is None:
            return
        if socket.poll(0):
            return  # to disconnect would drop what waits there
        if self._given_up:
            self._given_up = False
            self._on_given_up()
        for again in (socket.disconnect, socket.connect):
            with contextlib.suppress(zmq.ZMQError):
                again(self._endpoint)

    def close(self) -> None:
        """Close the sockets; may be called twice."""
        self.unwatch()
        if self._socket is not None:
            with contextlib.suppress(zmq.ZMQError):
                self._socket.disable_monitor()
            self._socket.close(0)
            self._socket = None
        for monitor in self._monitors:
            monitor.close(0)
        self._monitors.clear()
