# A receiver and the publisher that it is connected to, on the test's own thread.

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import zmq
from patience import PATIENCE

from circusplug._loop.plugin_loop import PluginLoop
from circusplug._plugin.event_connection import Connection
from circusplug._plugin.receiver import Frames, Receiver
from circusplug._plugin.status import Counters


class Rig:
    """A receiver, the publisher that it is connected to, and what it told, in order."""

    def __init__(
        self, context: zmq.Context[Any], loop: PluginLoop, address: str = "tcp://127.0.0.1:*"
    ) -> None:
        self.told: list[Any] = []
        self.counters = Counters()
        self.loop = loop
        self.connection = Connection()
        self.on_link: Callable[[bool], Any] = self.told.append
        self.receiver = Receiver(
            loop,
            self.connection,
            self.counters,
            lambda error, what: self.told.append(error),
            lambda topic: None,
            self._link_changed,
        )
        self._context = context
        self.publisher = self._new_publisher()
        self.publisher.bind(address)
        self._endpoint = self.publisher.last_endpoint.decode()
        self.connection.open(context, self._endpoint, [b"watcher."])
        assert self.connection.wait(PATIENCE)
        self._wait_subscribed()

    def _link_changed(self, up: bool) -> Any:
        return self.on_link(up)

    def _new_publisher(self) -> zmq.Socket[bytes]:
        publisher: zmq.Socket[bytes] = self._context.socket(zmq.XPUB)
        publisher.linger = 0
        return publisher

    @property
    def socket(self) -> zmq.Socket[bytes]:
        socket = self.connection.socket
        assert socket is not None
        return socket

    def publish(self, *names: bytes, payload: bytes = b"{}") -> None:
        for name in names:
            self.publisher.send_multipart([b"watcher." + name, payload])

    def restart(self, *names: bytes) -> None:
        """Restart the publisher, wait for the subscription, publish, and wait until it is there.

        The receiver sees nothing of it but what libzmq tells later.
        """
        self.publisher.close()
        self.publisher = self._new_publisher()
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.publisher.bind(self._endpoint)
                break
            except zmq.ZMQError:  # libzmq closes on a thread of its own
                assert time.monotonic() < deadline
        self._wait_subscribed()
        self.publish(*names)
        assert self.socket.poll(int(PATIENCE * 1000))

    def _wait_subscribed(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self.publisher.poll(1):
            assert time.monotonic() < deadline
            self.socket.poll(0)  # a SUB socket subscribes again while it is looked at
        self.publisher.recv()

    def run(self, handler: Callable[[Frames], Any], until: bytes) -> None:
        """Note the topic of each event and hand it on, until that one has come."""

        def handle(frames: Frames) -> Any:
            name = frames[0][8:]
            self.told.append(name)
            if name == until:
                self.loop.call_soon(self.loop.stop)
            return handler(frames)

        limit = self.loop.call_later(PATIENCE, self.loop.stop)
        self.receiver.start(handle)
        self.loop.run_forever()
        assert self.loop.time() < limit.when(), self.told
        limit.cancel()

    def close(self) -> None:
        task = self.receiver.stop()
        if task is not None:
            self.loop.run_until_complete(asyncio.wait([task]))
        self.receiver.close()
        self.connection.close()
        self.publisher.close()
