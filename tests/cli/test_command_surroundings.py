# The surroundings of a command: standard files that are closed, full or read by nobody, the
# directory it is started in, and the exit status it leaves.

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command import COMMAND, Running, plugin, run, write_ini

from circusplug._cli import main as cli
from circusplug.testing import FakeCircusd


@pytest.mark.parametrize(("code", "status"), [(0, 0), (2, 2), ("in words", 1), (None, 1)])
def test_a_command_that_is_left_ends_with_its_status(
    code: object, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OverError(Exception):
        """The process has ended."""

    def end(status: int) -> None:
        raise OverError(status)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(cli.logging, "shutdown", lambda: None)
    with pytest.raises(OverError, match=f"^{status}$"):
        cli._end_process(lambda: sys.exit(code))  # type: ignore[arg-type]


def test_a_reader_that_left_ends_a_command_without_complaint(
    tmp_path: Path, bare: Callable[..., Path]
) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = run(tmp_path, "check", bare(plugin("one")), stdout=write)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_output_that_there_is_no_room_for_is_one_line(
    tmp_path: Path, bare: Callable[..., Path]
) -> None:
    with open("/dev/full", "w") as full:
        done = run(tmp_path, "check", bare(plugin("one")), stdout=full)
    said = "circusplug: cannot write the output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_a_command_runs_with_all_standard_files_closed(
    tmp_path: Path, ini: Callable[..., Path], bare: Callable[..., Path]
) -> None:
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *COMMAND]
    assert run(tmp_path, "check", ini(plugin("one")), program=shell).returncode == 0
    assert run(tmp_path, "check", bare(plugin("one", "a.B")), program=shell).returncode == 1


@pytest.fixture
def script(tmp_path: Path) -> list[str]:
    """The command as pip installs it: a script somewhere else."""
    (tmp_path / "bin").mkdir()
    path = tmp_path / "bin" / "circusplug"
    path.write_text("import sys\nfrom circusplug._cli.main import main\nsys.exit(main())\n")
    return [sys.executable, str(path)]


def test_plugins_are_imported_from_the_current_directory_as_circus_does(
    tmp_path: Path,
    bare: Callable[..., Path],
    script: list[str],
    fake_circusd: FakeCircusd,
) -> None:
    sections = [plugin("one"), plugin("two", isolate="yes")]
    path = bare(*sections)
    (tmp_path / "apart").mkdir()
    moved = path.rename(tmp_path / "apart" / path.name)
    assert run(tmp_path, "check", moved, program=script).returncode == 0
    elsewhere = run(tmp_path / "bin", "check", moved, program=script)
    assert "there is no module 'tellers'" in elsewhere.stderr
    ends = fake_circusd.endpoint, fake_circusd.pubsub_endpoint
    path = write_ini(tmp_path, *ends, *sections).rename(moved)
    with Running(tmp_path, "run", path, program=script) as command:
        command.wait_for_all("plugin:one: init", "plugin:two: init")
        command.interrupt()
        assert command.end() == 0


def test_a_current_directory_that_is_gone_does_no_harm(
    tmp_path: Path, ini: Callable[..., Path], script: list[str]
) -> None:
    (tmp_path / "gone").mkdir()
    shell = ["sh", "-c", 'rmdir ../gone && exec "$@"', "sh", *script]
    done = run(tmp_path / "gone", "check", "--no-import", ini(plugin("one")), program=shell)
    assert "Traceback" not in done.stderr
    assert (done.returncode, done.stdout[:12]) == (0, "[plugin:one]")
