# The thread of the host that writes what its isolated plugins say, also where nobody reads it.

from __future__ import annotations

import io
import sys
import threading
from typing import Any

import pytest
from patience import PATIENCE

from circusplug._isolated.child_output import ChildOutput
from circusplug._isolated.output_writer import OUTPUT_LIMIT, OutputWriter, _print
from circusplug._isolated.pipes import Pipes

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
