# Logger at real sockets: what syslog and journald get, and what becomes of lines that nobody takes.

from __future__ import annotations

import json
import re
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bundled import MOMENT, Journal
from fixture_types import Run
from logger_bench import journal_fields, some
from patience import PATIENCE

from circusplug.plugins import Logger
from circusplug.plugins._line_formats import FORMATS
from circusplug.plugins._syslog_messages import Journal as JournalMessage
from circusplug.plugins._syslog_messages import Rfc5424

pytestmark = pytest.mark.usefixtures("utc")


@pytest.fixture
def directory() -> Iterator[Path]:
    """One whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        yield Path(path)


def datagrams(where: Any, family: int = socket.AF_INET) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.settimeout(PATIENCE)
    sock.bind(where)
    return sock


def listener(where: Any, family: int = socket.AF_INET) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.settimeout(PATIENCE)
    sock.bind(where)
    sock.listen()
    return sock


def accept(sock: socket.socket) -> socket.socket:
    client, _ = sock.accept()
    client.settimeout(PATIENCE)
    return client


def test_syslog_over_udp_gets_rfc_5424(run_plugin: Run) -> None:
    with datagrams(("127.0.0.1", 0)) as sock:
        address = f"udp://127.0.0.1:{sock.getsockname()[1]}"
        running = run_plugin(Logger, target="syslog", syslog=address)
        some(running, 0, 1)
        running.publish("My App", "hook_failure", name="x", time=MOMENT)
        assert sock.recv(9999) == (
            b"<30>1 2026-01-02T03:04:05.000+00:00 box circus 0 reap - web reap pid=0 exit_code=0"
        )
        assert sock.recv(9999) == (
            b"<28>1 2026-01-02T03:04:05.000+00:00 box circus - hook_failure - "
            b"my_app hook_failure name=x"
        )
        running.publish("web", "reap", process_pid=7, exit_code=-9, time=MOMENT)
        assert sock.recv(9999).startswith(b"<28>1 ")  # a warning, too


def test_the_facility_can_be_said(run_plugin: Run) -> None:
    with datagrams(("127.0.0.1", 0)) as sock:
        address = f"udp://127.0.0.1:{sock.getsockname()[1]}"
        some(run_plugin(Logger, target="syslog", syslog=address, facility="user"), 0, 1)
        assert sock.recv(9999).startswith(b"<14>1 ")


@pytest.mark.parametrize("stream", [False, True])
def test_syslog_at_a_path_gets_rfc_3164(run_plugin: Run, directory: Path, stream: bool) -> None:
    path = str(directory / "log")
    make = listener if stream else datagrams
    with make(path, socket.AF_UNIX) as sock:
        running = run_plugin(Logger, target="syslog", syslog=path, facility="local3", format="json")
        some(running, 0, 1)
        with accept(sock) if stream else sock as receiver:
            line = receiver.recv(9999)
    head, _, text = line.partition(b": ")
    assert head == b"<158>Jan  2 03:04:05 circus[0]"
    assert json.loads(text)["action"] == "reap"
    assert line.endswith(b"\n") is stream


def test_rfc_3164_over_the_network_has_the_host_s_name(run_plugin: Run) -> None:
    with datagrams(("127.0.0.1", 0)) as sock:
        address = f"udp://127.0.0.1:{sock.getsockname()[1]}"
        some(run_plugin(Logger, target="syslog", syslog=address, syslog_format="rfc3164"), 0, 1)
        assert sock.recv(9999).startswith(b"<30>Jan  2 03:04:05 box circus[0]: web reap")


def test_journald_gets_fields(run_plugin: Run, directory: Path) -> None:
    with datagrams(str(directory / "socket"), socket.AF_UNIX) as sock:
        running = run_plugin(Logger, target="journald", journal=str(directory / "socket"))
        running.publish(
            "My App",
            "hook_failure",
            process_pid=7,
            error="one\ntwo",
            watcher="x",
            action="y",
            time=MOMENT,
        )
        assert journal_fields(sock.recv(9999)) == {
            "MESSAGE": 'my_app hook_failure pid=7 error="one\\ntwo" watcher=x action=y',
            "PRIORITY": "4",
            "SYSLOG_IDENTIFIER": "circus",
            "CIRCUS_WATCHER": "my_app",
            "CIRCUS_ACTION": "hook_failure",
            "CIRCUS_PID": "7",
            "CIRCUS_ERROR": "one\ntwo",
            "CIRCUS_TIME": str(MOMENT),
        }


def test_what_went_wrong_is_a_warning_and_what_is_too_much_is_cut() -> None:
    for action, severity in (("reconnect", 4), ("unreadable", 4), ("stop", 6)):
        assert (
            Rfc5424(FORMATS["text"], "user")(MOMENT, "web", action, {})[:5]
            == (b"<%d>1 " % (8 + severity))[:5]
        )
    message = Rfc5424(FORMATS["text"], "local7")(MOMENT, "web", "x" * 99, {})
    assert message.startswith(b"<190>1 ")
    assert b" circus - " + b"x" * 32 + b" - " in message
    many = {f"f{number}": number for number in range(1000)}
    fields = journal_fields(JournalMessage(FORMATS["text"])(MOMENT, "web", "stop", many))
    assert len([name for name in fields if name.startswith("CIRCUS_F")]) == 50


def numbers(receiver: socket.socket, count: int) -> list[int]:
    """The numbers in so many lines of a stream."""
    with receiver.makefile("rb") as lines:
        return [int(re.findall(rb"pid=(\d+)", lines.readline())[0]) for _ in range(count)]


def test_lines_wait_for_a_syslog_that_comes_later_and_for_one_that_comes_back(
    run_plugin: Run, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug.plugins._log_socket._FIRST_DELAY", 0.01)
    with listener(("127.0.0.1", 0)) as reserved:
        where = reserved.getsockname()
    address = f"tcp://127.0.0.1:{where[1]}"
    running = run_plugin(Logger, target="syslog", syslog=address)
    some(running, 0, 3)
    journal.wait(f"{address} takes no lines, they wait")
    with listener(where) as sock, accept(sock) as receiver:
        assert numbers(receiver, 3) == [0, 1, 2]
        journal.wait(f"{address} takes lines again")
    some(running, 3, 6)
    with listener(where) as sock, accept(sock) as receiver:
        assert numbers(receiver, 3) == [3, 4, 5]


def test_what_waits_is_sent_at_the_stop(
    run_plugin: Run, directory: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug.plugins._log_socket._FIRST_DELAY", 1e6)
    path = str(directory / "log")
    running = run_plugin(Logger, target="syslog", syslog=path)
    some(running, 0, 3)
    with listener(path, socket.AF_UNIX) as sock:
        running.stop()
        with accept(sock) as receiver:
            assert numbers(receiver, 3) == [0, 1, 2]
            assert receiver.recv(1) == b""
    assert "lost" not in str(journal.messages)


def test_how_many_lines_nobody_took_is_told_at_the_stop(
    run_plugin: Run, directory: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug.plugins._log_socket.MOST_WAITING", 3)
    path = str(directory / "log")
    running = run_plugin(Logger, target="syslog", syslog=path)
    some(running, 0, 5)
    journal.wait(f"cannot write to {path}, lines are lost: 3 lines wait already")
    running.stop()
    journal.wait(f"{path}: 5 lines were lost")


def test_a_receiver_that_does_not_read_holds_nobody_up_for_long(
    run_plugin: Run, directory: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug.plugins._log_socket._TIMEOUT", 0.01)
    path = str(directory / "log")
    with datagrams(path, socket.AF_UNIX) as sock:
        running = run_plugin(Logger, target="syslog", syslog=path)
        running.circusd.publish_many(2000, "web", "spawn")
        running.wait_handled(2000, PATIENCE)
        journal.wait("takes no lines, they wait: timed out")
        monkeypatch.setattr("circusplug.plugins._log_socket._TIMEOUT", PATIENCE)
        monkeypatch.setattr("circusplug.plugins._log_socket._FIRST_DELAY", 0.01)
        for _ in range(2000):
            assert b"web spawn" in sock.recv(9999)


def test_a_line_that_fits_no_datagram_is_lost_and_the_next_is_not(
    run_plugin: Run, journal: Journal
) -> None:
    with datagrams(("127.0.0.1", 0)) as sock:
        address = f"udp://127.0.0.1:{sock.getsockname()[1]}"
        running = run_plugin(Logger, target="syslog", syslog=address)
        running.publish("web", "hook_failure", error="x" * 100_000)
        running.publish("web", "stop")
        assert b"web stop" in sock.recv(9999)
        journal.wait(f"cannot write to {address}, lines are lost: [Errno 90] Message too long")
        journal.wait(f"{address}: 1 lines were lost")
