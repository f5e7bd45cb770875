# What a user's type checker says of a program that uses the package as the README does.

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
from typing import Any

from circusplug import Arbiter, CircusPlugin, get_arbiter


class Printer(CircusPlugin):
    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        print(self.parse_event(data).watcher)


def before(**_: Any) -> bool:
    return True


watchers: list[dict[str, Any]] = [
    {"name": "web", "cmd": "serve", "hooks": {"before_start": (before, False)}},
    {"cmd": "work"},
]
with Arbiter([Printer, {"use": "a.B"}], watchers=watchers, circusd={"statsd": True}) as host:
    names: list[str] = host.client.call("list", timeout=3, waiting=True)["watchers"]
    host.client.cast("incr", name="web")

arbiter = get_arbiter([{"cmd": "serve", "numprocesses": 3}], plugins=[Printer], loglevel="info")
try:
    arbiter.start()
finally:
    arbiter.stop()
"""


def test_a_program_with_watchers_passes_a_strict_type_check(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
