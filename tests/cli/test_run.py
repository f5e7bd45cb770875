# `circusplug run` with plugins and a circusd: what it hosts and logs, where circusd is, and what it
# says of one that is not there or runs the same plugins.

from __future__ import annotations

import contextlib
import re
import signal
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from command import COMMAND, PATIENT, Running, plugin, write_ini
from fixture_types import Main
from hasty import HASTY
from hosted import hosted
from hosts import circusd_on_unix_sockets
from patience import PATIENCE

from circusplug import HostConfig
from circusplug._cli import hosting
from circusplug.testing import FakeCircusd


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_hosts_the_plugins_and_a_signal_stops_each_in_reverse_order(
    tmp_path: Path, number: signal.Signals
) -> None:
    sections = [plugin("a"), plugin("b", isolate="yes"), plugin("c"), plugin("d", active="no")]
    with (
        FakeCircusd() as circusd,
        hosted(tmp_path, circusd, *sections, program=PATIENT) as command,
    ):
        circusd.wait_subscribed(3, timeout=PATIENCE)
        circusd.publish("my.app", "spawn", process_pid=1)
        command.wait_for_all(*(f"plugin:{name}: got my.app spawn" for name in "abc"))
        command.signal(number)
        assert command.end() == 0
    assert "plugin:b: stop" in command.output  # its lines take a way of their own
    assert re.findall(r"plugin:([ac]): (init|stop)", command.output) == [
        ("a", "init"), ("c", "init"), ("c", "stop"), ("a", "stop"),
    ]  # fmt: skip
    assert "[INFO] hosting a, b, c" in command.output


def test_an_exception_is_told_with_the_plugin_s_name_and_its_traceback(tmp_path: Path) -> None:
    names = ("one", "two")
    sections = [plugin("one", "tellers.Raises"), plugin("two", "tellers.Raises", isolate="yes")]
    with FakeCircusd() as circusd, hosted(tmp_path, circusd, *sections) as command:
        circusd.wait_subscribed(2, timeout=PATIENCE)
        circusd.publish("web", "spawn", process_pid=1)
        command.wait_for("ValueError: no use for this event", 4)
        command.wait_for_all(*(f"plugin:{name}: raises" for name in names))
        command.interrupt()
        assert command.end() == 0
    for name in names:
        told = rf" {name}\[\d+\] \[ERROR\] handle_recv failed: ValueError"
        assert re.search(told, command.output), name
    # What comes from a process is marked line by line.
    for mark in ("", r"\[two\] "):
        frame = rf'^{mark}  File ".*/(.*)", line \d+, in (.*)$'
        frames = re.findall(frame, command.output, re.MULTILINE)
        assert frames == [("tellers.py", "handle_recv")], mark


def test_a_plugin_that_fails_is_told_once_and_restarted(tmp_path: Path) -> None:
    options = {"host_max_restarts": 1, "host_restart_delay": 0}
    sections = [plugin("bad", "tellers.Missing", **options), plugin("good")]
    with FakeCircusd() as circusd, hosted(tmp_path, circusd, *sections) as command:
        command.wait_for("bad has failed for good after 2 failures: ")
        circusd.wait_subscribed(1, timeout=PATIENCE)
        command.interrupt()
        assert command.end() == 0
    told = [line for line in command.lines if "module tellers has no 'Missing'" in line]
    assert [re.findall(r"\[\d+\] \[ERROR\] bad has failed(.*?): ", line) for line in told] == [
        [""], [" for good after 2 failures"],
    ]  # fmt: skip
    assert told[0].endswith("; it starts again in 0.1 s\n")
    assert "Traceback" not in command.output


def test_the_log_goes_to_the_file_that_the_ini_names_and_prints_do_not(tmp_path: Path) -> None:
    with FakeCircusd() as circusd:
        path = write_ini(tmp_path, circusd.endpoint, circusd.pubsub_endpoint, plugin("one"))
        path.write_text(path.read_text().replace("[circus]", "[circus]\nlogoutput = host.log"))
        with Running(tmp_path, "run", path) as command:
            command.wait_for("plugin:one: init")
            command.interrupt()
            assert command.end() == 0
    assert command.output == "[one] plugin:one: init\n[one] plugin:one: stop\n"
    assert "[INFO] all plugins are stopped" in (tmp_path / "host.log").read_text()


def test_endpoints_and_log_options_on_the_command_line_go_before_the_file_s(
    tmp_path: Path, ini: Callable[..., Path], circusd_flags: list[str], fake_circusd: FakeCircusd
) -> None:
    path = ini(plugin("one", "tellers.Raises"))
    flags = [*circusd_flags, "--log-output", "my host.log", "--log-level", "ERROR"]
    with Running(tmp_path, "run", path, *flags) as command:
        fake_circusd.wait_command("list", timeout=PATIENCE)
        fake_circusd.wait_subscribed(1, timeout=PATIENCE)
        fake_circusd.publish("web", "spawn", process_pid=1)
        command.wait_for("plugin:one: raises")
        command.interrupt()
        assert command.end() == 0
    log = (tmp_path / "my host.log").read_text()
    assert "no use for this event" in log
    assert "[INFO]" not in log


