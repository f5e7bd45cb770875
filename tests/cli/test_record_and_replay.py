# `circusplug record` and `circusplug replay`, as typed; and both with a real circusd.

from __future__ import annotations

import contextlib
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from circusd_real import RealCircusd
from command import run, run_here
from patience import wait_while
from recordings import figures, reap, write

from circusplug import Arbiter, HostConfig, HostError, PluginStatus
from circusplug._cli import record as record_command
from circusplug._cli.main import main
from circusplug.plugins import Flapping
from circusplug.testing import FakeCircusd, replay

FLAPPING = "circusplug.plugins.Flapping"


@pytest.fixture
def ini(tmp_path: Path, fake_circusd: FakeCircusd) -> Path:
    path = tmp_path / "circus.ini"
    path.write_text(
        f"[circus]\nendpoint = {fake_circusd.endpoint}\n"
        f"pubsub_endpoint = {fake_circusd.pubsub_endpoint}\n"
    )
    return path


def test_a_recording_for_a_while(ini: Path, fake_circusd: FakeCircusd) -> None:
    fake_circusd.add_watcher("web")
    ini.write_text("[circus]\nendpoint = ipc:///no/such\npubsub_endpoint = ipc:///no/such\n")
    ends = ["--endpoint", fake_circusd.endpoint, "--pubsub", fake_circusd.pubsub_endpoint]
    done = run(ini.parent, "record", "circus.ini", "-o", "a.jsonl", "--seconds", "0.1", *ends)
    assert (done.returncode, done.stdout) == (0, "0 events are in a.jsonl\n")
    lines = [json.loads(line) for line in (ini.parent / "a.jsonl").read_text().splitlines()]
    assert list(lines[1]["options"]) == ["web"]
    again = run_here(ini.parent, "record", "circus.ini", "-o", "a.jsonl")
    assert again.returncode == 1
    assert again.stderr == (
        "circusplug: a.jsonl exists; move it away, or choose another name for -o\n"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--stats", "often"], "'stats': 'often' is not a number of seconds"),
        (["--rotate", "big"], "'rotate_size': 'big'"),
        (["--seconds", "-1"], "'seconds'"),
    ],
)
def test_a_wrong_option_is_one_line(
    ini: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["record", str(ini), "-o", str(ini.parent / "x"), *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("circusplug: ")
    assert says in line
    assert not (ini.parent / "x").exists()


def test_what_is_asked_of_a_recording_and_what_the_file_says_reach_it(
    ini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[HostConfig, dict[str, Any]]] = []

    class Refusing:
        """Runs nothing."""

        @classmethod
        def from_config(cls, config: HostConfig, **options: Any) -> None:
            made.append((config, options))
            raise HostError("enough")

    monkeypatch.setattr(record_command, "Arbiter", Refusing)
    monkeypatch.setattr(record_command._logs, "configure", lambda *_: None)
    ini.write_text(f"{ini.read_text()}check_delay = 7\nssh_server = me@there\n")
    asked = ["--seconds", "2", "--stats", "3", "--rotate", "4M", "--keep", "6"]
    assert main(["record", str(ini), "-o", str(ini.parent / "x"), *asked]) == 1
    ((config, options),) = made
    assert options == {"exit_when_done": True}
    assert (config.check_delay, config.ssh_server) == (7, "me@there")
    (spec,) = config.plugins
    assert spec.host.restart == "never"
    told = {"seconds": "2", "stats": "3", "rotate_size": "4M", "keep": "6"}
    assert spec.config == {"name": "record", "filename": str(ini.parent / "x"), **told}


def test_a_recording_that_has_failed_is_told(
    ini: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = PluginStatus("record", "m.C", "failed", last_error="no space is left")
    arbiter = SimpleNamespace(start=lambda: None, plugins={"record": failed})
    signals = SimpleNamespace(host_has_it=contextlib.nullcontext)
    monkeypatch.setattr(record_command.Arbiter, "from_config", lambda *_, **__: arbiter)
    monkeypatch.setattr(
        record_command, "signals_of_process", lambda _: contextlib.nullcontext(signals)
    )
    monkeypatch.setattr(record_command._logs, "configure", lambda *_: None)
    assert main(["record", str(ini), "-o", str(ini.parent / "x")]) == 1
    told = capsys.readouterr()
    assert told.err == "circusplug: nothing is recorded any more: no space is left\n"
    assert told.out == ""


@pytest.fixture
def traffic(tmp_path: Path) -> Path:
    deaths = [reap(at / 10, pid=at) for at in range(1, 4)]
    return write(tmp_path / "a.jsonl.gz", figures(0, web={}), *deaths, {"at": 1, "end": True})


def test_a_replay_prints_what_would_have_been_done(
    traffic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(traffic), FLAPPING, "--option", "attempts=3"]
    assert main(["replay", *arguments]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("       0.300 command stop name='web' match='simple'\n")
    assert "log     web: 3 processes died within 0.2 s" in told.out
    assert told.err == "3 events in 1 s\n"
    assert main(["replay", *arguments, "--json"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first == {
        "at": 0.3,
        "kind": "command",
        "text": "stop name='web' match='simple'",
        "command": "stop",
        "properties": {"name": "web", "match": "simple"},
        "cast": False,
    }


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none", FLAPPING], "none: No such file or directory"),
        (["{traffic}", "circusplug.plugins.Flaping"], "did you mean 'Flapping'?"),
        (["{traffic}", FLAPPING, "--option", "attempts"], "'attempts' is not KEY=VALUE"),
        (["{traffic}", FLAPPING, "--option", "attempts=x"], "'attempts': 'x'"),
        (["{traffic}", FLAPPING, "--option", "atempts=1"], "did you mean 'attempts'?"),
    ],
)
def test_what_cannot_be_replayed_is_one_line(
    traffic: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", *(one.format(traffic=traffic) for one in arguments)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("circusplug: ")
    assert says in line


@pytest.mark.parametrize("speed", ["0", "-1", "nan", "fast"])
def test_a_wrong_speed(traffic: Path, speed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["replay", str(traffic), FLAPPING, f"--speed={speed}"])
    assert f"'{speed}' is neither a number more than 0 nor max" in capsys.readouterr().err


def test_what_is_asked_of_a_replay_reaches_it_and_a_plugin_that_does_not_rest_is_one_line(
    traffic: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[object, ...]] = []

    def fail(path: object, use: object, **options: Any) -> None:
        del options["on_deed"]
        asked.append((path, use, options))
        raise AssertionError("it does not come to rest")

    monkeypatch.setattr("circusplug.testing.replay", fail)
    arguments = ["--speed", "2.5", "--strict", "--option", "attempts=3"]
    assert main(["replay", str(traffic), FLAPPING, *arguments]) == 1
    told = {"speed": 2.5, "strict": True, "attempts": "3"}
    assert asked == [(str(traffic), Flapping, told)]
    assert capsys.readouterr().err == f"circusplug: {FLAPPING}: it does not come to rest\n"
    assert main(["replay", str(traffic), FLAPPING]) == 1
    assert asked[1] == (str(traffic), Flapping, {"speed": math.inf, "strict": False})


def test_errors_and_readers_of_the_clock_fail_a_replay(traffic: Path) -> None:
    (traffic.parent / "mine.py").write_text(
        "import time\nfrom circusplug import CircusPlugin\n"
        "class Reading(CircusPlugin):\n    def handle_recv(self, data): time.time()\n"
        "class Raising(CircusPlugin):\n    def handle_recv(self, data): raise ValueError(3)\n"
    )
    strict = run_here(traffic.parent, "replay", traffic.name, "mine.Reading", "--strict")
    assert strict.returncode == 1
    assert "mine.py:4 calls time(), which is of the real clock; use self.now()" in strict.stdout
    assert run_here(traffic.parent, "replay", traffic.name, "mine.Reading").returncode == 0
    raising = run_here(traffic.parent, "replay", traffic.name, "mine.Raising")
    assert raising.returncode == 1
    assert raising.stdout.count("error   ValueError: 3") == 3


def test_a_torn_recording_is_used_with_a_warning(traffic: Path) -> None:
    torn = traffic.parent / "torn.jsonl"
    write(torn, figures(0, web={}), reap(1), reap(2))
    torn.write_bytes(torn.read_bytes()[:-10])
    done = run(traffic.parent, "replay", "torn.jsonl", FLAPPING)
    assert done.returncode == 0
    assert done.stderr == (
        "circusplug: warning: torn.jsonl: line 4: is torn, as by a crash\n1 events in 1 s\n"
    )


def test_what_a_real_circusd_did_is_replayed_with_the_same_commands(tmp_path: Path) -> None:
    dying = f'{sys.executable} -c "import sys; sys.exit(1)"'
    path = tmp_path / "traffic.jsonl"
    watchers = {"dying": {"cmd": dying, "max_retry": -1}, "idle": {}}
    record = {"use": "circusplug.plugins.Recorder", "filename": path, "stats": 0.5}
    flapping = {"use": FLAPPING, "attempts": 3, "window": 5, "retry_in": 60}
    with (
        RealCircusd(watchers) as circusd,
        Arbiter([record, flapping], circusd.endpoint, circusd.pubsub_endpoint),
    ):
        wait_while(lambda: "watcher.dying.stop" not in (path.read_text() if path.exists() else ""))
    result = replay(path, Flapping, attempts=3, window=5, retry_in=60)
    stopped = next(
        json.loads(line)["at"] for line in path.read_text().splitlines() if ".stop" in line
    )
    first = result.commands[0]
    assert (first.facts["command"], first.facts["properties"]["name"]) == ("stop", "dying")
    assert first.at <= stopped
