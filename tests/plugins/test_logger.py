# Logger: logfmt, filters, rotation, a full disk; syslog and journald at real sockets. What else it
# writes, as text and JSON, is in test_logger_lines.py.

from __future__ import annotations

import json
import os
import re
import resource
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bundled import MOMENT, Journal
from patience import PATIENCE

from circusplug import SpecError
from circusplug.plugins import Logger
from circusplug.plugins._line_formats import FORMATS
from circusplug.plugins._linefile import WatchedFile
from circusplug.plugins._log_socket import Address
from circusplug.plugins._syslog_messages import Journal as JournalMessage
from circusplug.plugins._syslog_messages import Rfc3164, Rfc5424
from circusplug.testing import RunningPlugin

Run = Callable[..., RunningPlugin]


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setattr("socket.gethostname", lambda: "box")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


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


def some(running: RunningPlugin, first: int, last: int) -> None:
    """Publish numbered events, and wait until they are handled."""
    for number in range(first, last):
        running.publish("web", "reap", process_pid=number, exit_code=0, time=MOMENT)
    running.wait_handled(last)


# Lines


def test_logfmt_is_key_and_value_throughout(run_plugin: Run, tmp_path: Path) -> None:
    running = run_plugin(Logger, filename=str(tmp_path / "log"), format="logfmt")
    odd = {"a b=": "c d", "action": "x", "none": None, "error": 'no "file"\n'}
    running.publish("My App", "reap", process_pid=7, exit_code=-9, **odd, time=MOMENT + 0.25)
    running.wait_handled(1)
    assert (tmp_path / "log").read_text() == (
        "time=2026-01-02T03:04:05.250+00:00 watcher=my_app action=reap pid=7 exit_code=-9 "
        'a_b_="c d" none=null error="no \\"file\\"\\n"\n'
    )


def test_only_the_watchers_and_actions_asked_for_are_written(
    run_plugin: Run, tmp_path: Path
) -> None:
    options = {"watchers": "My App*, web", "actions": "reap, hook_*"}
    running = run_plugin(Logger, filename=str(tmp_path / "log"), **options)
    for watcher in ("My App.v1", "web", "webs"):
        for action in ("reap", "spawn", "hook_failure"):
            running.publish(watcher, action, time=MOMENT)
    running.circusd.publish_raw(b"watcher.web.reap", b"{x")
    running.wait_handled(10)
    words = [line.split()[2:4] for line in (tmp_path / "log").read_text().splitlines()]
    found = [["my_app.v1", "reap"], ["my_app.v1", "hook_failure"], ["web", "reap"]]
    assert words[:-1] == [*found, ["web", "hook_failure"]]
    assert "unreadable" in words[-1]


@pytest.mark.parametrize(
    "payload",
    [
        {"error": "\ud800 \0 \n"},
        {"a\nb": {"c": [None]}, "": "", "ä" * 100: 1},
        {"exit_code": "x", "process_pid": None},
        {str(number): number for number in range(1000)},
    ],
)
def test_every_form_is_one_line_whatever_the_payload_is(payload: dict[str, Any]) -> None:
    for watcher, action in (("web", "reap"), ("", "re\nap ]\ud800"), ("we\nb", "")):
        for form in FORMATS.values():
            line = form(MOMENT, watcher, action, payload)
            assert len(line.splitlines()) == 1
            for message in (Rfc5424(form, "user"), Rfc3164(form, "user", False)):
                assert len(message(MOMENT, watcher, action, payload).splitlines()) == 1
            fields = journal_fields(JournalMessage(form)(MOMENT, watcher, action, payload))
            assert fields["MESSAGE"] == line
            assert all(re.fullmatch("[A-Z][A-Z0-9_]{0,63}", name) for name in fields)


# Files


def test_a_file_is_rotated_by_size_and_so_many_old_ones_are_kept(
    run_plugin: Run, tmp_path: Path
) -> None:
    line = len("2026-01-02 03:04:05 web reap pid=0 exit_code=0\n")
    log = tmp_path / "log"
    running = run_plugin(Logger, filename=str(log), rotate_size=2 * line, keep="2")
    some(running, 0, 9)
    found = {path.name: re.findall(r"pid=(\d)", path.read_text()) for path in tmp_path.iterdir()}
    assert found == {"log": ["8"], "log.1": ["6", "7"], "log.2": ["4", "5"]}


