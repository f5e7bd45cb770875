# `circusplug plugin` and `circus-plugin`, which run one plugin: their options, what they say of a
# plugin that cannot run, and how they end.

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from circusd_real import free_endpoints
from command import COMMAND, Running, run, write_ini
from fixture_types import Main
from patience import PATIENCE

import circusplug
from circusplug import HostError
from circusplug._cli import hosting
from circusplug._cli.hosting import parse_plugin_config
from circusplug._errors import ConfigError
from circusplug.testing import FakeCircusd

PLUGIN_COMMANDS = {
    "circus-plugin": [
        sys.executable,
        "-c",
        "import sys; from circusplug._cli.main import plugin_main; sys.exit(plugin_main())",
    ],
    "circusplug plugin": [*COMMAND, "plugin"],
}


def test_circus_plugin_tells_its_version(tmp_path: Path) -> None:
    done = run(tmp_path, "--version", program=PLUGIN_COMMANDS["circus-plugin"])
    assert (done.returncode, done.stdout) == (0, f"circusplug {circusplug.__version__}\n")


@pytest.fixture(params=PLUGIN_COMMANDS)
def plugin_command(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    write_ini(tmp_path, *free_endpoints(2))  # for the module beside it
    return PLUGIN_COMMANDS[request.param]


def test_one_plugin_runs_with_circus_s_flags_and_log_lines(
    tmp_path: Path, plugin_command: list[str]
) -> None:
    with FakeCircusd() as circusd:
        flags = ["--endpoint", circusd.endpoint, "--pubsub", circusd.pubsub_endpoint]
        flags += ["--check-delay", "2.5", "--log-level", "INFO", "--log-output", "-"]
        flags += ["--config", "name:teller:::greeting:a: b 'c'", "tellers.Shower"]
        with Running(tmp_path, *flags, program=plugin_command) as command:
            command.wait_for("teller: config")
            circusd.wait_subscribed(1, timeout=PATIENCE)
            circusd.publish("web", "spawn", process_pid=1)
            command.wait_for("teller: got web spawn")
            command.interrupt()
            assert command.end() == 0
    logged = re.findall(r"^\S+ \S+ (teller)\[\d+\] \[INFO\] (.*)$", command.output, re.MULTILINE)
    assert [message for _, message in logged][:4] == [
        "Loading the plugin...",
        f"Endpoint: '{circusd.endpoint}'",
        f"Pub/sub: '{circusd.pubsub_endpoint}'",
        "Starting",
    ]
    assert "config {'name': 'teller', 'greeting': \"a: b 'c'\"}, delay 2.5" in command.output
    assert "teller: switches each 0.0005 s" in command.output
    assert "[teller] teller: stop\n" in command.lines


@pytest.mark.parametrize("plugin_command", ["circus-plugin"], indirect=True)
def test_options_given_as_json_keep_their_types(
    tmp_path: Path, plugin_command: list[str], circusd_flags: list[str]
) -> None:
    config = {"name": "t", "list": [1, {"a": None}], "text": "a:::b: 'c' \"d\"", "no": False}
    flags = [*circusd_flags, "--config", json.dumps(config), "tellers.Shower"]
    with Running(tmp_path, *flags, program=plugin_command) as command:
        assert f"t: config {config!r}" in command.wait_for("t: config")
        command.signal(signal.SIGTERM)
        assert command.end() == 0


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        ("  ", {}),
        ("a:b", {"a": "b"}),
        ("a: b :::c :d", {"a": "b", "c": "d"}),
        ("url:http://h:80/x", {"url": "http://h:80/x"}),
        ("a:", {"a": ""}),
        ("a:x y:::b:'q' \"r\"", {"a": "x y", "b": "'q' \"r\""}),
        ('{"a": ":::", "b": 1}', {"a": ":::", "b": 1}),
        (' {"a": {"b": []}} ', {"a": {"b": []}}),
    ],
)
def test_plugin_options_are_read_from_a_command_line(text: str, options: dict[str, Any]) -> None:
    assert parse_plugin_config(text) == options


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("foo", "'foo' is not key:value; write key:value:::key:value, or JSON"),
        ("a:b:::foo", "'foo' is not key:value"),
        (":foo", "':foo' is not key:value"),
        ("{x", "not valid JSON: "),
        ('{"a": 1} trailing', "not valid JSON: "),
    ],
)
def test_plugin_options_that_cannot_be_read_are_told(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"^--config: ") as caught:
        parse_plugin_config(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tellers.Telller"], "tellers.Telller: module tellers has no 'Telller' (did you mean"),
        (["absent.Plugin"], "absent.Plugin: there is no module 'absent'; install it"),
        (["Teller"], "'Teller' is no dotted name; write package.module.Class"),
        (["tellers.NoHandler"], "tellers.NoHandler has no handle_recv(self, data)"),
        (["tellers.NoPlugin"], "tellers.NoPlugin is no plugin; derive it from"),
        (["tellers.Teller", "--config", "x"], "--config: 'x' is not key:value"),
        (["tellers.Teller", "--config", "host.nice:3"], "--config: 'host.nice' needs a process"),
        (["tellers.Teller", "--config", "isolate:maybe"], "--config: 'isolate': 'maybe' is not"),
        (["tellers.Teller", "--config", "active:no"], "tellers.Teller is not active"),
        (["tellers.Teller", "--log-output", "/"], "'logoutput': cannot log to '/': Is a directory"),
    ],
)
def test_a_plugin_that_cannot_run_is_one_line(
    main: Main, ini: Callable[..., Path], arguments: list[str], said: str
) -> None:
    ini()
    status, _, err = main("plugin", "--log-level", "warning", *arguments)
    assert (status, len(err.splitlines())) == (1, 1)
    assert err.startswith(f"circusplug: {said}")


