# What the tests of several commands share: a command that is called in this process, files to call
# it with, and the flags that tell where circusd is.

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from circus_here import circus_is_asked_here
from circusd_real import free_endpoints
from command import write_ini
from fixture_types import Main

from circusplug._cli import main as cli
from circusplug.testing import FakeCircusd


@pytest.fixture
def main(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Main]:
    """Runs the command in this process, in a directory of its own: for what hosts nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def call(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.delitem(sys.modules, "tellers", raising=False)
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = int(end.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    with circus_is_asked_here():
        yield call


@pytest.fixture
def ini(tmp_path: Path) -> Callable[..., Path]:
    """Writes a circus.ini of the given sections; nothing listens at its endpoints."""
    endpoints = free_endpoints(2)
    return lambda *sections, **options: write_ini(tmp_path, *endpoints, *sections, **options)


@pytest.fixture
def bare(ini: Callable[..., Path]) -> Callable[..., Path]:
    """Writes an ini with plugins alone: nothing in it is circusd's, so that Circus is not asked."""

    def write(*sections: str) -> Path:
        path = ini()
        path.write_text("\n".join(sections))
        return path

    return write


@pytest.fixture
def circusd_flags(fake_circusd: FakeCircusd) -> list[str]:
    """Where circusd is, as `circus-plugin` is told; a plugin waits a second for one that is not."""
    return ["--endpoint", fake_circusd.endpoint, "--pubsub", fake_circusd.pubsub_endpoint]
