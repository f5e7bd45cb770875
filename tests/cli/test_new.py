# `circusplug new`: what it writes works as it is, and nothing is lost by it.

from __future__ import annotations

import errno
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from circusd_real import RealCircusd
from command import run, run_here
from type_check import check_types

PYTHON = [sys.executable, "-m"]
PAGE = Path(__file__).parents[2] / "circusplug" / "docs" / "testing.md"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    done = run_here(tmp_path, "new", "my-probe")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "my-probe is there. Next:\n\n"
        "  cd my-probe\n"
        "  pip install -e '.[test]' && pytest && circusplug up circus.ini\n"
    )
    return tmp_path / "my-probe"


def install(project: Path, target: Path) -> None:
    """Do what pip would at its end, which takes a tenth of its time."""
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    command = [sys.executable, "-c", build, str(target)]
    done = subprocess.run(command, cwd=project, check=True, capture_output=True, text=True)
    with zipfile.ZipFile(target / done.stdout.strip()) as wheel:
        wheel.extractall(target)


def test_it_is_typed_and_tidy(project: Path) -> None:
    typed = check_types(project, ".")
    assert typed.returncode == 0, typed.stdout + typed.stderr
    pytest.importorskip("ruff", reason="ruff is not installed; scripts/check has it")
    rules = ["--select", "A,B,E,F,I,N,PL,PT,RET,RUF,SIM,TRY,UP,W", "--ignore", "PLR2004"]
    subprocess.run([*PYTHON, "ruff", "check", *rules, "."], cwd=project, check=True)
    subprocess.run([*PYTHON, "ruff", "format", "--check", "."], cwd=project, check=True)


def test_an_empty_directory_will_do_also_the_current_one(tmp_path: Path) -> None:
    done = run_here(tmp_path, "new", "Probe", ".")
    assert done.returncode == 0, done.stderr
    names = ["README.md", "circus.ini", "probe", "pyproject.toml", "tests"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert "class Probe(CircusPlugin)" in (tmp_path / "probe" / "__init__.py").read_text()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("my-probe", "new: my-probe is there and is not empty; give another directory"),
        ("file", "new: file is there and is not empty; give another directory"),
        ("2fast", "new: '2fast' cannot be a package's name; take letters, digits and -"),
        ("a/b", "new: 'a/b' cannot be a package's name"),
        ("winreg", "new: there is a module 'winreg' already; take another name"),
        ("json", "new: there is a module 'json' already; take another name"),
        ("circusplug", "new: there is a module 'circusplug' already; take another name"),
    ],
)
def test_what_cannot_be_made_is_told_and_nothing_is_changed(
    name: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "my-probe").mkdir()
    (tmp_path / "my-probe" / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    done = run_here(tmp_path, "new", name)
    assert done.returncode == 1
    assert done.stderr.startswith(f"circusplug: {says}")
    assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("place", ["probe", "."])
def test_what_fails_half_way_leaves_nothing(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_text

    def full(self: Path, text: str, **options: str) -> int:
        if self.name == "circus.ini":
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return write(self, text, **options)

    monkeypatch.setattr(Path, "write_text", full)
    done = run_here(tmp_path, "new", "probe", place)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("circus.ini: No space left on device\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = run_here(tmp_path, "new", "probe")
    tmp_path.chmod(0o700)
    assert done.returncode == 1
    assert "Permission denied" in done.stderr


def test_a_place_below_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done = run_here(tmp_path, "new", "probe", "file/probe")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("circusplug: new: file")


_SAYS = {"describe": "Counts the processes that die", "check": "my-probe, on a thread"}


def test_each_command_of_the_way_from_nothing_to_a_release(tmp_path: Path) -> None:
    section = PAGE.read_text().partition("## From nothing to a release")[2].partition("\n## ")[0]
    commands = [shlex.split(line) for line in re.findall(r"^\$ (.*)$", section, re.MULTILINE)]
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    where = tmp_path
    done = []
    with RealCircusd({"dies": {"cmd": "sleep 0.1"}}) as circusd:
        for program, *arguments in commands:
            done.append(arguments[0] if program == "circusplug" else program)
            if program == "cd":
                where = where / arguments[0]
                ini = where / "circus.ini"
                text = ini.read_text().replace("tcp://127.0.0.1:5555", circusd.endpoint)
                ini.write_text(text.replace("tcp://127.0.0.1:5556", circusd.pubsub_endpoint))
            elif arguments[:2] == ["install", "-e"]:
                install(where, tmp_path / "site")
            elif program == "circusplug":
                given = ["0.5" if one == "1h" else one for one in arguments]
                told = run(where, *given, env=env, stdin=None, input="q\n")
                assert told.returncode == 0, told.stderr
                assert _SAYS.get(arguments[0], "") in told.stdout
            else:
                more = ["--no-build-isolation", "--no-index"] if program == "pip" else []
                subprocess.run(
                    [*PYTHON, program, *arguments, *more],
                    cwd=where,
                    env=env,
                    check=True,
                    capture_output=True,
                )
    assert done == [
        "new", "cd", "pip", "pytest", "dev", "describe", "check", "record", "replay", "pip",
    ]  # fmt: skip
    assert list(where.glob("my_probe-*.whl"))
