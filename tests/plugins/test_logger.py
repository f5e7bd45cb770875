# Logger: logfmt, filters, rotation, a full disk, options. What else it writes, as text and JSON, is
# in test_logger_lines.py; syslog and journald are in test_logger_sockets.py.

from __future__ import annotations

import os
import re
import resource
import time
from pathlib import Path
from typing import Any

import pytest
from bundled import MOMENT, Journal
from fixture_types import Run
from logger_bench import journal_fields, some

from circusplug import SpecError
from circusplug.plugins import Logger
from circusplug.plugins._line_formats import FORMATS
from circusplug.plugins._linefile import WatchedFile
from circusplug.plugins._log_socket import Address
from circusplug.plugins._syslog_messages import Journal as JournalMessage
from circusplug.plugins._syslog_messages import Rfc3164, Rfc5424

pytestmark = pytest.mark.usefixtures("utc")


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
