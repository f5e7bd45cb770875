# What isolated plugins print and log, line by line: marked as theirs, filtered, and bounded.

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from circusplug import HostOptions, PluginSpec
from circusplug._isolated.child_output import BURST, RATE, ChildOutput, lowest_level
from circusplug._isolated.line_buffer import LineBuffer
from circusplug._isolated.messages import LogEntry, encode
from circusplug._isolated.pipes import Pipes
from circusplug._logging.formats import JsonFormatter
from circusplug._logs import DATE_FORMAT, FORMAT, Formatter

pytestmark = pytest.mark.usefixtures("unhurried_end")


class Page:
    """Takes what is to be written, and writes it at once."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def print(self, data: bytes, error: bool, lines: int) -> None:
        self.lines += data.splitlines()

    def write(self, action: Callable[[], object], size: int, lines: int = 1) -> None:
        action()


def test_more_than_a_process_may_say_is_dropped_in_whole_lines_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0.0
    page: Any = Page()
    output = ChildOutput("one", page, lambda: now)
    feed, end = output.lines_of(output.print_lines)
    assert feed(b"x\n" * (BURST // 2)) is None
    assert feed(b"too\nmuch\nand half of a li")  # the pipe is left alone for a moment
    text = "one: 2 lines of its output dropped: it says more than 256 KiB a second"
    assert text in caplog.text
    now = 1.0
    assert feed(b"ne\nshown again\n") is None
    feed(b"y" * RATE)
    assert "1 lines" not in caplog.text  # that is told once in some seconds, and at the end
    end()
    assert page.lines == [b"[one] x"] * (BURST // 2) + [b"[one] shown again"]
    assert "one: 1 lines of its output dropped" in caplog.text


def test_one_that_was_quiet_for_long_may_say_no_more_at_once() -> None:
    now = 0.0
    page: Any = Page()
    output = ChildOutput("one", page, lambda: now)
    feed, _ = output.lines_of(output.print_lines)
    now = 1e6
    assert feed(b"x\n" * (BURST // 2)) is None
    assert feed(b"too much\n") is not None


def test_each_line_of_what_it_says_is_marked_as_its_own(caplog: pytest.LogCaptureFixture) -> None:
    page: Any = Page()
    output = ChildOutput("one", page)
    output.pid = 12
    output.print_lines([b"\x1b[2Jline\rover\tit\x7f\r"])
    assert page.lines == [b"[one] ?[2Jline?over\tit?"]
    text = "first\n2026-11-25 11:00:00 circusplug[1] [ERROR] all plugins are stopped"
    output.log_lines([encode(LogEntry("circusplug", 40, 1.0, text, "Traceback\nnone"))])
    (record,) = caplog.records
    assert record.created == 1.0  # when it was logged, not when it was read
    lines = Formatter(FORMAT, DATE_FORMAT).format(record).splitlines()
    assert "one[12] [ERROR] first" in lines[0]
    assert lines[1:] == [
        "[one] 2026-11-25 11:00:00 circusplug[1] [ERROR] all plugins are stopped",
        "[one] Traceback",
        "[one] none",
    ]
    entry = json.loads(JsonFormatter().format(record))
    assert (entry["message"], entry["traceback"]) == (text, "Traceback\nnone")


def test_the_hosts_loggers_say_what_is_logged_of_a_process(
    caplog: pytest.LogCaptureFixture,
) -> None:
    page: Any = Page()
    output = ChildOutput("one", page)
    quiet, deep = logging.getLogger("hushed.library"), logging.getLogger("hushed.deep.inside")
    quiet.setLevel(logging.ERROR)
    for name, level in (
        ("hushed.library.made.up", 30),
        ("hushed.library.made.up", 40),
        ("hushed.deep", 30),  # known as the parent of one alone
    ):
        output.log_lines([encode(LogEntry(name, level, 1.0, f"{name} {level}", ""))])
    assert caplog.messages == ["hushed.library.made.up 40", "hushed.deep 30"]
    assert deep.level == logging.NOTSET


def test_a_process_logs_what_any_of_its_hosts_loggers_lets_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    levels = {"": 40, "circusplug": 40, "circusplug.plugin.one": 40}
    for name in levels:
        monkeypatch.setattr(
            logging.getLogger(name), "getEffectiveLevel", lambda name=name: levels[name]
        )
    spec = PluginSpec("one", "absent.Plugin")
    for name in levels:
        levels[name] = 10
        assert lowest_level(spec) == 10
        levels[name] = 40
    assert lowest_level(spec) == 40
    levels["circusplug.plugin.one"] = 10  # the process sets that itself
    assert lowest_level(PluginSpec("one", "absent.Plugin", host=HostOptions(loglevel="info"))) == 40


def test_lines_are_kept_together_up_to_a_limit() -> None:
    lines = LineBuffer(limit=4)
    assert lines.feed(b"one\ntw") == [b"one"]
    assert lines.feed(b"o\n\n") == [b"two", b""]
    assert lines.feed(b"much too long\nnext") == [b"much", b" too", b" lon", b"g"]
    assert lines.feed(b" goes on") == [b"next", b" goe"]
    assert lines.flush() == [b"s on"]
    assert lines.flush() == []


def test_what_is_skipped_of_a_line_takes_the_rest_of_it_along() -> None:
    lines = LineBuffer()
    assert lines.feed(b"begun") == []
    assert lines.skip(b" and\nhalf") == 1
    assert lines.feed(b" of") == []
    assert lines.feed(b" a line") == []
    assert lines.feed(b" ends\nnext\n") == [b"next"]
    assert lines.feed(b"begun") == []
    assert lines.skip(b" and ended\ntwo\n") == 2
    assert lines.feed(b"whole\n") == [b"whole"]


@pytest.mark.parametrize(
    "record",
    [
        b'{"name": "x", "level": 1e999, "text": "said", "created": 0}',
        b'{"name": "x", "level": 40, "text": "said", "created": 1e300}',
        b'{"name": "x", "level": 1' + b"0" * 50 + b', "text": "said", "created": NaN}',
        b"[" * 50_000,
    ],
)
def test_a_record_that_makes_no_sense_is_shown_and_harms_nobody(
    record: bytes, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with Pipes() as pipes:
        ChildOutput("one", pipes.writer).log_lines([record])
    assert "said" in caplog.text or f"[one] {record[:30].decode()}" in capfd.readouterr().err
    assert "Traceback" not in caplog.text
    for shown in caplog.records:
        Formatter(FORMAT, DATE_FORMAT).formatTime(shown)
        assert shown.levelno <= 100
