# LogSocket by a fake line and a clock that is a number: when it tries again, and how long it takes.
# Real sockets are in test_logger.py.

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from circusplug.plugins import _log_socket
from circusplug.plugins._log_socket import Address, LogSocket
from circusplug.plugins._losses import Losses

LOGGER = logging.getLogger("circusplug.test")


class Line:
    """A log's socket, the loop and the clock in one; each line that is sent takes a while."""

    type = socket.SOCK_DGRAM

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[bytes] = []
        self.closed = 0
        self.failure: OSError | None = None
        self.delays: list[float] = []
        self.now = 0.0
        self.takes = 0.0
        monkeypatch.setattr(_log_socket, "_connect", lambda _: (self, None))
        monkeypatch.setattr(_log_socket, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.losses = Losses("/log", LOGGER)
        self.socket = LogSocket(Address("unix", "/log"), self, LOGGER, self.losses)

    def send(self, line: bytes) -> None:
        self.now += self.takes
        if self.failure is not None:
            raise self.failure
        self.sent.append(line)

    def close(self) -> None:
        self.closed += 1

    def call_later(self, delay: float, flush: Callable[[], None]) -> Any:
        self.delays.append(delay)
        self.flush = flush
        return object()


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    return Line(monkeypatch)


def test_the_delays_double_up_to_a_minute_and_trouble_is_told_once(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    line.failure = OSError("full")
    line.socket.write(b"1")
    line.socket.write(b"2")  # which waits for the next try
    for _ in range(8):
        line.flush()
    assert line.delays == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert line.closed == 9  # each try has a connection of its own
    assert caplog.messages == ["/log takes no lines, they wait: full"]
    line.failure = None
    line.flush()
    assert line.sent == [b"1", b"2"]
    assert caplog.messages[1:] == ["/log takes lines again"]
    line.failure = OSError("full")
    line.socket.write(b"3")
    assert line.delays[9:] == [0.5]
    assert len(caplog.messages) == 3


def test_all_that_is_sent_at_once_has_two_seconds(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    line.failure = OSError("full")
    for number in range(10):
        line.socket.write(b"%d" % number)
    line.failure, line.takes = None, 0.9
    line.flush()
    assert line.sent == [b"0", b"1", b"2"]
    line.socket.close()
    assert len(line.sent) == 6
    line.losses.end()
    assert caplog.messages[-2:] == [
        "cannot write to /log, lines are lost: not done within 2 s",
        "/log: 4 lines were lost",
    ]


def test_each_connection_and_each_line_has_a_second() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        where = listener.getsockname()
        for kind in ("tcp", "udp"):
            connection, _ = _log_socket._connect(Address(kind, where))
            with connection:
                assert connection.gettimeout() == 1.0


def test_a_look_whether_the_other_side_has_gone_leaves_the_timeout() -> None:
    ours, others = socket.socketpair()
    with ours:
        with others:
            assert not _log_socket._was_closed(ours)
            assert ours.gettimeout() == 1.0
        assert _log_socket._was_closed(ours)


def test_losses_are_told_once_and_anew_after_lines_have_arrived(
    caplog: pytest.LogCaptureFixture,
) -> None:
    losses = Losses("x", LOGGER)
    for _ in range(2):
        losses.add("full")
        losses.add("full", 2)
        losses.end()
        losses.end()
    told = ["cannot write to x, lines are lost: full", "x: 3 lines were lost"]
    assert caplog.messages == told * 2


def test_a_file_that_is_closed_loses_lines_too(caplog: pytest.LogCaptureFixture) -> None:
    class Closed:
        def write(self, _: bytes) -> None:
            raise ValueError("I/O operation on closed file")

    Losses("x", LOGGER).write(Closed(), b"")  # type: ignore[arg-type]
    assert caplog.messages == ["cannot write to x, lines are lost: I/O operation on closed file"]
