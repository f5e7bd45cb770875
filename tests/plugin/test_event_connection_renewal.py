# When a connection is made anew, as libzmq does not mend everything by itself.

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest
import zmq
from event_publisher import TOPIC, bind, bind_again, watch
from loop_runs import run
from patience import PATIENCE

from circusplug._loop.plugin_loop import PluginLoop
from circusplug._plugin import event_connection as connections
from circusplug._plugin.event_connection import Connection


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
