# A client on a loop of its own, against a FakeCircusd or a bare ROUTER socket. A `Bench` is
# the least that a client needs around it: a thread, its loop and the sockets it makes.
#
# Owner: the client and its sockets belong to the bench's thread, a Router to the test's.

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import json
import logging
import queue
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import zmq
from patience import PATIENCE

from circusplug import CallTimeout
from circusplug._loop.plugin_loop import PluginLoop
from circusplug._plugin.client import Client
from circusplug._plugin.status import Counters
from circusplug._wire.endpoints import configure_link
from circusplug.testing._server import _PORTS, part_of

LOGGER = logging.getLogger("circusplug.plugin.bench")

#: circusd's answer while another command excludes this one.
CONFLICT: dict[str, Any] = {
    "status": "error",
    "reason": "arbiter is already running incr command",
    "errno": 5,
}

#: A deadline that shall pass.
SOON = 0.05


def deadlines() -> Iterator[float]:
    """Deadlines for what shall happen before they pass: each is longer than the one before.

    The first few may be too short on a busy machine. Who has one that was not breaks off.
    """
    timeout = SOON
    while timeout < PATIENCE:
        yield timeout
        timeout *= 2
    pytest.fail("no deadline was long enough")


def ask_in_vain(ask: Callable[[float], Any]) -> CallTimeout:
    """Send one command that has no reply; returns what is raised at its deadline."""
    for timeout in deadlines():
        with pytest.raises(CallTimeout) as caught:
            ask(timeout)
        if "command not sent" not in str(caught.value):  # the owner was busy until then
            assert caught.value.timeout == timeout
            break
    return caught.value


class AdvancedLoop(PluginLoop):
    """A loop whose clock a test may put forward, and that of all others with it."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + AdvancedLoop.ahead


class Bench:
    """A client on a thread of its own, whose loop runs until the bench is closed."""

    def __init__(self, endpoint: str, door: str = "") -> None:
        self.endpoint = endpoint
        self.sockets: list[zmq.Socket[bytes]] = []
        self.no_more_sockets = False
        self.counters = Counters()
        self.loop = AdvancedLoop()
        self.client = Client(
            self.loop,
            lambda: self._make_socket(endpoint),
            self.counters,
            LOGGER,
            make_door_socket=(lambda: self._make_socket(door)) if door else None,
        )
        self._context: zmq.Context[Any] = zmq.Context()
        self._opened = threading.Event()
        self.parked = threading.Event()
        self.thread = threading.Thread(target=self._run, name="owner")
        self.thread.start()
        assert self._opened.wait(PATIENCE)

    def _make_socket(self, endpoint: str) -> zmq.Socket[bytes]:
        # As a plugin's worker does.
        if self.no_more_sockets:
            raise zmq.ZMQError(errno.EMFILE)
        dealer: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        configure_link(dealer, endpoint)
        dealer.setsockopt(zmq.IMMEDIATE, 1)
        dealer.connect(endpoint)
        self.sockets.append(dealer)
        return dealer

    @property
    def sent(self) -> int:
        return self.counters.calls

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.client.open()
        self._opened.set()
        self.loop.run_forever()
        self.parked.set()
        self.client.serve_parked()
        self.client.close()
        self.loop.close()
        asyncio.set_event_loop(None)

    def pass_by(self, seconds: float) -> None:
        """Put the clock forward; what is due then is done at once."""
        AdvancedLoop.ahead += seconds
        self.client._post(lambda: None)  # it wakes up, and looks

    def park(self) -> None:
        """Stop the loop; what is handed over is served all the same."""
        self.loop.stop_threadsafe()
        assert self.parked.wait(PATIENCE)

    def close(self) -> None:
        self.park()
        self.client.end_parked()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        assert all(each.closed for each in self.sockets)
        self._context.term()

    def call(
        self,
        command: str,
        timeout: float | None = PATIENCE,
        patience: float | None = None,
        **properties: Any,
    ) -> Any:
        return self.client.call(command, properties, timeout, patience)

    def on_owner(self, function: Callable[[], Any]) -> Any:
        """Call on the client's own thread, as a handler would."""
        outcome: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                outcome.put((function(), None))
            except BaseException as error:
                outcome.put((None, error))

        self.loop.add_callback(run)
        result, error = outcome.get(timeout=PATIENCE)
        if error is not None:
            raise error
        return result

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the client's loop to its end."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE)

    def open_sockets(self) -> int:
        return sum(not each.closed for each in self.sockets)


#: The four ways to call: handed over by another thread, on the own one, awaited on the loop.
Way = Callable[..., Any]


class Router:
    """A ROUTER of the test's own, to see routing ids and to answer frame by frame."""

    def __init__(self) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self._router: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        self._router.linger = 0
        # Out of this process's part: a fake circusd of another one may be down, and come back.
        ports = part_of(_PORTS)
        port = self._router.bind_to_random_port("tcp://127.0.0.1", ports.start, ports.stop)
        self.endpoint = f"tcp://127.0.0.1:{port}"

    def take(self) -> tuple[bytes, dict[str, Any]]:
        """The next request, with the routing id of who sent it."""
        assert self._router.poll(int(PATIENCE * 1000))
        routing_id, frame = self._router.recv_multipart()
        return routing_id, json.loads(frame)

    def send(self, routing_id: bytes, *frames: bytes) -> None:
        self._router.send_multipart([routing_id, *frames])

    def serve(self, ask: Callable[[], object]) -> bytes:
        """Have one command asked, and answer it; returns which socket it came from."""
        asking = Asking(ask)
        routing_id, request = self.take()
        self.answer(routing_id, request)
        asking.result()
        return routing_id

    def answer(self, routing_id: bytes, request: dict[str, Any], /, **reply: Any) -> None:
        self.send(routing_id, json.dumps({"id": request["id"], "status": "ok", **reply}).encode())

    @property
    def empty(self) -> bool:
        return not self._router.poll(0)

    def close(self) -> None:
        self._router.close()
        self._context.term()


class Asking(threading.Thread):
    """A call under way on another thread."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(name="asking")
        self._call = call
        self._result: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        self.join(PATIENCE)
        assert not self.is_alive()
        if self._error is not None:
            raise self._error
        return self._result


def until_unreachable(send: Callable[[float], Any]) -> None:
    """Send until the client says that there is no circusd to send to; so it is from then on.

    libzmq notices the end of a connection on a thread of its own and tells nobody; and the owner
    may not get to a command within a short deadline, so each one is longer than the one before.
    """
    for timeout in deadlines():
        with pytest.raises(CallTimeout, match=r"cannot be reached|no reply|not sent") as told:
            send(timeout)
        if f"circusd cannot be reached within {timeout:g} s" in str(told.value):
            break


@contextlib.contextmanager
def client_here(endpoint: str, door: str = "") -> Iterator[tuple[Client, Counters, PluginLoop]]:
    """A client whose owner is the calling thread."""
    context: zmq.Context[Any] = zmq.Context()

    def make_socket(endpoint: str = endpoint) -> zmq.Socket[bytes]:
        dealer: zmq.Socket[bytes] = context.socket(zmq.DEALER)
        dealer.linger = 0
        dealer.setsockopt(zmq.IMMEDIATE, 1)
        dealer.connect(endpoint)
        return dealer

    loop, counters = PluginLoop(), Counters()
    make_door_socket = functools.partial(make_socket, door) if door else None
    client = Client(loop, make_socket, counters, LOGGER, make_door_socket=make_door_socket)
    client.open()
    yield client, counters, loop
    client.close()
    loop.close()
    context.term()
