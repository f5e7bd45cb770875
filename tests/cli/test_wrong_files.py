# Files that are wrong, as `run`, `up` and `check` tell of them: a line for each problem, and no
# traceback.

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from command import plugin
from fixture_types import Main


def _missing(path: Path) -> str:
    return "no such file"


def _directory(path: Path) -> str:
    path.mkdir()
    return "is a directory"


def _not_text(path: Path) -> str:
    path.write_bytes(b"[circus]\n\xff\xfe = \x80\n")
    return "UTF-8"


def _not_ini(path: Path) -> str:
    path.write_text("[circus]\nhere are words\n")
    return "'here are words' is no option"


def _bad_value(path: Path) -> str:
    path.write_text("[circus]\nendpoint = somewhere\n")
    return "'somewhere' is no ZMQ endpoint"


def _strange_port(path: Path) -> str:
    path.write_text("[circus]\nendpoint = tcp://127.0.0.1:²\n", encoding="utf-8")
    return "needs a host and a port from 1 to 65535"


def _long_port(path: Path) -> str:
    path.write_text(f"[circus]\nendpoint = tcp://127.0.0.1:{'9' * 5000}\n")
    return "needs a host and a port from 1 to 65535"


def _no_text(path: Path) -> str:
    path.write_text(
        "[env]\nx = $(circus.env.ODD_BYTES)\n[circus]\nendpoint = ipc://$(circus.env.x)\n"
    )
    return "holds bytes that are no text"


def _unclosed(path: Path) -> str:
    path.write_text("[circus\nendpoint = x\n")
    return "'[circus' is no section; write [NAME]"


def _no_use(path: Path) -> str:
    path.write_text("[plugin:x]\nfilename = y\n")
    return "'use' is missing"


@pytest.mark.parametrize(
    "spoil",
    [
        _missing,
        _directory,
        _not_text,
        _not_ini,
        _bad_value,
        _strange_port,
        _long_port,
        _no_text,
        _unclosed,
        _no_use,
    ],
)
@pytest.mark.parametrize("command", ["run", "up", "check"])
def test_a_file_that_is_wrong_is_one_line_that_names_it(
    main: Main, command: str, spoil: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD_BYTES", "\udcff")
    said = spoil(Path("my circus.ini"))
    status, out, err = main(command, "my circus.ini")
    assert (status, out) == (1, "")
    (line,) = err.splitlines()
    assert "my circus.ini" in line
    assert said in line


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs Linux's /proc")
def test_a_file_that_cannot_be_read_is_one_line(main: Main) -> None:
    status, _, err = main("run", "/proc/self/mem")
    assert (status, len(err.splitlines())) == (1, 1)
    assert "/proc/self/mem" in err


def test_every_problem_of_a_file_is_a_line_of_its_own(main: Main, ini: Callable[..., Path]) -> None:
    path = ini(plugin("one", host_restrat="never"), "[plugin:two]\nx = 1\n")
    status, _, err = main("run", path)
    assert status == 1
    lines = err.splitlines()
    assert [line.startswith("circusplug: ") for line in lines] == [True, True]
    assert "[plugin:one]: 'host.restrat' is no host option (did you mean 'host.restart'?)" in err


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("nowhere/x.log", "cannot log to 'nowhere/x.log': No such file or directory"),
        (".", "cannot log to '.': Is a directory"),
        ("syslog://?nonsense", "no syslog facility 'nonsense'"),
    ],
)
def test_a_log_output_that_cannot_be_opened_is_one_line(
    main: Main, ini: Callable[..., Path], output: str, said: str
) -> None:
    status, _, err = main("run", ini(), "--log-output", output)
    assert (status, len(err.splitlines())) == (1, 1)
    assert said in err
    assert "Errno" not in err
