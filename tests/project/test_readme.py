# What the README shows is run here, as printed; only ports are changed to free ones, and circusd
# looks at its processes more often.

from __future__ import annotations

import os
import re
import runpy
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
from circusd_real import free_endpoints
from command import COMMAND, run_here
from patience import PATIENCE

from circusplug._wire.commands import decode_reply, encode_command
from circusplug.testing import FakeCircusd

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FILE = re.compile(r"^( *)<!-- file: (\S+) -->\n *```\w+\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_DEATH = re.compile(r"^web: \d+ ended, \d left$", re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with the README's files, as printed."""
    for _, name, text in FILE.findall(README):
        (tmp_path / name).write_text(textwrap.dedent(text), encoding="utf-8")
    return tmp_path


def with_ports(path: Path, endpoint: str, pubsub_endpoint: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert "tcp://127.0.0.1:5555" in text
    text = text.replace("tcp://127.0.0.1:5555", endpoint)
    path.write_text(text.replace("tcp://127.0.0.1:5556", pubsub_endpoint), encoding="utf-8")


@contextmanager
def running(command: list[str], folder: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        **options,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def read_until(process: subprocess.Popen[str], part: str) -> None:
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if part in line:
            return
    pytest.fail(f"ended without saying {part!r}: {''.join(lines)}")


def test_the_program_of_the_readme_hosts_its_plugin_and_stops_on_sigint(folder: Path) -> None:
    with FakeCircusd() as circusd:
        circusd.add_watcher("web", numprocesses=2)
        with_ports(folder / "host.py", circusd.endpoint, circusd.pubsub_endpoint)
        with running([sys.executable, "host.py"], folder) as process:
            circusd.wait_subscribed(timeout=PATIENCE)
            circusd.publish("web", "reap", process_pid=17)
            circusd.wait_command("numprocesses", timeout=PATIENCE)
            process.send_signal(signal.SIGINT)
            assert process.wait() == 0
    assert (folder / "deaths.log").read_text() == "web: 17 ended, 2 left\n"


def test_the_ini_of_the_readme_has_no_problem(folder: Path) -> None:
    done = run_here(folder, "check", "circus.ini")
    assert (done.returncode, done.stderr) == (0, "")
    assert "[plugin:deathlog] events.DeathLog" in done.stdout


def test_up_with_the_ini_of_the_readme_logs_a_death(folder: Path) -> None:
    endpoint, pubsub_endpoint = free_endpoints(2)
    ini = folder / "circus.ini"
    with_ports(ini, endpoint, pubsub_endpoint)
    assert "[circus]\n" in ini.read_text()
    ini.write_text(ini.read_text().replace("[circus]\n", "[circus]\ncheck_delay = 0.2\n"))
    with running([*COMMAND, "up", "circus.ini"], folder) as process:
        read_until(process, "hosting deathlog")
        with (
            zmq.Context() as context,
            context.socket(zmq.DEALER) as client,
            context.socket(zmq.SUB) as events,
        ):
            client.linger = 0
            client.connect(endpoint)
            events.subscribe(b"watcher.web.")
            events.connect(pubsub_endpoint)
            log = folder / "deaths.log"
            # Circus answers before its watchers run, and the plugin may not be subscribed. It also
            # needs its turn: one that is asked again at once takes the others' processor as well.
            while not (log.exists() and _DEATH.search(log.read_text())):
                client.send(encode_command(1, "signal", {"name": "web", "signum": 9}))
                assert decode_reply(client.recv()) is not None
                if events.poll(100):
                    events.recv_multipart()
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0


def test_the_tables_of_options_are_what_the_code_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = ROOT / "scripts" / "option_tables.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--check"])
    assert runpy.run_path(str(script))["main"]() == 0
    assert capsys.readouterr().out == ""


def test_every_script_that_the_readme_names_is_there() -> None:
    for name in set(re.findall(r"scripts/(\w+)", README)):
        assert os.access(ROOT / "scripts" / name, os.X_OK), name