def test_a_line_that_is_larger_than_a_file_is_written_all_the_same(
    run_plugin: Run, tmp_path: Path
) -> None:
    running = run_plugin(Logger, filename=str(tmp_path / "log"), rotate_size=1, keep=9)
    some(running, 0, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1", "log.2"]


def test_a_file_is_rotated_by_time_and_so_many_old_ones_are_kept(
    run_plugin: Run, tmp_path: Path
) -> None:
    log, day = tmp_path / "log", 24 * 3600
    for number in range(3):
        (tmp_path / f"log.2001-01-0{number + 1}").write_text("old\n")
    log.write_text("yesterday\n")
    moment = time.time() - day
    os.utime(log, (moment, moment))
    running = run_plugin(Logger, filename=str(log), rotate_every="day", keep=2)
    some(running, 0, 2)
    date = time.strftime("%Y-%m-%d", time.localtime(moment))
    assert {path.name for path in tmp_path.iterdir()} == {"log", f"log.{date}", "log.2001-01-03"}
    assert (tmp_path / f"log.{date}").read_text() == "yesterday\n"
    assert len(log.read_text().splitlines()) == 2


def test_lines_go_on_where_a_file_cannot_be_rotated_and_that_is_told_once(
    run_plugin: Run, tmp_path: Path, journal: Journal
) -> None:
    (tmp_path / "log.1" / "in_the_way").mkdir(parents=True)
    running = run_plugin(Logger, filename=str(tmp_path / "log"), rotate_size=1, keep=1)
    some(running, 0, 3)
    assert re.findall(r"pid=(\d)", (tmp_path / "log").read_text()) == ["0", "1", "2"]
    running.stop()
    assert str(journal.messages).count("cannot begin a new file, the old one grows") == 1


@pytest.mark.parametrize("options", [{}, {"rotate_size": 1}, {"rotate_every": "hour"}])
def test_how_many_lines_a_full_disk_cost_is_told_at_the_stop_too(
    options: dict[str, Any], run_plugin: Run, journal: Journal
) -> None:
    running = run_plugin(Logger, filename="/dev/full", **options)
    some(running, 0, 3)
    running.stop()
    journal.wait("cannot write to /dev/full, lines are lost: [Errno 28] No space left on device")
    journal.wait("/dev/full: 3 lines were lost")


def test_a_line_that_does_not_fit_on_the_disk_leaves_no_part_of_it(tmp_path: Path) -> None:
    file = WatchedFile(str(tmp_path / "log"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        file.write(b"123456")
        with pytest.raises(OSError, match="too large"):
            file.write(b"7890ab")
        assert (tmp_path / "log").read_bytes() == b"123456\n"
        file.write(b"7")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        file.close()
    assert (tmp_path / "log").read_bytes() == b"123456\n7\n"


# Sockets


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


def journal_fields(message: bytes) -> dict[str, str]:
    """Decode journald's own protocol."""
    found, rest = {}, message
    while rest:
        head, _, rest = rest.partition(b"\n")
        name, equals, value = head.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, end, rest = rest[8 : 8 + size], rest[8 + size : 9 + size], rest[9 + size :]
            assert end == b"\n"
        found[name.decode()] = value.decode()
    return found


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


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rotate_size": "1M"}, "'rotate_size' is for a file; give 'filename'"),
        ({"rotate_every": "day", "target": "syslog", "filename": "x"}, "'rotate_every' is for a"),
        (
            {"rotate_every": "day", "rotate_size": "1M", "filename": "x"},
            "give 'rotate_size' or 'rotate_every', not both",
        ),
        ({"syslog": "http://x"}, "'syslog': 'http://x' is none of udp://HOST:PORT, tcp://HOST"),
        ({"syslog": "udp://x:1/y"}, "'syslog': 'udp://x:1/y' is none of"),
        ({"syslog": "dev/log"}, "'syslog': 'dev/log' is none of"),
        ({"syslog": "unix://host/log"}, "'syslog': 'unix://host/log' is none of"),
        ({"syslog": "unix://"}, "'syslog': 'unix://' is none of"),
        ({"syslog": "udp://x:99999"}, "'syslog': 'udp://x:99999' is none of udp://HOST:PORT"),
        ({"syslog": "tcp://a..b"}, "'syslog': 'tcp://a..b' is none of udp://HOST:PORT"),
        ({"keep": "0"}, "'keep': '0' is less than 1"),
        ({"facility": "demon"}, "did you mean 'daemon'?"),
    ],
)
def test_an_option_that_does_not_fit_is_one_line(options: dict[str, str], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        Logger.check_config(options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("udp://log.example", "udp://log.example:514"),
        ("tcp://[::1]:601", "tcp://::1:601"),
        ("/dev/log", "/dev/log"),
        ("unix:///run/log", "/run/log"),
    ],
)
def test_where_syslog_is_may_be_said_in_several_ways(text: str, shown: str) -> None:
    assert str(Address.read(text)) == shown
