# Whether the connection stands, on real sockets: what is told, and what libzmq does not mend by
# itself.

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
import zmq
from patience import PATIENCE

from circusplug import CircusPlugError
from circusplug._loop.plugin_loop import PluginLoop
from circusplug._plugin import event_connection as connections
from circusplug._plugin.event_connection import Connection
from circusplug._plugin.worker import Worker
from circusplug._wire.endpoints import Link

TOPIC = b"watcher."


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    with zmq.Context() as context:
        yield context


@pytest.fixture
def connection() -> Iterator[Connection]:
    connection = Connection()
    yield connection
    connection.close()
    connection.close()


@pytest.fixture
def publisher(context: zmq.Context[Any]) -> Iterator[zmq.Socket[bytes]]:
    with context.socket(zmq.XPUB) as publisher:
        publisher.linger = 0
        publisher.setsockopt(zmq.XPUB_VERBOSE, 1)
        yield publisher


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


def run(loop: PluginLoop) -> None:
    """Run until something stops the loop, but not for ever."""
    limit = loop.call_later(PATIENCE, loop.stop)
    loop.run_forever()
    assert loop.time() < limit.when(), "nothing has stopped the loop"
    limit.cancel()


def test_a_wait_ends_when_the_connection_stands_or_time_is_over(
    context: zmq.Context[Any], connection: Connection, publisher: zmq.Socket[bytes]
) -> None:
    endpoint = bind(publisher)
    publisher.unbind(endpoint)
    connection.open(context, endpoint, [TOPIC])
    assert not connection.wait(0)
    assert not connection.up
    bind_again(publisher, endpoint)
    assert connection.wait(PATIENCE)
    assert connection.up


def test_each_change_is_told_once(
    context: zmq.Context[Any],
    connection: Connection,
    publisher: zmq.Socket[bytes],
    loop: PluginLoop,
) -> None:
    endpoint = bind(publisher)
    connection.open(context, endpoint, [TOPIC])
    told = watch(connection, loop)
    run(loop)
    publisher.close()
    run(loop)
    with context.socket(zmq.XPUB) as again:
        again.linger = 0
        bind_again(again, endpoint)
        run(loop)
    assert told == [True, False, True]


def accept_and_close(server: socket.socket, count: int, before_last: threading.Event) -> None:
    for number in range(count):
        if number == count - 1:
            before_last.set()
        server.accept()[0].close()


