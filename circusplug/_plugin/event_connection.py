# The SUB socket of a plugin, and whether its connection stands: what libzmq's monitor of the
# socket tells. Receiving is the receiver's business.
#
# Owner: the plugin's thread.

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections.abc import Callable, Iterable
from typing import Any

import zmq

from .._loop.plugin_loop import PluginLoop
from .._wire.endpoints import MAX_MESSAGE, configure_link

#: A burst may fill this many events before libzmq drops any. It counts events, not bytes, and must
#: not be changed once connected: libzmq may then wait for ever for a sign that there is room.
RECEIVE_HIGH_WATER_MARK = 100_000

#: How often a connection that does not stand is made anew, in seconds. libzmq tries by itself,
#: but gives up without a word on a peer that sent a message larger than allowed, or that is no
#: publisher; circusd may come to that endpoint later.
RENEW_INTERVAL = 5.0

_EVENT_HEADER = struct.Struct("=hi")
_MONITORED = int(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)


class Connection:
    """A SUB socket and the state of its connection.

    Attributes:
        up: Whether the connection stands, as far as has been looked.
    """

    def __init__(self) -> None:
        self.up = False
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._endpoint = ""
        self._renewal: asyncio.TimerHandle | None = None
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
        configure_link(socket, endpoint, max_message)
        socket.setsockopt(zmq.RCVHWM, RECEIVE_HIGH_WATER_MARK)
        address = f"inproc://connection-{socket.FD}"
        socket.monitor(address, _MONITORED)
        monitor = self._monitor = context.socket(zmq.PAIR)
        # No limit: if the monitor were full, because a handler blocks while the connection comes
        # and goes, libzmq's I/O thread would wait for it, and all plugins with it.
        monitor.setsockopt(zmq.RCVHWM, 0)
        monitor.connect(address)
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
        assert self._monitor is not None
        deadline = time.monotonic() + seconds
        while not self.look():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            self._monitor.poll(max(1, int(remaining * 1000)))
        return True

    def watch(self, loop: PluginLoop, on_change: Callable[[bool], object]) -> None:
        """Call back on `loop` whenever the connection has come to stand, or is lost."""
        assert self._monitor is not None
        self._loop, self._on_change = loop, on_change
        loop.watch_socket(self._monitor, self.look)
        self._renew_later()

    def unwatch(self) -> None:
        """Call back no more."""
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None
        if self._loop is not None and self._monitor is not None and not self._loop.is_closed():
            self._loop.watch_socket(self._monitor, None)
        self._loop = self._on_change = None

    def look(self) -> bool:
        """Take in what there is to be known right now; returns whether the connection stands."""
        monitor = self._monitor
        while monitor is not None and monitor.poll(0):
            event: int = _EVENT_HEADER.unpack_from(monitor.recv_multipart()[0])[0]
            up = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
            # One that never stood is not lost: libzmq tells of each try that fails.
            changed, self.up = up != self.up, up
            if changed and self._on_change is not None:
                self._on_change(up)
        self._renew_later()
        return self.up

    def _renew_later(self) -> None:
        if self._loop is not None and not self.up and self._renewal is None:
            self._renewal = self._loop.call_later(RENEW_INTERVAL, self._renew)

    def _renew(self) -> None:
        self._renewal = None
        socket = self._socket
        if self.look() or socket is None or self._loop is None:
            return
        if socket.poll(0):
            return  # to disconnect would drop what waits there
        for again in (socket.disconnect, socket.connect):
            with contextlib.suppress(zmq.ZMQError):
                again(self._endpoint)

    def close(self) -> None:
        """Close the sockets; may be called twice."""
        self.unwatch()
        if self._socket is not None:
            with contextlib.suppress(zmq.ZMQError):
                self._socket.disable_monitor()
        for socket in (self._monitor, self._socket):
            if socket is not None:
                socket.close(0)
        self._socket = self._monitor = None
