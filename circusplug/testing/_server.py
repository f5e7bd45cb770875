# The sockets of a FakeCircusd: they are bound to free ports, and count their subscribers.
#
# Owner: the serving thread; `subscriptions` is replaced, never changed, so that any thread may
# read it.

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable

import zmq

from circusplug._control.server import SendBack, Server
from circusplug._errors import CircusdError

#: Below the range that kernels take the local ports of outgoing connections from: up there a
#: client that keeps trying a port nobody listens on will one day connect to itself.
#: Each process has a part of its own, as a port is free while a fake circusd is down that is to
#: come back: test runs side by side do not meet.
_PORTS = range(20_000, 28_000)
_PARTS = 64

#: How a question begins whether circusd has answered all commands before it. It is sent back.
SYNC = b'{"sync": '


class FakeServer(Server):
    """Serves a ROUTER and an XPUB socket.

    Args:
        on_request: See `Server`.
        on_change: Called on the serving thread after `subscriptions` changed.
        sndhwm: The XPUB's send high-water mark, in messages per subscriber; 0 is unlimited.

    Attributes:
        subscriptions: How many there are of each topic.
        topics: What a plugin in virtual time subscribes to.
        matching: How many messages were published that it should get.
        lives: How often the sockets were opened.
        moments: When the messages are to be handled that were published and not read yet, by the
            virtual clock; empty: at once.
        replays: Whether what is published is a recording.
        on_publish: Takes each event before it is published, on the serving thread.
    """

    publisher_kind = zmq.XPUB

    def __init__(
        self,
        on_request: Callable[[SendBack, bytes], None],
        on_change: Callable[[], None],
        sndhwm: int,
    ) -> None:
        super().__init__("fake circusd", on_request)
        self._on_change = on_change
        self._sndhwm = sndhwm
        self.subscriptions: Counter[bytes] = Counter()
        self.topics: tuple[bytes, ...] = ()
        self.matching = self.lives = 0
        self.moments: deque[float] = deque()
        self.replays = False
        self.on_publish: Callable[[bytes, bytes], object] = lambda _topic, _payload: None

    def is_subscribed(self) -> bool:
        """Whether `topics` are subscribed to; from any thread."""
        return self.bound and all(self.subscriptions[topic] > 0 for topic in self.topics)

    def publish(self, *frames: bytes) -> None:
        """See `Server`."""
        self.note_published(frames[0])
        if len(frames) == 2:
            self.on_publish(*frames)
        super().publish(*frames)

    def note_published(self, topic: bytes, count: int = 1) -> None:
        """Count messages that are about to be published."""
        if topic.startswith(self.topics) and self.is_subscribed():
            self.matching += count

    def bind_sockets(self, router: zmq.Socket[bytes], publisher: zmq.Socket[bytes]) -> None:
        """Bind both on the ports of the last time, or on free ones."""
        publisher.sndhwm = self._sndhwm
        publisher.setsockopt(zmq.XPUB_VERBOSER, 1)
        self.lives += 1
        self.endpoint = _bind(router, self.endpoint)
        self.pubsub_endpoint = _bind(publisher, self.pubsub_endpoint)
        self.watch(publisher, lambda: self._take_subscription(publisher))

    def unbind(self, linger: int = 0) -> None:
        """Close both sockets; see `Server`."""
        super().unbind(linger)
        self.subscriptions = Counter()
        self._on_change()

    def _take_subscription(self, xpub: zmq.Socket[bytes]) -> None:
        message = xpub.recv()
        kind, topic = message[:1], message[1:]
        if kind == b"\x01":
            self.subscriptions = self.subscriptions + Counter([topic])
        elif kind == b"\x00":
            self.subscriptions = self.subscriptions - Counter([topic])
        self._on_change()


def _bind(sock: zmq.Socket[bytes], endpoint: str) -> str:
    """Bind to *endpoint*, or to a free port if it is empty, and return the endpoint."""
    if not endpoint:
        host = "tcp://127.0.0.1"
        ports = part_of(_PORTS)
        port = sock.bind_to_random_port(host, ports.start, ports.stop, max_tries=1000)
        return f"{host}:{port}"
    try:
        sock.bind(endpoint)
    except zmq.ZMQError as error:
        raise CircusdError(f"cannot bind {endpoint} again: {error}") from error
    return endpoint


def part_of(ports: range) -> range:
    """The part of a range of ports that this process may use."""
    size = len(ports) // _PARTS
    return ports[os.getpid() % _PARTS * size :][:size]
