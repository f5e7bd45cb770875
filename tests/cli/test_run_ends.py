# How `circusplug run` ends: by Ctrl-C, by a critical plugin that fails, with a plugin that hangs,
# and when nobody reads what it prints.

from __future__ import annotations

import os
import re
import signal
import threading
import types
from pathlib import Path

import pytest
from command import Running, plugin, write_ini
from hasty import HASTY
from hosted import hosted
from patience import PATIENCE

from circusplug._host import signals
from circusplug.testing import FakeCircusd


def test_a_critical_plugin_that_fails_stops_the_host_with_status_1(tmp_path: Path) -> None:
    sections = [
        plugin("a"),
        plugin("b", "tellers.Unborn", host_critical="yes", host_max_restarts=0),
    ]
    with FakeCircusd() as circusd, hosted(tmp_path, circusd, *sections) as command:
        assert command.end() == 1
    said = "circusplug: b is critical and has failed for good: RuntimeError: no good\n"
    assert command.lines[-1] == said
    assert command.output.count("plugin:a: init\n") == command.output.count("plugin:a: stop\n")


def test_ctrl_c_while_plugins_start_stops_those_that_run(tmp_path: Path) -> None:
    slow = plugin("b", "tellers.Slow", signal=int(signal.SIGINT), host_graceful_timeout=0)
    sections = [plugin("a"), slow, plugin("c")]
    with FakeCircusd() as circusd, hosted(tmp_path, circusd, *sections, program=HASTY) as command:
        command.wait_for("plugin:b: begins")
        assert command.end() == 0
    assert "b is still busy" in command.output
    for name in "ac":  # which had their turn or not when b sent the signal
        assert command.output.count(f"plugin:{name}: init\n") == (
            command.output.count(f"plugin:{name}: stop\n")
        )
    assert "Traceback" not in command.output


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    with FakeCircusd() as circusd, hosted(tmp_path, circusd, plugin("a", "tellers.Lingers")) as it:
        it.wait_for("plugin:a: init")
        it.interrupt()
        it.wait_for("plugin:a: stopping")
        done = threading.Event()

        def insist() -> None:
            # Two signals close together count as one.
            while not done.wait(0.02):
                it.interrupt()

        thread = threading.Thread(target=insist)
        thread.start()
        try:
            it.wait_for("interrupted twice: ending at once")
        finally:
            done.set()
            thread.join()
        assert it.end() == 130


def test_two_ctrl_c_at_the_same_moment_count_as_one(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    moments, stops, ends = iter([10.0, 10.1, 10.3]), [], []
    clock = types.SimpleNamespace(monotonic=lambda: next(moments))
    monkeypatch.setattr("circusplug._signals.time", clock)
    monkeypatch.setattr(os, "_exit", ends.append)
    taken = signals.HostSignals(lambda: stops.append("stop"), pytest.fail)
    for _ in range(2):
        taken._handle(signal.SIGINT, None)
    assert (stops, ends) == (["stop", "stop"], [])
    taken._handle(signal.SIGINT, None)
    assert ends == [130]
    assert capfd.readouterr().err == "interrupted twice: ending at once\n"


def test_a_handle_stop_that_hangs_is_ended_and_the_others_are_stopped(tmp_path: Path) -> None:
    sections = ["[circusplug]\nstop_timeout = 0.5\n", plugin("a"), plugin("b", "tellers.Lingers")]
    with FakeCircusd() as circusd, hosted(tmp_path, circusd, *sections) as command:
        command.wait_for_all("plugin:a: init", "plugin:b: init")
        command.signal(signal.SIGTERM)
        assert command.end() == 0
    assert re.search(r" b\[\d+\] \[ERROR\] handle_stop takes too long; it is at", command.output)
    assert "[a] plugin:a: stop\n" in command.lines


def test_a_reader_that_left_does_not_end_the_host(tmp_path: Path) -> None:
    read, write = os.pipe()
    with FakeCircusd() as circusd:
        ends = (circusd.endpoint, circusd.pubsub_endpoint)
        path = write_ini(tmp_path, *ends, plugin("one"), plugin("quiet", "quiet.Quiet"))
        (tmp_path / "quiet.py").write_text(
            "import sys\nfrom circusplug import CircusPlugin\n"
            "class Quiet(CircusPlugin):\n"
            "    def handle_recv(self, data):\n"
            "        self.logger.warning('got one')\n"
        )
        # What it logs is read from standard error; what it prints, nobody reads.
        log = tmp_path / "host.log"
        with log.open("w") as file:
            command = Running(tmp_path, "run", path, stdout=write, stderr=file)
        os.close(write)
        with command, open(read) as out:
            assert out.readline() == "[one] plugin:one: init\n"
            circusd.wait_subscribed(2, timeout=PATIENCE)
            out.close()
            circusd.publish("web", "spawn", process_pid=1)
            circusd.wait_command("list", timeout=PATIENCE)
            command.interrupt()
            command.wait()
    text = log.read_text()
    assert "quiet" in text
    assert "all plugins are stopped" in text
    assert "Exception ignored" not in text
