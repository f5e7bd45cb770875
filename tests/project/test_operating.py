# The terminal session of circusplug/docs/operating.md is typed here, and prints what the page
# shows: only numbers, and the blanks of a table's columns, may differ.

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
from command import Running, environment
from patience import PATIENCE
from test_readme import README

from circusplug._cli.steer import COMMANDS
from circusplug.testing import FakeCircusd

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "circusplug" / "docs" / "operating.md").read_text(encoding="utf-8")
_FILE = re.compile(r"^<!-- file: (\S+) -->\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SESSION = re.compile(r"^<!-- session -->\n```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
#: A command, and what it prints.
_COMMAND = re.compile(r"^\$ (.*)\n((?:[^$].*\n)*)", re.MULTILINE)
SOCKET = "/run/plugins/control.sock"


def plain(text: str) -> list[str]:
    """What is the same each time; a duration may have one part or two."""
    text = re.sub(r"\d+m \d+s", "1s", text)
    return [" ".join(re.sub(r"[\d.,]+", "1", line).split()) for line in text.splitlines()]


@pytest.mark.skipif(" " in sys.executable, reason="its path is put in front of PATH as it is")
def test_the_session_prints_what_the_page_shows(tmp_path: Path, runtime_directory: str) -> None:
    with FakeCircusd() as circusd, tempfile.TemporaryDirectory(dir=runtime_directory) as place:
        moved = {
            SOCKET: f"{place}/control.sock",
            "tcp://127.0.0.1:5555": circusd.endpoint,
            "tcp://127.0.0.1:5556": circusd.pubsub_endpoint,
        }

        def as_here(text: str) -> str:
            for shown, real in moved.items():
                text = text.replace(shown, real)
            return text

        for name, text in (*_FILE.findall(README), *_FILE.findall(PAGE)):
            (tmp_path / name).write_text(as_here(textwrap.dedent(text)), encoding="utf-8")
        # The commands as they are installed beside this Python.
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        with Running(tmp_path, "run", "plugins.ini") as host:
            circusd.wait_subscribed(2, PATIENCE)
            for command, shown in _COMMAND.findall(_SESSION.findall(PAGE)[0]):
                done = subprocess.run(
                    as_here(command),
                    shell=True,
                    cwd=tmp_path,
                    env=environment(PATH=path, PYTHONWARNINGS=""),
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE,
                )
                assert plain(done.stdout + done.stderr) == plain(shown), command
            assert host.end() == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_names_each_command(command: str) -> None:
    assert re.search(rf"`(circusplug )?{command}\b", PAGE)
