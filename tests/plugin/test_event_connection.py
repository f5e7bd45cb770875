# Whether the connection stands, on real sockets: what is told, and what is left without a
# descriptor.

from __future__ import annotations

import errno
import socket
import threading
from typing import Any, cast

import pytest
import zmq
from event_publisher import TOPIC, bind, bind_again, watch
from loop_runs import run
from patience import PATIENCE

from circusplug import CircusPlugError
from circusplug._loop.plugin_loop import PluginLoop
from circusplug._plugin import event_connection as connections
from circusplug._plugin.event_connection import Connection
from circusplug._plugin.worker import Worker
from circusplug._wire.endpoints import Link


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
