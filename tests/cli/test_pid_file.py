# `--pidfile`, through the command.

from __future__ import annotations

import errno
import os
import subprocess
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
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        yield process.pid


def ended() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        return process.pid


def test_the_file_holds_the_number_for_as_long_as_the_command_runs(
    ini: Path, tmp_path: Path
) -> None:
    path = tmp_path / "host.pid"
    path.write_text(f"{ended()}\n")
    with Running(tmp_path, "run", ini, "--pidfile", "host.pid") as command:
        command.wait_for("plugin:a: init")
        assert path.read_text() == f"{command.pid}\n"
        assert path.stat().st_mode & 0o777 == 0o644
        command.interrupt()
        assert command.end() == 0
    assert not path.exists()
    assert list(tmp_path.glob(".host.pid*")) == []


@pytest.mark.parametrize("before", [None, "", "stale", "99999999999999999999"])
def test_a_file_that_is_nobody_s_is_taken(before: str | None, tmp_path: Path) -> None:
    path = tmp_path / "host.pid"
    if before is not None:
        path.write_text(f"{ended()}\n" if before == "stale" else before)
    with pid_file(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"
    assert list(tmp_path.iterdir()) == []


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


def test_a_file_that_is_another_s_by_the_end_stays(neighbour: int, tmp_path: Path) -> None:
    path = tmp_path / "host.pid"
    with pid_file(str(path)):
        path.write_text(f"{neighbour}\n")
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
    with pytest.raises(HostError) as refused, pid_file(str(tmp_path / path)):
        pass
    real = os.path.realpath(tmp_path / path)
    said = f"--pidfile: {real} holds no process number, so it is left as it is"
    assert str(refused.value) == said
    assert ini.read_text() == before


def test_a_file_of_this_process_s_own_number_was_another_s(tmp_path: Path) -> None:
    """As process 1 of a container has the number that it had the last time."""
    path = tmp_path / "host.pid"
    path.write_text(f"{os.getpid()}\n")
    with pid_file(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


def test_the_file_of_another_user_s_process_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbid(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "kill", forbid)
    path = tmp_path / "host.pid"
    path.write_text("7\n")
    with pytest.raises(HostError, match="is of process 7, which runs"), pid_file(str(path)):
        pass
    assert path.read_text() == "7\n"


@pytest.mark.parametrize("text", ["0", "-7", "7 8", "x", "9" * 32])
def test_what_is_no_number_of_a_process_is_told(text: str, tmp_path: Path) -> None:
    path = tmp_path / "host.pid"
    path.write_text(text)
    if text.startswith("9"):
        with pid_file(str(path)):
            pass
        return
    with pytest.raises(HostError, match="holds no process number"), pid_file(str(path)):
        pass
    assert path.read_text() == text


@pytest.mark.parametrize("text", [None, "", "somebody's words"])
def test_what_became_of_the_file_meanwhile_does_not_spoil_the_end(
    text: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "host.pid"
    with pid_file(str(path)):
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
    assert (path.read_text() if path.exists() else None) == text


def test_a_file_that_cannot_be_removed_does_not_spoil_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with pid_file(str(tmp_path / "host.pid")), monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        with pid_file(str(tmp_path / "other.pid")):
            pass


def test_a_link_stays_and_what_it_leads_to_goes_wherever_the_process_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run/host.pid")
    monkeypatch.chdir(tmp_path)
    with pid_file("link"):
        monkeypatch.chdir("/")
        assert (tmp_path / "run" / "host.pid").read_text() == f"{os.getpid()}\n"
    assert (tmp_path / "link").is_symlink()
    assert not (tmp_path / "run" / "host.pid").exists()


def test_no_file_is_asked_for_and_none_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pid_file(None):
        assert list(tmp_path.iterdir()) == []
