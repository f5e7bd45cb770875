# Where a plugin's sockets connect to, and the options that both have in common.

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import zmq

from .commands import DEFAULT_ENDPOINT, DEFAULT_PUBSUB_ENDPOINT

#: How long a starting plugin waits for its connection before it starts without, in seconds.
CONNECT_WAIT = 1.0
#: How long without a sign of life until a circusd on another machine counts as gone (ms).
HEARTBEAT_INTERVAL = 2000
HEARTBEAT_TIMEOUT = 4000

_LOCAL = ("tcp://127.", "tcp://localhost:", "tcp://[::1]", "ipc://", "inproc://")


@dataclass(frozen=True)
class Link:
    """What a worker connects to.

    Attributes:
        endpoint: circusd's command endpoint, or the near end of a tunnel to it.
        pubsub_endpoint: The same for its events.
        context: The process's ZMQ context; None: make one, and end it.
        connect_wait: How long to wait for the connection before going on, in seconds.
    """

    endpoint: str = DEFAULT_ENDPOINT
    pubsub_endpoint: str = DEFAULT_PUBSUB_ENDPOINT
    context: zmq.Context[Any] | None = None
    connect_wait: float = CONNECT_WAIT


def connectable(endpoint: str) -> str:
    """Where to connect for an endpoint that circusd binds: all interfaces mean this machine."""
    return endpoint.replace("tcp://*:", "tcp://127.0.0.1:").replace(
        "tcp://0.0.0.0:", "tcp://127.0.0.1:"
    )


def configure_link(socket: zmq.Socket[Any], endpoint: str) -> None:
    """Set what both sockets of a plugin share: reconnection, and heartbeats where needed."""
    socket.setsockopt(zmq.LINGER, 0)
    # Spread a little, so that fifty plugins do not knock at a returning circusd at once. On this
    # machine a look costs next to nothing, so the delay does not grow.
    socket.setsockopt(zmq.RECONNECT_IVL, 100 + random.randrange(50))
    if not endpoint.startswith(_LOCAL):
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 5000)
        # The local kernel reports a death at once; another machine's may never do.
        socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_INTERVAL)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT)
