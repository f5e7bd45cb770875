# What isolated plugins say on its way through the host: read by one thread, written by another, in
# bounded memory.

from __future__ import annotations

import os
import sys
import threading

import pytest
from patience import PATIENCE

from circusplug._isolated.child_output import ChildOutput
from circusplug._isolated.line_buffer import LineBuffer
from circusplug._isolated.output_writer import OUTPUT_LIMIT
from circusplug._isolated.pipe_reader import PipeReader
from circusplug._isolated.pipes import Pipes
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


def test_lines_are_kept_together_up_to_a_limit() -> None:
    lines = LineBuffer(limit=4)
    assert lines.feed(b"one\ntw") == [b"one"]
    assert lines.feed(b"o\n\n") == [b"two", b""]
    assert lines.feed(b"much too long\nnext") == [b"much", b" too", b" lon", b"g"]
    assert lines.feed(b" goes on") == [b"next", b" goe"]
    assert lines.flush() == [b"s on"]
    assert lines.flush() == []


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
def test_a_host_does_not_wait_long_for_somebody_who_does_not_read_its_output(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("circusplug._isolated.output_writer.FLUSH_WAIT", 1000.0)
    monkeypatch.setattr("circusplug._isolated.output_writer.STUCK_WAIT", 0.05)
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