def test_a_peer_that_never_shook_hands_is_not_lost(
    context: zmq.Context[Any], connection: Connection, loop: PluginLoop
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection.open(context, f"tcp://127.0.0.1:{server.getsockname()[1]}", [TOPIC])
        reads = []
        look = connection.look

        def look_and_count() -> bool:
            reads.append(look())
            if len(reads) == 2:
                loop.stop()
            return connection.up

        connection.look = look_and_count  # type: ignore[method-assign]
        told = watch(connection, loop)
        closing = threading.Thread(target=accept_and_close, args=(server, 3, threading.Event()))
        closing.start()
        run(loop)
        closing.join(PATIENCE)
    assert (told, connection.up) == ([], False)


#: How much a monitor with limits would hold: as much as its socket and the other one may.
QUEUED = 2 * 1000


def test_a_monitor_that_nobody_reads_holds_up_nobody(
    context: zmq.Context[Any], connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler blocks while its connection comes and goes more often than a queue is long.

    libzmq tells two things of each connection.
    """
    configure = connections.configure_link

    def configure_quick(socket: zmq.Socket[Any], *args: Any) -> None:
        configure(socket, *args)
        socket.setsockopt(zmq.RECONNECT_IVL, 1)

    monkeypatch.setattr(connections, "configure_link", configure_quick)
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection.open(context, f"tcp://127.0.0.1:{server.getsockname()[1]}", [TOPIC])
        closing = threading.Thread(target=accept_and_close, args=(server, QUEUED // 2 + 100, over))
        closing.start()
        reached = over.wait(PATIENCE)
        while closing.is_alive():
            connection.look()  # lets the I/O thread go on, if it waits
            closing.join(0.01)
    assert reached


@pytest.mark.parametrize("peer", ["one that is no publisher", "one that sends too much"])
def test_what_libzmq_gives_up_on_is_connected_to_anew(
    peer: str,
    context: zmq.Context[Any],
    connection: Connection,
    publisher: zmq.Socket[bytes],
    loop: PluginLoop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "RENEW_INTERVAL", 0.1)
    if peer == "one that is no publisher":
        with context.socket(zmq.ROUTER) as other, other.get_monitor_socket() as monitor:
            other.linger = 0
            endpoint = bind(other)
            connection.open(context, endpoint, [TOPIC])
            _wait_for(monitor, zmq.EVENT_DISCONNECTED)
            other.disable_monitor()
        bind_again(publisher, endpoint)
        told = watch(connection, loop)
        run(loop)
        assert told == [True]
    else:
        endpoint = bind(publisher)
        connection.open(context, endpoint, [TOPIC], 1000)
        assert connection.wait(PATIENCE)
        assert publisher.recv() == b"\x01" + TOPIC
        told = watch(connection, loop)
        publisher.send(TOPIC + bytes(5000))
        run(loop)
        run(loop)
        assert told == [False, True]
        while publisher.poll(int(PATIENCE * 1000)) and publisher.recv() != b"\x01" + TOPIC:
            pass  # the old one's end comes first
        publisher.send(TOPIC + bytes(5))
        sub = connection.socket
        assert sub is not None
        assert sub.poll(int(PATIENCE * 1000))
        assert sub.recv() == TOPIC + bytes(5)


def test_that_libzmq_has_given_up_is_told_once_however_long_nobody_answers(
    context: zmq.Context[Any], loop: PluginLoop
) -> None:
    told: list[str] = []
    connection = Connection(lambda: told.append("given up"))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection.open(context, f"tcp://127.0.0.1:{silent.getsockname()[1]}", [TOPIC])
        watch(connection, loop)
        connection._given_up = True  # as after a message that was too large
        connection._renew()
        connection._renew()
        connection.close()
    assert told == ["given up"]


def test_that_libzmq_has_given_up_is_told_of_a_publisher_that_was_away_as_well(
    context: zmq.Context[Any],
    publisher: zmq.Socket[bytes],
    loop: PluginLoop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "GIVEN_UP_WAIT", 0.05)
    monkeypatch.setattr(connections, "RENEW_INTERVAL", 0.05)

    def given_up() -> None:
        told.append("given up")
        loop.stop()

    told: list[str] = []
    connection = Connection(given_up)
    endpoint = bind(publisher)
    publisher.unbind(endpoint)
    connection.open(context, endpoint, [TOPIC], 1000)
    with contextlib.closing(connection):
        while connection._hears_tries:  # until libzmq has said that it tries again
            assert connection._monitors[0].poll(int(PATIENCE * 1000))
            connection.look()
        bind_again(publisher, endpoint)
        assert connection.wait(PATIENCE)
        assert publisher.recv() == b"\x01" + TOPIC
        changes = watch(connection, loop)
        publisher.send(TOPIC + bytes(5000))
        run(loop)
        run(loop)
    assert (changes, told) == ([False], ["given up"])


def _wait_for(monitor: zmq.Socket[bytes], event: int) -> None:
    while True:
        assert monitor.poll(int(PATIENCE * 1000))
        frames = monitor.recv_multipart()
        if int.from_bytes(frames[0][:2], "little") == event:
            return


def test_what_waits_is_not_dropped_by_a_renewal(
    context: zmq.Context[Any],
    connection: Connection,
    publisher: zmq.Socket[bytes],
    loop: PluginLoop,
) -> None:
    endpoint = bind(publisher)
    connection.open(context, endpoint, [TOPIC])
    assert connection.wait(PATIENCE)
    publisher.recv()
    publisher.linger = int(PATIENCE * 1000)
    for number in b"1", b"2":
        publisher.send(TOPIC + number)
    sub = connection.socket
    assert sub is not None
    assert sub.poll(int(PATIENCE * 1000))
    told = watch(connection, loop)
    publisher.close()
    run(loop)
    connection._renew()
    assert told == [False]
    assert [sub.recv(zmq.NOBLOCK), sub.recv(zmq.NOBLOCK)] == [TOPIC + b"1", TOPIC + b"2"]


def sockets_of(
    context: zmq.Context[Any], monkeypatch: pytest.MonkeyPatch
) -> list[zmq.Socket[bytes]]:
    """The sockets that are made from now on."""
    made: list[zmq.Socket[bytes]] = []
    make = context.socket

    def remember(kind: int) -> zmq.Socket[bytes]:
        made.append(make(kind))
        return made[-1]

    monkeypatch.setattr(context, "socket", remember)
    return made


def test_a_command_socket_that_cannot_be_connected_is_closed(
    context: zmq.Context[Any], publisher: zmq.Socket[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sockets_of(context, monkeypatch)
    worker = Worker("one", Link("tcp://no such host:1", bind(publisher), context))
    with pytest.raises(CircusPlugError, match="cannot connect to tcp://no such host:1"):
        worker.run(cast(Any, None))  # it does not get as far as the plugin
    assert [each.type for each in made] == [zmq.SUB, zmq.PAIR, zmq.DEALER]
    assert all(each.closed for each in made)


def test_a_burst_has_room_for_a_hundred_thousand_events(
    context: zmq.Context[Any], connection: Connection, publisher: zmq.Socket[bytes]
) -> None:
    connection.open(context, bind(publisher), [TOPIC])
    assert connection.socket is not None
    assert connection.socket.getsockopt(zmq.RCVHWM) == 100_000


class Noting(PluginLoop):
    """Notes what is to be done later."""

    def __init__(self) -> None:
        super().__init__()
        self.later: list[float] = []

    def call_later_for_real(self, delay: float, callback: Any) -> Any:
        self.later.append(delay)
        return super().call_later_for_real(delay, callback)


@pytest.fixture
def noting() -> Iterator[Noting]:
    loop = Noting()
    yield loop
    loop.close()


def test_one_that_is_away_is_connected_to_anew_every_five_seconds_and_not_oftener(
    context: zmq.Context[Any], connection: Connection, noting: Noting
) -> None:
    connection.open(context, "tcp://127.0.0.1:9", [TOPIC])
    connection.watch(noting, lambda _: None)
    for _ in range(3):
        connection.look()
    assert noting.later == [5.0]
    for times in (2, 3):
        connection._renew()
        connection.look()
        assert noting.later == [5.0] * times
    connection._given_up = True
    connection._renewal = None
    connection.look()
    assert noting.later[-1] == 0.5


def test_nothing_is_connected_anew_while_it_stands_or_when_nobody_watches(
    context: zmq.Context[Any],
    connection: Connection,
    publisher: zmq.Socket[bytes],
    noting: Noting,
) -> None:
    connection.open(context, bind(publisher), [TOPIC])
    assert connection.wait(PATIENCE)
    connection.watch(noting, lambda _: None)
    assert publisher.recv() == b"\x01" + TOPIC
    connection._renew()
    assert noting.later == []
    connection.up = False  # as if it were lost
    connection._renew_later()
    renewal: Any = connection._renewal
    connection.unwatch()
    assert renewal.cancelled()
    connection.watch(noting, lambda _: None)
    assert noting.later == [5.0, 5.0]
    assert not publisher.poll(0), "it has subscribed anew"


def test_one_of_this_process_stands_from_the_beginning(
    context: zmq.Context[Any], connection: Connection, publisher: zmq.Socket[bytes]
) -> None:
    publisher.bind("inproc://events")
    connection.open(context, "inproc://events", [TOPIC])
    assert connection.wait(0)


def test_without_a_descriptor_for_another_monitor_the_one_that_there_is_goes_on(
    context: zmq.Context[Any],
    connection: Connection,
    publisher: zmq.Socket[bytes],
    loop: PluginLoop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise zmq.ZMQError(errno.EMFILE)

    endpoint = bind(publisher)
    publisher.unbind(endpoint)
    connection.open(context, endpoint, [TOPIC])
    (monitor,) = connection._monitors
    made = sockets_of(context, monkeypatch)
    monkeypatch.setattr(connections.zmq.Socket, "monitor", refuse)
    told = watch(connection, loop)
    while not monitor.poll(int(PATIENCE * 1000)):
        pass
    connection.look()  # libzmq tries again, and would be told to say no more of that
    assert connection._hears_tries
    assert all(each.closed for each in made)
    bind_again(publisher, endpoint)
    run(loop)
    assert told == [True]


def test_without_a_descriptor_for_the_first_monitor_it_cannot_be_opened(
    context: zmq.Context[Any], connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise zmq.ZMQError(errno.EMFILE)

    monkeypatch.setattr(connections.zmq.Socket, "monitor", refuse)
    with pytest.raises(zmq.ZMQError):
        connection.open(context, "tcp://127.0.0.1:9", [TOPIC])


def test_it_is_connected_anew_even_if_it_could_not_be_disconnected(
    connection: Connection, loop: PluginLoop
) -> None:
    class Socket:
        """Of which libzmq has forgotten the connection."""

        def poll(self, _: int) -> int:
            return 0

        def disconnect(self, _: str) -> None:
            raise zmq.ZMQError(errno.ENOENT)

        def connect(self, endpoint: str) -> None:
            connected.append(endpoint)

    connected: list[str] = []
    connection._endpoint, connection._loop = "tcp://127.0.0.1:9", loop
    connection._socket = cast(Any, Socket())
    connection._renew()
    connection._socket = None
    assert connected == ["tcp://127.0.0.1:9"]
