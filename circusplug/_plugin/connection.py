# The SUB socket of a plugin, and whether its connection stands: what libzmq's monitor of the
# socket tells. Receiving is the receiver's business.
#
# Owner: the plugin's thread.

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable, Iterable
from typing import Any

import zmq

from .._loop.plugin_loop import PluginLoop
from .._wire.endpoints import configure_link

#: A burst may fill this many events before libzmq drops any.
RECEIVE_HIGH_WATER_MARK = 100_000

_EVENT_HEADER = struct.Struct("=hi")


class Connection:
    """A SUB socket and the state of its connection.

    Attributes:
        up: Whether the connection stands, as far as has been looked.
    """

    def __init__(self) -> None:
        self.up = False
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._loop: PluginLoop | None = None
        self._on_change: Callable[[bool], object] | None = None

    def open(self, context: zmq.Context[Any], endpoint: str, topics: Iterable[bytes]) -> None:
        """Make the socket and connect it.

        Raises:
            zmq.ZMQError: That cannot be done.
        """
        socket = self._socket = context.socket(zmq.SUB)
        configure_link(socket, endpoint)
        socket.setsockopt(zmq.RCVHWM, RECEIVE_HIGH_WATER_MARK)
        self._monitor = socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        )
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

    def unwatch(self) -> None:
        """Call back no more."""
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
        return self.up

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
