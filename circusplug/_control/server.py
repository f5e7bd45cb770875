# A ROUTER that takes commands, a publisher of events, and the one thread that serves them: those
# of a host's control endpoint, and those of the fake circusd of the test kit.
#
# Owner: the serving thread makes, uses and closes the sockets and the timers. Other threads only
# hand it functions, over a deque and a wake-up socket pair. The context and the pair belong to
# whoever calls open() and close().

from __future__ import annotations

import contextlib
import heapq
import itertools
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

import zmq

from .._errors import CircusdError

T = TypeVar("T")

#: How long a function may take to be run by the serving thread, in seconds.
_RUN_TIMEOUT = 30.0
#: How long a listener may take to be closed, in seconds.
_UNBIND_TIMEOUT = 10

#: Sends a frame back to who sent a request.
SendBack = Callable[[bytes], None]


class Server:
    """Serves a ROUTER and a publisher on a thread of its own.

    Args:
        name: The thread's, and what messages call the server.
        on_request: Called on the serving thread for each request of one frame, with a function
            that sends a frame back and with the request's frame.

    Attributes:
        endpoint: Where the ROUTER is bound, or is to be bound.
        pubsub_endpoint: The same for the publisher.
        errors: What ended the serving thread.
    """

    #: What the publisher is.
    publisher_kind = zmq.PUB

    def __init__(self, name: str, on_request: Callable[[SendBack, bytes], None]) -> None:
        self._name = name
        self._on_request = on_request
        self._router: zmq.Socket[bytes] | None = None
        self._publisher: zmq.Socket[bytes] | None = None
        self._readers: dict[Any, Callable[[], None]] = {}
        self._lock = threading.Lock()
        self._work: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_numbers = itertools.count()
        self._thread: threading.Thread | None = None
        self._accepting = False
        self._closing = False
        self.endpoint = ""
        self.pubsub_endpoint = ""
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
        """Start the thread and bind the sockets; raises what `bind` raises."""
        self._context: zmq.Context[Any] = zmq.Context()
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._poller = zmq.Poller()
        self._poller.register(self._woken, zmq.POLLIN)
        self._readers[self._woken.fileno()] = self._take_wake_ups
        self._closing = False
        self._accepting = True
        self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
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
            raise CircusdError(f"the thread of the {self._name} hangs, in a computed reply perhaps")
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
        future = self.post(function)
        try:
            return future.result(_RUN_TIMEOUT)
        except FutureTimeoutError:
            raise CircusdError(
                f"the thread of the {self._name} is busy, in a computed reply?"
            ) from None

    def post(self, function: Callable[[], T]) -> Future[T]:
        """Have *function* run on the serving thread soon; from any thread.

        Raises:
            CircusdError: The thread is not running.
        """
        future: Future[T] = Future()
        with self._lock:
            if not self._accepting:
                raise CircusdError(f"this {self._name} is not running: use it in a 'with'")
            self._work.append((function, future))
        self._wake_up()
        return future

    # What follows is called on the serving thread only.

    def bind(self) -> None:
        """Open the sockets, unless they are: where they were the last time, if there was one.

        Raises:
            CircusdError: That is not possible.
        """
        if self._router is not None:
            return
        router, publisher = self._context.socket(zmq.ROUTER), None
        try:
            publisher = self._context.socket(self.publisher_kind)
            router.linger = publisher.linger = 0
            self.bind_sockets(router, publisher)
        except BaseException:
            router.close()
            if publisher is not None:
                publisher.close()
            raise
        self._router, self._publisher = router, publisher
        self.watch(router, lambda: self._take_request(router))

    def bind_sockets(self, router: zmq.Socket[bytes], publisher: zmq.Socket[bytes]) -> None:
        """Set the sockets' options and bind them; changes `endpoint` and `pubsub_endpoint`."""
        raise NotImplementedError

    def unbind(self, linger: int = 0) -> None:
        """Close the sockets; what is unsent may still leave within *linger* milliseconds."""
        ends = (self._router, self.endpoint), (self._publisher, self.pubsub_endpoint)
        for sock, endpoint in ends:
            if sock is not None:
                self.unwatch(sock)
                if endpoint:
                    _close_bound(sock, linger)
                else:
                    sock.close(linger)
        self._router = self._publisher = None

    def watch(self, sock: zmq.Socket[bytes], on_readable: Callable[[], None]) -> None:
        """Have a function called whenever a socket can be read from."""
        self._poller.register(sock, zmq.POLLIN)
        self._readers[sock] = on_readable

    def unwatch(self, sock: zmq.Socket[bytes]) -> None:
        """Undo `watch`, if that was done."""
        if self._readers.pop(sock, None) is not None:
            self._poller.unregister(sock)

    def publish(self, *frames: bytes) -> None:
        """Publish one message.

        Raises:
            CircusdError: The sockets are closed.
        """
        self.publisher().send_multipart(frames)

    def publisher(self) -> zmq.Socket[bytes]:
        """Return the publisher, for tight loops.

        Raises:
            CircusdError: The sockets are closed.
        """
        if self._publisher is None:
            raise CircusdError(f"this {self._name} is down: nobody would get the event")
        return self._publisher

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
                future.set_exception(CircusdError(f"this {self._name} was closed meanwhile"))
            self._timers.clear()
            self.unbind()

    def _serve_once(self) -> None:
        timeout = None
        if self._timers:
            timeout = max(0, int((self._timers[0][0] - time.monotonic()) * 1000) + 1)
        for ready, _ in self._poller.poll(timeout):
            reader = self._readers.get(ready)
            if reader is not None:  # else the one before it has closed it
                reader()
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()
        while self._work:
            function, future = self._work.popleft()
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - raised again where it came from
                future.set_exception(error)

    def _take_wake_ups(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass

    def _take_request(self, router: zmq.Socket[bytes]) -> None:
        identity, *frames = router.recv_multipart()

        def send_back(frame: bytes) -> None:
            try:
                router.send_multipart([identity, frame], zmq.NOBLOCK)
            except zmq.Again:
                self.not_read()
            except zmq.ZMQError:  # who asked has left, or the socket was closed meanwhile
                pass

        # Several frames are no command, as little as none.
        self._on_request(send_back, frames[0] if len(frames) == 1 else b"")

    def not_read(self) -> None:
        """Note that a client has so many replies to read that it gets no further one."""


def _close_bound(sock: zmq.Socket[bytes], linger: int) -> None:
    """Return when nobody can connect any more; libzmq closes a listener some time later.

    To unbind the socket would end its connections, and drop what has not left yet.
    """
    with sock.get_monitor_socket(zmq.EVENT_CLOSED) as monitor:
        sock.close(linger)
        monitor.poll(_UNBIND_TIMEOUT * 1000)