def test_a_plugin_that_fails_ends_its_command_with_its_traceback_and_status_1(
    tmp_path: Path, plugin_command: list[str]
) -> None:
    done = run(tmp_path, "tellers.Unborn", program=plugin_command)
    assert done.returncode == 1
    first, *rest = re.findall(r'^  File ".*", line \d+, in (.*)$', done.stderr, re.MULTILINE)
    assert (first, rest) == ("__init__", [])  # the plugin's own, and nothing of the host's
    assert done.stderr.count("RuntimeError: no good") == 3
    program = "circusplug" if "plugin" in plugin_command else "circus-plugin"
    last = done.stderr.splitlines()[-1]
    assert last == f"{program}: tellers.Unborn has failed: RuntimeError: no good"


@pytest.mark.parametrize("plugin_command", ["circusplug plugin"], indirect=True)
def test_a_plugin_that_exits_ends_its_command_with_a_word(
    tmp_path: Path, plugin_command: list[str], circusd_flags: list[str]
) -> None:
    flags = [*circusd_flags, "--log-level", "error"]
    done = run(tmp_path, *flags, "tellers.Quits", program=plugin_command)
    assert done.returncode == 1
    assert "tellers.Quits has failed: left by sys.exit('had enough')" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("plugin_command", ["circus-plugin"], indirect=True)
def test_a_plugin_that_stops_itself_ends_its_command_with_status_0(
    tmp_path: Path,
    plugin_command: list[str],
    circusd_flags: list[str],
    fake_circusd: FakeCircusd,
) -> None:
    with Running(tmp_path, *circusd_flags, "tellers.Finishes", program=plugin_command) as command:
        fake_circusd.wait_subscribed(1, timeout=PATIENCE)
        fake_circusd.publish("web", "spawn", process_pid=1)
        assert command.end() == 0
    assert command.output.count("None: stop\n") == 1


def test_what_circus_plugin_is_told_reaches_the_host(
    main: Main, ini: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[Any, ...]] = []

    def refuse(*arguments: Any, **options: Any) -> None:
        made.append((*arguments[1:], options))
        raise HostError("enough")

    ini()
    monkeypatch.setattr(hosting, "Arbiter", refuse)
    ends = ["--endpoint", "ipc:///a", "--pubsub", "ipc:///b", "--check-delay", "3"]
    assert main("plugin", *ends, "--ssh", "me@there", "tellers.Teller")[0] == 1
    assert main("plugin", "tellers.Teller")[0] == 1
    here = ("tcp://127.0.0.1:5555", "tcp://127.0.0.1:5556", 5.0, None)
    rest = {"exit_when_done": True}
    assert made == [("ipc:///a", "ipc:///b", 3.0, "me@there", rest), (*here, rest)]
