# The sockets of a FakeCircusd and the one thread that serves them.
#
# Who owns what: the serving thread makes, uses and closes the ROUTER, the XPUB and the
# timers. Other threads only hand it functions, over a deque and a wake-up socket pair. The
# context and the pair belong to whoever calls open() and close().

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

import zmq

from circusplug._errors import CircusdError

T = TypeVar("T")

#: Below the range that kernels take the local ports of outgoing connections from: up there a
#: client that keeps trying a port nobody listens on will one day connect to itself.
#: Each process of pytest-xdist has a part of its own, as a port is free while a fake circusd is
#: down that is to come back.
_PORTS = range(20_000, 28_000)
_PARTS = 8
#: How long a listener may take to be closed, in seconds.
_UNBIND_TIMEOUT = 10
_RUN_TIMEOUT = 30.0


class Server:
    """Serve a ROUTER and an XPUB socket on a thread of its own.

    Args:
        on_request: Called on the serving thread for each request, with a function that sends
            a frame back and with the request's frame.
        on_change: Called on the serving thread after `subscriptions` or `errors` changed.
        sndhwm: The XPUB's send high-water mark, in messages per subscriber; 0 is unlimited.
    """

    def __init__(
        self,
        on_request: Callable[[Callable[[bytes], None], bytes], None],
        on_change: Callable[[], None],
        sndhwm: int,
    ) -> None:
        self._on_request = on_request
        self._on_change = on_change
        self._sndhwm = sndhwm
        self._router: zmq.Socket[bytes] | None = None
        self._xpub: zmq.Socket[bytes] | None = None
        self._lock = threading.Lock()
        self._work: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_numbers = itertools.count()
        self._thread: threading.Thread | None = None
        self._accepting = False
        self._closing = False
        self.endpoint = ""
        self.pubsub_endpoint = ""
        #: Subscriptions by topic; replaced, never changed, so that any thread may read it.
        self.subscriptions: Counter[bytes] = Counter()
        self.errors: list[BaseException] = []

    @property
    def running(self) -> bool:
        """Whether the thread takes work."""
        return self._accepting

    @property
    def bound(self) -> bool:
        """Whether the sockets are open."""
        return self._router is not None

    def open(self) -> None:
        """Start the thread and bind both sockets to free ports."""
        self._context = zmq.Context()
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._poller = zmq.Poller()
        self._poller.register(self._woken, zmq.POLLIN)
        self._closing = False
        self._accepting = True
        self._thread = threading.Thread(target=self._serve, name="fake-circusd", daemon=True)
        self._thread.start()
        try:
            self.run(self.bind)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the sockets, end the thread, free everything; may be called twice."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._closing = True
        self._wake_up()
        thread.join(_RUN_TIMEOUT)
        if thread.is_alive():
            raise CircusdError("the fake circusd's thread hangs, in a computed reply perhaps")
        self._context.term()
        self._wake.close()
        self._woken.close()

    def run(self, function: Callable[[], T]) -> T:
        """Run *function* on the serving thread; return what it returns, raise what it raises.

        Raises:
            CircusdError: The thread is not running, or does not get to it.
        """
        if threading.current_thread() is self._thread:
            return function()
        future: Future[T] = Future()
        with self._lock:
            if not self._accepting:
                raise CircusdError("this fake circusd is not running: use it in a 'with'")
            self._work.append((function, future))
        self._wake_up()
        try:
            return future.result(_RUN_TIMEOUT)
        except FutureTimeoutError:
            raise CircusdError("the fake circusd's thread is busy, in a computed reply?") from None

    # What follows is called on the serving thread only.

    def bind(self) -> None:
        """Open both sockets, unless they are: on the ports of the last time or on free ones."""
        if self._router is not None:
            return
        router, xpub = self._context.socket(zmq.ROUTER), self._context.socket(zmq.XPUB)
        router.linger = xpub.linger = 0
        xpub.sndhwm = self._sndhwm
        xpub.setsockopt(zmq.XPUB_VERBOSER, 1)
        try:
            self.endpoint = _bind(router, self.endpoint)
            self.pubsub_endpoint = _bind(xpub, self.pubsub_endpoint)
        except BaseException:
            router.close()
            xpub.close()
            raise
        self._router, self._xpub = router, xpub
        self._poller.register(router, zmq.POLLIN)
        self._poller.register(xpub, zmq.POLLIN)

    def unbind(self, linger: int = 0) -> None:
        """Close both sockets; what is unsent may still leave within *linger* milliseconds."""
        for sock, endpoint in ((self._router, self.endpoint), (self._xpub, self.pubsub_endpoint)):
            if sock is not None:
                self._poller.unregister(sock)
                _stop_listening(sock, endpoint)
                sock.close(linger)
        self._router = self._xpub = None
        self.subscriptions = Counter()
        self._on_change()

    def publish(self, *frames: bytes) -> None:
        """Publish one message.

        Raises:
            CircusdError: The sockets are closed.
        """
        self.publisher().send_multipart(frames)

    def publisher(self) -> zmq.Socket[bytes]:
        """Return the XPUB socket, for tight loops.

        Raises:
            CircusdError: The sockets are closed.
        """
        if self._xpub is None:
            raise CircusdError("this fake circusd is down: nobody would get the event")
        return self._xpub

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        """Run *function* in *seconds*; never, if the server is closed before."""
        due = time.monotonic() + seconds
        heapq.heappush(self._timers, (due, next(self._timer_numbers), function))

    def _wake_up(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: the thread has wake-ups enough
            self._wake.send(b"\0")

    def _serve(self) -> None:
        try:
            while not self._closing:
                self._serve_once()
        except BaseException as error:  # noqa: BLE001 - shown where the 'with' block ends
            self.errors.append(error)
        finally:
            with self._lock:
                self._accepting = False
                work = [*self._work]
                self._work.clear()
            for _, future in work:
                future.set_exception(CircusdError("this fake circusd was closed meanwhile"))
            self._timers.clear()
            self.unbind()

    def _serve_once(self) -> None:
        timeout = None
        if self._timers:
            timeout = max(0, int((self._timers[0][0] - time.monotonic()) * 1000) + 1)
        ready = dict(self._poller.poll(timeout))
        if self._woken.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                while self._woken.recv(4096):
                    pass
        if self._xpub is not None and self._xpub in ready:
            self._take_subscription(self._xpub)
        if self._router is not None and self._router in ready:
            self._take_request(self._router)
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()
        while self._work:
            function, future = self._work.popleft()
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - raised again where it came from
                future.set_exception(error)

    def _take_request(self, router: zmq.Socket[bytes]) -> None:
        identity, *frames = router.recv_multipart()

        def send_back(frame: bytes) -> None:
            # A reply that comes after a restart has nobody left to go to.
            if self._router is router:
                router.send_multipart([identity, frame])

        if len(frames) == 1:
            self._on_request(send_back, frames[0])

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
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    size = len(ports) // _PARTS
    return ports[number % _PARTS * size :][:size]


def _stop_listening(sock: zmq.Socket[bytes], endpoint: str) -> None:
    """Return when nobody can connect any more; libzmq closes a listener some time later."""
    with sock.get_monitor_socket(zmq.EVENT_CLOSED) as monitor:
        sock.unbind(endpoint)
        monitor.poll(_UNBIND_TIMEOUT * 1000)
        sock.disable_monitor()