def test_run_says_that_nothing_is_active_and_waits_for_a_change(tmp_path: Path) -> None:
    with FakeCircusd() as circusd, hosted(tmp_path, circusd, plugin("one", active="no")) as command:
        command.wait_for("circus.ini: no [plugin:NAME] section that is active")
        command.wait_for("hosting no plugin")
        write_ini(tmp_path, circusd.endpoint, circusd.pubsub_endpoint, plugin("one"))
        command.signal(signal.SIGHUP)
        command.wait_for("plugin:one: init")
        command.interrupt()
        assert command.end() == 0


def test_paths_with_spaces_and_letters_of_all_kinds_and_other_line_ends_work(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "größer als 1"
    directory.mkdir()
    with FakeCircusd() as circusd:
        ends = (circusd.endpoint, circusd.pubsub_endpoint)
        path = write_ini(directory, *ends, plugin("löwe", greeting="ñ"), name="mein zirkus.ini")
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
        with Running(directory, "run", path) as command:
            circusd.wait_subscribed(1, timeout=PATIENCE)
            circusd.publish("bär", "spawn", process_pid=1)
            command.wait_for("plugin:löwe: got bär spawn")
            command.interrupt()
            assert command.end() == 0


@pytest.mark.parametrize(("server", "looked"), [("", 1), ("ssh_server = me@there", 0)])
def test_a_circusd_behind_ssh_is_not_looked_for_on_this_machine(
    main: Main, ini: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, server: str, looked: int
) -> None:
    looks: list[HostConfig] = []

    def look(config: HostConfig) -> contextlib.AbstractContextManager[None]:
        looks.append(config)
        return contextlib.nullcontext()

    host = types.SimpleNamespace(start=lambda: None, plugins={}, config=HostConfig())
    signals = types.SimpleNamespace(host_has_it=contextlib.nullcontext)
    monkeypatch.setattr(hosting, "_warning_of_doubles", look)
    monkeypatch.setattr(hosting, "signals_of_process", lambda _: contextlib.nullcontext(signals))
    monkeypatch.setattr(hosting.Arbiter, "from_config", lambda *_, **__: host)
    monkeypatch.setattr(hosting.sys, "setswitchinterval", lambda _: None)
    for name in ("mark_output", "configure"):
        monkeypatch.setattr(hosting._logs, name, lambda *_: None)
    path = ini(plugin("one"))
    path.write_text(path.read_text().replace("[circus]", f"[circus]\n{server}"))
    assert main("run", path)[0] == 0
    assert len(looks) == looked


def test_a_circusd_that_comes_later_is_waited_for_with_one_warning(tmp_path: Path) -> None:
    sections = [plugin("a"), plugin("b"), plugin("c")]
    with circusd_on_unix_sockets() as circusd:
        circusd.stop()
        with hosted(tmp_path, circusd, *sections, program=HASTY) as command:
            line = command.wait_for("no circusd at ")
            assert circusd.endpoint in line
            assert circusd.pubsub_endpoint in line
            command.wait_for_all(*(f"plugin:{name}: init" for name in "abc"))
            circusd.start()
            circusd.wait_subscribed(3, timeout=PATIENCE)
            circusd.publish("web", "spawn", process_pid=1)
            command.wait_for("got web spawn", 3)
            command.interrupt()
            assert command.end() == 0
    assert command.output.count("no circusd at ") == 1


@pytest.mark.parametrize("later", [False, True])
def test_run_warns_when_circusd_runs_the_same_plugin(tmp_path: Path, later: bool) -> None:
    sections = [plugin("Twice"), plugin("once"), plugin("resting", active="no")]
    with circusd_on_unix_sockets(["web", "plugin:Twice", "plugin:resting"]) as circusd:
        if later:
            circusd.stop()
        with hosted(tmp_path, circusd, *sections, program=HASTY if later else COMMAND) as command:
            if later:
                command.wait_for("no circusd at ")
                circusd.start()
            line = command.wait_for("itself, so it now runs twice")
            assert f"circusd at {circusd.endpoint} runs plugin:Twice itself" in line
            command.wait_for("plugin:once: init")  # the warning may come before the host is there
            command.interrupt()
            assert command.end() == 0
    assert command.output.count("runs twice") == 1


def test_a_stop_does_not_wait_for_a_circusd_that_never_answers(tmp_path: Path) -> None:
    with FakeCircusd() as circusd:
        circusd.silence("list")
        with hosted(tmp_path, circusd, plugin("one")) as command:
            circusd.wait_command("list", timeout=PATIENCE)
            command.wait_for("plugin:one: init")
            command.interrupt()
            assert command.end() == 0
