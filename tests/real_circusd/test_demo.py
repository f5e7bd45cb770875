# The demo's last step: the very command that scripts/demo becomes once its environment is
# made, here with the interpreter of the tests and with free ports.

from __future__ import annotations

import os
import re
import runpy
import signal
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from circusd_real import free_endpoints
from command import Running, environment

ROOT = Path(__file__).resolve().parent.parent.parent
INI = ROOT / "scripts" / "demo.ini"


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What scripts/demo gives to the program `circusplug`."""
    became: list[list[str]] = []

    def become(program: Path, *arguments: str) -> None:
        became.append([program.name, *arguments])

    def interruptible(main: Callable[[], object]) -> None:
        main()

    stand_in = types.ModuleType("_env")
    vars(stand_in).update(
        take_python=lambda arguments: ("", list(arguments)),
        environment=lambda extra, python: Path("bin"),
        run=become,
        interruptible=interruptible,
    )
    monkeypatch.setitem(sys.modules, "_env", stand_in)
    monkeypatch.setattr(sys, "argv", ["demo"])
    runpy.run_path(str(ROOT / "scripts" / "demo"))
    ((name, *arguments),) = became
    assert name == "circusplug"
    return arguments


def test_the_demo_shows_events_of_both_watchers_and_ends_cleanly(
    tmp_path: Path, arguments: list[str]
) -> None:
    text = INI.read_text(encoding="utf-8")
    used = re.findall(r"^\w*endpoint = (tcp://\S+)$", text, re.MULTILINE)
    for old, new in zip(used, free_endpoints(2), strict=True):
        text = text.replace(old, new)
    (tmp_path / "demo.ini").write_text(text, encoding="utf-8")
    assert arguments[-1] == "scripts/demo.ini"
    arguments[-1] = "demo.ini"

    with Running(tmp_path, *arguments, env=environment(PYTHONWARNINGS="")) as demo:
        demo.wait_for("hosting alert, flapping, logger, scaler")
        assert "exit_code=3" in demo.wait_for(" crashing reap ")
        demo.wait_for(" crashing spawn ")
        demo.wait_for(" steady kill ")
        demo.wait_for(" steady spawn ")
        # `timeout -s INT` signals its child, and then its group, which the child is in.
        # That is at the same moment, even if this process loses its turn in between.
        demo.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, demo.pid, os.WSTOPPED)
        demo.signal(signal.SIGINT)
        demo.signal(signal.SIGINT)
        demo.signal(signal.SIGCONT)
        assert demo.end() in (0, 130)
    assert "all plugins are stopped" in demo.output
    for trouble in ("Traceback", "left behind", "still busy", "interrupted twice"):
        assert trouble not in demo.output
