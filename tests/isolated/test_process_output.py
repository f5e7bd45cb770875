# What an isolated plugin prints and logs: through its host, or to files of its own.

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from command import Running
from hosts import Host
from patience import PATIENCE
from scene import here, said, wait
from troublemakers import Printer

from circusplug._isolated.output_writer import OUTPUT_LIMIT
from circusplug._isolated.process_setup import _PipeToHost
from circusplug.testing import FakeCircusd

pytestmark = pytest.mark.usefixtures("unhurried_end")


def test_what_it_prints_appears_with_its_name_in_front(
    host: Host, circusd: FakeCircusd, capfd: pytest.CaptureFixture[str]
) -> None:
    arbiter = host({"use": Printer, "name": "one"})
    circusd.publish("web", "print")
    said(circusd, "done", action="print")
    arbiter.stop()
    printed = capfd.readouterr()
    assert printed.out == (
        "[one] printed to stdout\n[one] written without a line end by a command\n[one] last words\n"
    )
    assert "[one] printed to stderr\n" in printed.err


def test_what_it_logs_reaches_the_hosts_loggers(
    host: Host, circusd: FakeCircusd, caplog: pytest.LogCaptureFixture
) -> None:
    arbiter = host({"use": Printer, "name": "one"})
    pid = arbiter.plugins["one"].pid
    circusd.publish("web", "log")
    circusd.publish("web", "raise")
    wait(arbiter, lambda status: status.counters.errors == 1)
    arbiter.stop()
    records = {record.name: record for record in caplog.records if record.process == pid}
    assert records["elsewhere.deep"].getMessage() == "logged elsewhere"
    assert records["elsewhere.deep"].levelno == logging.ERROR
    assert "a warning of its own" in records["py.warnings"].getMessage()
    assert records["circusplug.plugin.one"].plugin == "one"  # type: ignore[attr-defined]
    assert "logged by its own logger" in caplog.text
    assert "last record" in caplog.text
    assert 'raise LookupError("raised on purpose")' in caplog.text


def test_a_record_that_cannot_be_formatted_does_no_harm(
    host: Host, circusd: FakeCircusd, caplog: pytest.LogCaptureFixture
) -> None:
    arbiter = host({"use": Printer, "name": "one"})
    circusd.publish("web", "log")
    said(circusd, "done", action="log")
    assert arbiter.plugins["one"].counters.errors == 0
    arbiter.stop()
    assert "logs what cannot be shown: TypeError" in caplog.text


def test_a_record_of_any_length_is_logged_in_short(
    host: Host, circusd: FakeCircusd, caplog: pytest.LogCaptureFixture
) -> None:
    arbiter = host({"use": Printer, "name": "one"})
    circusd.publish("web", "novel")
    said(circusd, "done", action="novel")
    arbiter.stop()
    (record,) = (record for record in caplog.records if record.name == "elsewhere")
    assert record.getMessage().startswith("begin ééé")
    assert record.getMessage().endswith("ééé end")
    assert len(record.getMessage()) < 70_000


def test_names_of_loggers_do_not_pile_up_in_the_host(
    host: Host, circusd: FakeCircusd, caplog: pytest.LogCaptureFixture
) -> None:
    arbiter = host({"use": Printer, "name": "one"})
    circusd.publish("web", "many loggers")
    said(circusd, "done", action="many loggers")
    arbiter.stop()
    assert "a name 99" in caplog.text
    assert not [name for name in logging.Logger.manager.loggerDict if name.startswith("made.up")]


def test_what_is_printed_when_the_host_is_gone_is_no_error() -> None:
    read, write = os.pipe()
    with contextlib.closing(_PipeToHost(write, "w")) as pipe:
        os.close(read)
        assert pipe.write(b"last words") == len(b"last words")


def test_stdout_and_stderr_can_go_to_files(
    host: Host, circusd: FakeCircusd, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    out.write_text("before\n")
    arbiter = host(
        {"use": Printer, "name": "one", "host.stdout": str(out), "host.stderr": str(err)}
    )
    circusd.publish("web", "print")
    said(circusd, "done", action="print")
    arbiter.stop()
    assert out.read_text() == (
        "before\nprinted to stdout\nwritten without a line end by a command\nlast words\n"
    )
    assert err.read_text() == "printed to stderr\n"
    assert "printed" not in capfd.readouterr().out


def test_a_file_for_output_is_opened_anew_when_it_was_moved_away(
    host: Host, circusd: FakeCircusd, tmp_path: Path
) -> None:
    out = tmp_path / "logs" / "out"
    out.parent.mkdir()
    arbiter = host({"use": Printer, "name": "one", "host.stdout": str(out)})
    circusd.publish("web", "print")
    said(circusd, "done", action="print")
    first = "printed to stdout\nwritten without a line end by a command\n"
    assert out.read_text() == first
    moved = out.rename(out.with_name("out.1"))
    circusd.publish("web", "print")
    said(circusd, "done", action="print", count=2)
    assert (moved.read_text(), out.read_text()) == (first, first)
    out.parent.rename(tmp_path / "elsewhere")  # where it cannot be opened anew, it goes on
    arbiter.stop()
    assert (tmp_path / "elsewhere" / "out").read_text() == first + "last words\n"


HOSTING_A_FLOOD = """
import logging
import sys
from circusplug import Arbiter
from circusplug._isolated import child_output, output_writer
child_output._REST = 0.001
output_writer.STUCK_WAIT = 0.1
logging.getLogger("circusplug").setLevel("ERROR")  # it warns of what is slow: a busy machine is
plugin = {"use": "troublemakers.Troublemaker", "isolate": True, "name": "flood"}
plugin["flood"] = sys.argv[3]
quiet = {"use": "troublemakers.Talker", "name": "quiet"}
Arbiter([plugin, quiet], sys.argv[1], sys.argv[2]).start()
"""


def test_nobody_waits_for_a_host_whose_output_nobody_reads(
    circusd: FakeCircusd, tmp_path: Path
) -> None:
    """The pipe of its standard output is full; its errors go elsewhere."""
    arguments = [circusd.endpoint, circusd.pubsub_endpoint, str(2 * OUTPUT_LIMIT)]
    with (tmp_path / "errors").open("w+") as errors, Running(
        tmp_path,
        program=[sys.executable, "-c", HOSTING_A_FLOOD, *arguments],
        env=here(),
        stderr=errors,
    ) as running:  # fmt: skip
        circusd.wait_subscribed(2, PATIENCE)
        before = psutil.Process(running.pid).memory_info().rss
        circusd.publish("web", "flood")
        said(circusd, "flooded")
        grown = psutil.Process(running.pid).memory_info().rss - before
        assert grown < 1.5 * OUTPUT_LIMIT
        running.signal(signal.SIGTERM)
        said(circusd, "stop", plugin="flood")
        said(circusd, "stop", plugin="quiet")
        running._process.wait(PATIENCE)
        assert running._process.returncode == 0
        errors.seek(0)
        assert errors.read() == ""
