# A publisher to connect to, and how a test watches the connection.

from __future__ import annotations

import time

import zmq
from patience import PATIENCE

from circusplug._loop.plugin_loop import PluginLoop
from circusplug._plugin.event_connection import Connection

TOPIC = b"watcher."


def bind(peer: zmq.Socket[bytes]) -> str:
    return f"tcp://127.0.0.1:{peer.bind_to_random_port('tcp://127.0.0.1')}"


def bind_again(peer: zmq.Socket[bytes], endpoint: str) -> None:
    """Bind where another socket was, which libzmq closes on a thread of its own."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            peer.bind(endpoint)
            return
        except zmq.ZMQError:
            assert time.monotonic() < deadline


def watch(connection: Connection, loop: PluginLoop) -> list[bool]:
    """Note each change, and stop the loop with it."""
    told: list[bool] = []

    def on_change(up: bool) -> None:
        told.append(up)
        loop.stop()

    connection.watch(loop, on_change)
    return told
