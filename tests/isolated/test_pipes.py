# What isolated plugins say on its way through the host: read by one thread, written by another, in
# bounded memory.

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
import os
import selectors
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from patience import PATIENCE

from circusplug import HostOptions, PluginSpec
from circusplug._isolated.child_output import BURST, RATE, ChildOutput, lowest_level
from circusplug._isolated.line_buffer import LineBuffer
from circusplug._isolated.messages import LogEntry, encode
from circusplug._isolated.output_writer import OUTPUT_LIMIT, OutputWriter, _print
from circusplug._isolated.pipe_reader import PipeReader
from circusplug._isolated.pipes import Pipes
from circusplug._logging.formats import JsonFormatter
from circusplug._logs import DATE_FORMAT, FORMAT, Formatter

pytestmark = pytest.mark.usefixtures("unhurried_end")


class StuckTerminal:
    """A stream that takes nothing until it is set free."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.text = ""

    def flush(self) -> None:
        pass

    def write(self, text: str) -> None:
        assert self.free.wait(PATIENCE)
        self.text += text


def test_output_that_nobody_reads_is_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    terminal = StuckTerminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    lines = [b"x" * 1000] * 100
    with Pipes() as pipes:
        output = ChildOutput("one", pipes.writer)
        for _ in range(200):
            output.print_lines(lines)
        terminal.free.set()
    pipes.writer._thread.join(PATIENCE)
    (record,) = (record for record in caplog.records if "output dropped" in record.message)
    assert record.args is not None
    dropped = next(iter(record.args))
    assert terminal.text.count("\n") + int(str(dropped)) == 20_000
    assert OUTPUT_LIMIT / 2 < len(terminal.text) <= OUTPUT_LIMIT
    assert pipes.writer._room == OUTPUT_LIMIT  # there is room again for what comes next


def test_what_was_said_before_the_end_is_read_at_the_end() -> None:
    heard: list[bytes] = []
    read, write = os.pipe()
    os.write(write, b"last words")
    os.close(write)

    done = threading.Event()

    def begin_and_end() -> None:
        reader.watch(read, heard.append, lambda: heard.append(b"."))
        reader._end()
        done.set()

    with PipeReader() as reader:
        reader.call(begin_and_end)
        assert done.wait(PATIENCE)
    assert heard == [b"last words", b"."]


def test_a_late_comer_is_closed_and_not_read() -> None:
    ended = threading.Event()
    with PipeReader() as reader:
        pass
    read, write = os.pipe()
    reader.watch(read, lambda data: None, ended.set)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.read(read, 1)
    os.close(write)
    assert ended.is_set()


def test_whoever_is_not_read_to_the_end_is_told_so() -> None:
    ended = threading.Event()
    read, write = os.pipe()
    with PipeReader() as reader:
        reader.watch(read, lambda data: None, ended.set)
    assert ended.is_set()
    os.close(write)


def test_a_pipe_is_left_alone_for_as_long_as_its_reader_says_but_read_out_at_its_end() -> None:
    heard: list[bytes] = []
    once, other, out = threading.Event(), threading.Event(), threading.Event()
    (read, write), (read_other, write_other) = os.pipe(), os.pipe()

    def take(data: bytes) -> float:
        heard.append(data)
        once.set()
        return 1000.0

    def read_out() -> None:
        reader.read_out(read)
        out.set()

    with PipeReader() as reader:
        reader.watch(read, take, lambda: None)
        reader.watch(read_other, lambda data: other.set(), lambda: None)
        os.write(write, b"one")
        assert once.wait(PATIENCE)
        os.write(write, b"two")
        os.write(write_other, b"x")
        assert other.wait(PATIENCE)
        assert heard == [b"one"]
        reader.call(read_out)
        assert out.wait(PATIENCE)
    assert heard == [b"one", b"two"]
    os.close(write)
    os.close(write_other)


def test_what_a_callback_raises_is_logged_and_the_other_pipes_are_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = threading.Event()
    (read, write), (read_other, write_other) = os.pipe(), os.pipe()

    def fail(data: bytes) -> None:
        os.write(write_other, b"x")
        raise ValueError("on purpose")

    with PipeReader() as reader:
        reader.watch(read, fail, lambda: None)
        reader.watch(read_other, lambda data: other.set(), lambda: None)
        os.write(write, b"one")
        assert other.wait(PATIENCE)
    assert "on purpose" in caplog.text
    os.close(write)
    os.close(write_other)


def test_timers_come_in_the_order_of_their_moments(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    done = threading.Event()

    def set_them() -> None:  # on the reading thread, so that none comes before the last is set
        for moment, what in ((-1.0, "third"), (-2.0, "first"), (-2.0, "second")):
            reader.call_at(moment, lambda what=what: told.append(what))  # type: ignore[misc]
        reader.call_at(-0.5, done.set)

    with PipeReader() as reader:
        reader.call(set_them)
        assert done.wait(PATIENCE)
    assert told == ["first", "second", "third"]
    assert caplog.records == []


def test_a_pipe_is_read_again_after_its_rest() -> None:
    heard: list[bytes] = []
    once, twice = threading.Event(), threading.Event()
    read, write = os.pipe()

    def take(data: bytes) -> float:
        (twice if heard else once).set()
        heard.append(data)
        return 0.001

    with PipeReader() as reader:
        reader.watch(read, take, lambda: None)
        os.write(write, b"one")
        assert once.wait(PATIENCE)
        os.write(write, b"two")
        assert twice.wait(PATIENCE)
    assert heard == [b"one", b"two"]
    os.close(write)


def test_after_its_rest_a_descriptor_may_be_another_ones() -> None:
    reader = PipeReader()
    read, write = os.pipe()
    with selectors.DefaultSelector() as reader._selector:
        before, now = ((lambda data: None, lambda: None) for _ in range(2))
        reader._begin_watch(read, now)
        reader._go_on(read, before)  # is registered already, and not by this one
        reader._selector.unregister(read)
        reader._go_on(read, before)
        assert read not in reader._selector.get_map()
        reader._go_on(read, now)
        assert read in reader._selector.get_map()
    for fd in (read, write):
        os.close(fd)


def test_a_pipe_that_never_falls_silent_keeps_no_host_from_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, write = os.pipe()
    begun, ended = threading.Event(), threading.Event()

    def take(data: bytes) -> None:
        os.write(write, b"and more")
        begun.set()

    os.write(write, b"much")
    with PipeReader() as reader:
        reader.watch(read, take, ended.set)
        assert begun.wait(PATIENCE)
        # By this clock every time is over when it is looked at again.
        clock = SimpleNamespace(monotonic=itertools.count(0.0, 1e6).__next__)
        monkeypatch.setattr("circusplug._isolated.pipe_reader.time", clock)
    assert ended.is_set()
    os.close(write)


def test_nobody_who_hands_over_work_waits_for_a_reading_thread_that_is_busy() -> None:
    busy, free, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        busy.set()
        assert free.wait(PATIENCE)

    with PipeReader() as reader:
        reader.call(work)
        assert busy.wait(PATIENCE)
        assert not os.get_blocking(reader._wake_write)
        with contextlib.suppress(BlockingIOError):
            while True:  # until nothing more goes into the pipe that wakes it
                os.write(reader._wake_write, bytes(4096))
        assert reader.call(done.set)
        free.set()
        assert done.wait(PATIENCE)


def test_what_cannot_be_written_keeps_nothing_else_from_being_written() -> None:
    written: list[str] = []

    def fail() -> None:
        raise ValueError("I/O operation on closed file")

    with OutputWriter() as writer:
        writer.write(fail, 1)
        writer.write(lambda: written.append("next"), 4)
    assert (written, writer._written) == (["next"], 2)


def test_a_host_waits_for_its_last_output_for_as_long_as_it_goes_on() -> None:
    class Slow:
        def is_alive(self) -> bool:
            return writer._written < 5

        def join(self, timeout: float) -> None:
            writer._written += 1

    writer: Any = OutputWriter()
    writer._thread = Slow()
    writer.__exit__()
    assert writer._written == 5


def test_what_the_host_itself_has_printed_before_comes_first() -> None:
    with io.TextIOWrapper(io.BytesIO(), write_through=False) as stream:
        stream.write("the host's\n")
        _print(b"[one] a plugin's\n", stream)
        assert stream.buffer.getvalue() == b"the host's\n[one] a plugin's\n"  # type: ignore[attr-defined]


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


@pytest.mark.leaves_thread("the thread that writes waits for somebody who reads")
@pytest.mark.parametrize(("all_of_it", "a_part"), [(1000.0, 0.05), (0.05, 1000.0)])
def test_a_host_does_not_wait_long_for_somebody_who_does_not_read_its_output(
    all_of_it: float, a_part: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug._isolated.output_writer.FLUSH_WAIT", all_of_it)
    monkeypatch.setattr("circusplug._isolated.output_writer.STUCK_WAIT", a_part)
    begun, reads = threading.Event(), threading.Event()

    def write() -> None:
        begun.set()
        reads.wait()

    try:
        with Pipes() as pipes:
            pipes.writer.write(write, 1)
            assert begun.wait(PATIENCE)
        assert not reads.is_set()
    finally:
        reads.set()
