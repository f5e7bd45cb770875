# Where a plugin's sockets connect to, and the options that both have in common.

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from typing import Any

import zmq

from .commands import DEFAULT_ENDPOINT, DEFAULT_PUBSUB_ENDPOINT

#: How long a starting plugin waits for its connection before it starts without, in seconds.
CONNECT_WAIT = 1.0
#: The largest event or reply that is accepted, in bytes.
MAX_MESSAGE = 16 * 1024 * 1024
#: How long after a loss, or an attempt, a connection is tried again (ms). libzmq adds up to as
#: much again, at random, where the time does not grow: a circusd on this machine is looked for
#: every 0.1 s, and fifty plugins do not knock at a returning one at once.
RECONNECT_INTERVAL = 70
#: Up to how much the time between attempts doubles for a circusd on another machine (ms).
RECONNECT_INTERVAL_MAX = 5000
#: How long without a sign of life until a circusd on another machine counts as gone (ms).
HEARTBEAT_INTERVAL = 2000
HEARTBEAT_TIMEOUT = 4000

#: How what a monitor tells begins, as of zmq_socket_monitor(3): the event, and a value.
_EVENT_HEADER = struct.Struct("=hi")
_LOCAL = ("tcp://127.", "tcp://localhost:", "tcp://[::1]", "ipc://", "inproc://")


@dataclass(frozen=True)
class Link:
    """What a worker connects to.

    Attributes:
        endpoint: circusd's command endpoint, or the near end of a tunnel to it.
        pubsub_endpoint: The same for its events.
        context: The process's ZMQ context; None: make one, and end it.
        connect_wait: How long to wait for the connection before going on, in seconds.
        max_message: The largest event or reply that is accepted, in bytes.
        door: Where commands about plugins go, if not to circusd; empty: they go there, too.
        host: Where the plugin's host takes commands from outside; empty: nowhere.
    """

    endpoint: str = DEFAULT_ENDPOINT
    pubsub_endpoint: str = DEFAULT_PUBSUB_ENDPOINT
    context: zmq.Context[Any] | None = None
    connect_wait: float = CONNECT_WAIT
    max_message: int = MAX_MESSAGE
    door: str = ""
    host: str = ""


def connectable(endpoint: str) -> str:
    """Where to connect for an endpoint that circusd binds: all interfaces mean this machine."""
    return endpoint.replace("tcp://*:", "tcp://127.0.0.1:").replace(
        "tcp://0.0.0.0:", "tcp://127.0.0.1:"
    )


def configure_link(socket: zmq.Socket[Any], endpoint: str) -> None:
    """Set what both sockets of a plugin share: reconnection, and heartbeats where needed."""
    socket.setsockopt(zmq.LINGER, 0)
    if endpoint.startswith(_LOCAL):
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_INTERVAL)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 0)
        return
    # Growing times have no spread of libzmq's own.
    interval = RECONNECT_INTERVAL + random.randrange(RECONNECT_INTERVAL)
    socket.setsockopt(zmq.RECONNECT_IVL, interval)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_INTERVAL_MAX)
    # The local kernel reports a death at once; another machine's may never do.
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_INTERVAL)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT)


def next_event(monitor: zmq.Socket[Any]) -> int:
    """Take the next thing that the monitor of a socket tells: one of the ``zmq.EVENT_`` numbers."""
    event: int = _EVENT_HEADER.unpack_from(monitor.recv_multipart()[0])[0]
    return event


def command_socket(context: zmq.Context[Any], endpoint: str) -> zmq.Socket[bytes]:
    """Make a DEALER socket for commands that is connected to an endpoint.

    Raises:
        zmq.ZMQError: That cannot be done.
    """
    socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
    try:
        configure_link(socket, endpoint)
        # Without a connection a command is refused at once, instead of waiting in a queue
        # for a circusd that is down and firing minutes later.
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.connect(endpoint)
    except zmq.ZMQError:
        socket.close(0)
        raise
    return socket
