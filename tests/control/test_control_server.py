# The thread that serves an endpoint: what becomes of those who wait for it when it ends.

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
import zmq
from patience import PATIENCE

from circusplug._control import server as control_server
from circusplug._control.server import Server
from circusplug._errors import CircusdError


class Bare(Server):
    """One that is bound nowhere."""

    def __init__(self) -> None:
        super().__init__("bare server", lambda send_back, frame: None)

    def bind_sockets(self, router: zmq.Socket[bytes], publisher: zmq.Socket[bytes]) -> None:
        pass


def test_what_a_server_that_fails_has_not_got_to_fails_at_once() -> None:
    server = Bare()
    server.open()
    posted: Future[Future[int]] = Future()

    def fail() -> None:
        posted.set_result(server.post(lambda: 7))
        raise ValueError("on purpose")

    server.run(lambda: server.call_later(0, fail))
    with pytest.raises(CircusdError, match="this bare server was closed meanwhile"):
        posted.result(PATIENCE).result(PATIENCE)
    with pytest.raises(CircusdError, match="not running"):
        server.post(lambda: 7)
    server.close()
    assert [str(error) for error in server.errors] == ["on purpose"]


@pytest.fixture
def server() -> Iterator[Bare]:
    server = Bare()
    server.open()
    yield server
    server.close()


def test_a_server_that_is_opened_again_does_nothing_that_was_to_be_done_before(
    server: Bare,
) -> None:
    done: list[str] = []
    server.run(lambda: server.call_later(1000, lambda: done.append("old")))
    server.close()
    server.open()
    assert server.run(lambda: server._timers) == []


def test_what_is_to_be_done_later_is_done_in_the_order_of_its_time(server: Bare) -> None:
    done: list[int] = []
    over = threading.Event()

    def plan() -> None:
        server.call_later(0.02, lambda: (done.append(2), over.set()))  # type: ignore[func-returns-value]
        server.call_later(0.01, lambda: done.append(1))

    server.run(plan)
    assert over.wait(PATIENCE)
    assert done == [1, 2]


def test_any_number_of_functions_may_be_handed_over_while_the_thread_is_busy(
    server: Bare,
) -> None:
    assert server._thread is not None
    assert server._thread.daemon  # who forgets to close it can end all the same
    many = server.run(lambda: [server.post(lambda n=n: n) for n in range(2000)])
    assert [each.result(PATIENCE) for each in many] == list(range(2000))


def test_what_comes_while_the_thread_ends_is_refused_and_not_forgotten(server: Bare) -> None:
    class Ending:
        """The lock, which the thread gets first."""

        def __enter__(self) -> None:
            server._accepting = False

        def __exit__(self, *_: object) -> None:
            server._accepting = True

    lock, server._lock = server._lock, Ending()  # type: ignore[assignment]
    try:
        with pytest.raises(CircusdError, match="this bare server is not running"):
            server.post(lambda: 7)
    finally:
        server._lock = lock


@pytest.mark.parametrize(
    ("error", "unread"), [(zmq.ZMQError(errno.EHOSTUNREACH), 0), (zmq.Again(), 1)]
)
def test_a_reply_that_cannot_be_sent_is_dropped_and_counted_if_nobody_reads(
    error: zmq.ZMQError, unread: int
) -> None:
    noted: list[str] = []

    class Echo(Bare):
        """Sends back what is sent."""

        def __init__(self) -> None:
            super().__init__()
            self._on_request = lambda send_back, frame: send_back(frame)

        def not_read(self) -> None:
            noted.append("not read")

    def refuse(*_: object) -> None:
        noted.append("sent")
        raise error

    router: Any = SimpleNamespace(recv_multipart=lambda: [b"who", b"asks"], send_multipart=refuse)
    Echo()._take_request(router)
    assert noted == ["sent", *["not read"] * unread]


def test_a_thread_that_hangs_is_told_of(server: Bare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_server, "_RUN_TIMEOUT", 0.01)
    release = threading.Event()
    server.post(release.wait)
    thread = server._thread
    try:
        with pytest.raises(CircusdError, match="the thread of the bare server is busy"):
            server.run(lambda: 7)
        with pytest.raises(CircusdError, match="the thread of the bare server hangs"):
            server.close()
    finally:
        release.set()
        monkeypatch.undo()
        server._thread = thread  # so that it can be closed after all


def test_a_socket_is_not_read_once_another_reader_has_given_it_up(server: Bare) -> None:
    read: list[int] = []

    def watch_two() -> None:
        pairs = [server._context.socket(zmq.PAIR) for _ in range(4)]
        for number in (0, 1):
            pairs[number].bind(f"inproc://{number}")
            pairs[number + 2].connect(f"inproc://{number}")
            pairs[number + 2].send(b"")

        def on_readable(number: int) -> None:
            read.append(number)
            for sock in pairs[:2]:
                server.unwatch(sock)
            for sock in pairs:
                sock.close(0)

        for number in (0, 1):
            server.watch(pairs[number], lambda number=number: on_readable(number))

    server.run(watch_two)
    server.run(lambda: None)
    server.run(lambda: None)
    assert len(read) == 1
    assert server.errors == []
