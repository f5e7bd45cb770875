# Where records go when writing fails, and in which encoding.

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from circusplug._logs import configure

LOGGER = logging.getLogger("circusplug")
#: Fails each write as a full disk does.
FULL = Path("/dev/full")


@contextlib.contextmanager
def stderr(write: int) -> Iterator[None]:
    """Let a descriptor be standard error; pytest sets it again after each fixture."""
    before = sys.stderr
    try:
        with open(write, "w") as sys.stderr:
            yield
    finally:
        sys.stderr = before


def test_a_full_disk_is_told_at_growing_distances(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "host.log"
    log.symlink_to(FULL)
    configure("info", str(log))
    for number in range(12_186):
        LOGGER.info("number %d", number)
    lines = capfd.readouterr().err.splitlines()
    assert [line.partition("[INFO] ")[2] for line in lines] == [
        f"number 0 (cannot log to {log}: No space left on device)",
        *(
            f"number {count - 1} (cannot log to {log}: No space left on device; "
            f"{count} records are lost so far)"
            for count in (10, 100, 1000, 10_000)
        ),
    ]


def test_how_much_is_missing_stands_where_it_is_missing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "host.log"
    log.symlink_to(FULL)
    configure("info", str(log))
    for _ in range(3):
        LOGGER.info("lost")
    log.unlink()  # now it is a file
    LOGGER.info("kept")
    LOGGER.info("kept")
    kept, note, last = log.read_text().splitlines()
    assert kept.endswith("kept")
    assert note.endswith(
        "circusplug[" + note.split("[")[1].split("]")[0] + "] [WARNING] "
        "3 records before the last one could not be written here"
    )
    assert last.endswith("kept")
    capfd.readouterr()


def test_a_reader_that_does_not_read_costs_records_and_no_time() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    with open(read, "rb", buffering=0) as reader, stderr(write):
        configure("info", "-")
        for _ in range(10):
            LOGGER.info("%s", "x" * 60_000)
        assert len(reader.read(1_000_000)) > 60_000
        LOGGER.info("after")
        *_, last = reader.read(1_000_000).splitlines()
    assert last.endswith(b"records before the last one could not be written here")


def test_a_reader_that_has_gone_is_no_error_of_those_who_log() -> None:
    read, write = os.pipe()
    os.close(read)
    with stderr(write):
        configure("info", "-")
        LOGGER.info("unheard")


def test_without_standard_error_the_log_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    configure("info", "-")
    LOGGER.info("unheard")


def test_what_is_lost_without_standard_error_to_tell_it_is_lost_quietly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "host.log"
    log.symlink_to(FULL)
    configure("info", str(log))
    monkeypatch.setattr(sys, "stderr", None)
    LOGGER.info("unheard")


def test_a_syslog_that_has_gone_is_told_on_standard_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    url = f"syslog://{tmp_path}/log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "log"))
        configure("info", url)
    for _ in range(3):
        LOGGER.info("unheard")
    (line,) = capfd.readouterr().err.splitlines()
    assert f"unheard (cannot log to {url}: " in line


def test_a_syslog_that_takes_streams_is_found(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as receiver:
        receiver.bind(str(tmp_path / "log"))
        receiver.listen()
        configure("info", f"syslog://{tmp_path}/log")
        LOGGER.info("é \udcff")
        logging.getLogger().handlers[0].close()
        # The first connection is the one that found it.
        for _ in range(2):
            connection, _ = receiver.accept()
            with connection:
                text = connection.recv(1000)
    assert text.endswith(b"\xc3\xa9 \\udcff\x00")


@pytest.mark.parametrize("output", ["-", "stdout", "file"])
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_log_is_utf_8_whatever_the_locale(output: str, log_format: str, tmp_path: Path) -> None:
    program = (
        "import logging, sys\n"
        "from circusplug._logs import configure, mark_output\n"
        "mark_output()\n"
        "configure('info', *sys.argv[1:])\n"
        "logging.getLogger('circusplug').info('\\xe9 \\udcff')\n"
        "print('\\xf6 \\udcff')\n"
    )
    where = str(tmp_path / "log") if output == "file" else output
    done = subprocess.run(
        [sys.executable, "-c", program, where, log_format],
        env={**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        capture_output=True,
        check=True,
    )
    streams = {"-": done.stderr, "stdout": done.stdout}
    logged = (tmp_path / "log").read_bytes() if output == "file" else streams[output]
    assert b"\xc3\xa9 \\udcff" in logged
    assert b"\xc3\xb6 \\udcff\n" in done.stdout
    assert b"Traceback" not in done.stderr


def test_a_record_is_one_write() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with far, stderr(near.detach()):
        configure("info", "-")
        LOGGER.info("hello")
        assert far.recv(1000).endswith(b"hello\n")
