# `--pidfile`, through the command.

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Running, environment, plugin, run, write_ini
from patience import PATIENCE

from circusplug import HostError
from circusplug._cli.pid_file import pid_file
from circusplug.testing import FakeCircusd


@pytest.fixture
def ini(tmp_path: Path, fake_circusd: FakeCircusd) -> Path:
    return write_ini(tmp_path, fake_circusd.endpoint, fake_circusd.pubsub_endpoint, plugin("a"))


@pytest.fixture
def neighbour() -> Iterator[int]:
    """The number of a process that runs."""
    wait = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(wait, stdin=subprocess.PIPE) as process:
        yield process.pid


def ended() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        return process.pid


@pytest.mark.parametrize("before", [None, "", "stale", "99999999999999999999"])
def test_the_file_holds_the_number_for_as_long_as_the_process_runs(
    before: str | None, ini: Path, tmp_path: Path
) -> None:
    path = tmp_path / "host.pid"
    if before is not None:
        path.write_text(f"{ended()}\n" if before == "stale" else before)
    with Running(tmp_path, "run", ini, "--pidfile", "host.pid") as command:
        command.wait_for("plugin:a: init")
        assert path.read_text() == f"{command.pid}\n"
        assert path.stat().st_mode & 0o777 == 0o644
        command.interrupt()
        assert command.end() == 0
    assert not path.exists()
    assert list(tmp_path.glob(".host.pid*")) == []


def test_a_file_that_cannot_be_put_in_place_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", refuse)
    path = tmp_path / "host.pid"
    with pytest.raises(HostError, match="Input/output error"), pid_file(str(path)):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_file_does_not_stay_if_circusd_does_not_start(ini: Path, tmp_path: Path) -> None:
    quiet = environment(PYTHONWARNINGS="")  # Circus itself does what newer Pythons warn of
    done = run(tmp_path, "up", ini, "--pidfile", "host.pid", timeout=PATIENCE, env=quiet)
    assert done.returncode == 1
    assert "Address already in use" in done.stderr
    assert not (tmp_path / "host.pid").exists()


@pytest.mark.parametrize("command", ["run", "up"])
def test_the_file_of_a_process_that_runs_is_refused(
    command: str, neighbour: int, ini: Path, tmp_path: Path
) -> None:
    path = tmp_path / "host.pid"
    path.write_text(f"{neighbour}\n")
    done = run(tmp_path, command, ini, "--pidfile", path, timeout=PATIENCE)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "pidfile" in line]
    assert line.startswith(f"circusplug: --pidfile: {path} is of process {neighbour}, which runs")
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert path.read_text() == f"{neighbour}\n"


def test_a_file_that_is_another_s_by_the_end_stays(
    neighbour: int, ini: Path, tmp_path: Path
) -> None:
    path = tmp_path / "host.pid"
    with Running(tmp_path, "run", ini, "--pidfile", path) as command:
        command.wait_for("plugin:a: init")
        path.write_text(f"{neighbour}\n")
        command.interrupt()
        assert command.end() == 0
    assert path.read_text() == f"{neighbour}\n"


def test_a_file_that_cannot_be_written_is_told_in_one_line(ini: Path, tmp_path: Path) -> None:
    path = tmp_path / "absent" / "host.pid"
    done = run(tmp_path, "run", ini, "--pidfile", path, timeout=PATIENCE)
    why = os.strerror(2)
    assert done.returncode == 1
    assert done.stderr == f"circusplug: --pidfile: cannot write {path}: {why}\n"


@pytest.mark.parametrize("path", ["circus.ini", "fifo", "."])
def test_what_is_no_pid_file_is_left_as_it_is(path: str, ini: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")  # a device of the machine's would be lost if this goes wrong
    before = ini.read_text()
    done = run(tmp_path, "run", ini, "--pidfile", path, timeout=PATIENCE)
    real = os.path.realpath(tmp_path / path)
    assert done.returncode == 1
    assert done.stderr == (
        f"circusplug: --pidfile: {real} holds no process number, so it is left as it is\n"
    )
    assert ini.read_text() == before
