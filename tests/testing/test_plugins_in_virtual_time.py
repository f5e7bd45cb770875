# The bundled plugins read the time where virtual time reaches them, and what they await that is
# real holds the clock.

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from circusplug.plugins import Flapping, LoadScaler, Logger, WatchDog
from circusplug.testing import FakeCircusd, RunningPlugin, _virtual_clock, run_plugin


def commands_of(plugin: RunningPlugin, *names: str) -> list[str]:
    """The commands of these names that came since this was asked last."""
    commands = [command.command for command in plugin.circusd.commands]
    plugin.circusd.clear()
    return [command for command in commands if command in names]


def test_a_watcher_that_flaps_is_started_again_later_and_then_given_up() -> None:
    with FakeCircusd(["web"]) as circusd, run_plugin(Flapping, circusd, clock="virtual") as plugin:
        for round_number in range(6):
            circusd.exit_process("web")
            plugin.advance(1)
            circusd.exit_process("web")
            assert commands_of(plugin, "stop", "start") == ["stop"]
            plugin.advance(6.9)
            assert commands_of(plugin, "stop", "start") == []
            plugin.advance(0.1)
            expected = ["start"] if round_number < 5 else []
            assert commands_of(plugin, "stop", "start") == expected
        plugin.advance(86_400)
        assert circusd.status("web") == "stopped"


def test_a_process_that_is_silent_for_minutes_is_killed() -> None:
    options: dict[str, Any] = {"port": "0", "clock": "virtual"}
    with FakeCircusd(["web"]) as circusd, run_plugin(WatchDog, circusd, **options) as plugin:
        plugin.advance(180)
        assert commands_of(plugin, "kill") == []
        plugin.advance(60)
        assert commands_of(plugin, "kill") == ["kill"]


# Of a process that was not there at the look before, circusd's load means nothing yet.
@pytest.mark.parametrize(("by_command", "first"), [(False, 20), (True, 10)])
def test_a_scaler_leaves_its_watcher_alone_for_the_cooldown(by_command: bool, first: float) -> None:
    options: dict[str, Any] = {"command": "echo 97"} if by_command else {}
    options |= {"watcher": "web", "max_processes": "3", "cooldown": "45", "command_timeout": "1 ms"}
    with FakeCircusd(["web"]) as circusd:
        circusd.set_stats("web", cpu=97.0)
        with run_plugin(LoadScaler, circusd, clock="virtual", **options) as plugin:
            plugin.advance(first)
            assert commands_of(plugin, "incr") == ["incr"]
            plugin.advance(49.9)
            assert commands_of(plugin, "incr") == []
            plugin.advance(0.1)
            assert commands_of(plugin, "incr") == ["incr"]
            plugin.advance(900)
            assert commands_of(plugin, "incr") == []


def test_a_log_tells_the_time_of_the_clock(tmp_path: Path) -> None:
    path = tmp_path / "events.log"
    with run_plugin(Logger, clock="virtual", filename=str(path), format="json") as plugin:
        plugin.at(1000, plugin.circusd.restart)
        plugin.advance(2000)
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["time"] == _virtual_clock.EPOCH + 1000
