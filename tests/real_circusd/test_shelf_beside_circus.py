# The plugins of the shelf beside Circus's own of that name: the same options, the same circusd, the
# same decisions and figures; and, where Circus's does something else, what ours does instead.

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundled import do, given
from circus.plugins.command_reloader import CommandReloader as TheirReloader
from circus.plugins.resource_watcher import ResourceWatcher as TheirResourceWatcher
from circus.plugins.statsd import FullStats as TheirFullStats
from circus.plugins.statsd import StatsdEmitter
from circus.plugins.watchdog import WatchDog as TheirWatchDog
from patience import PATIENCE

from circusplug.plugins import CommandReloader, FullStats, ResourceWatcher, Statsd, WatchDog
from circusplug.testing import FakeCircusd, RunningPlugin, run_plugin

Do = Callable[[RunningPlugin], object]
NEVER = 1e6  # as a period: the test says when to look


def look(running: RunningPlugin) -> None:
    plugin = running.plugin
    do(running, getattr(plugin, "look_after", None) or plugin.look)


def orders(running: RunningPlugin) -> list[str]:
    return given(running, "restart", "kill", "signal", "stop", "start")


def figures(
    udp: socket.socket, use: type, count: int, act: Do, **options: Any
) -> tuple[list[str], list[str]]:
    """The lines that a plugin sends to statsd, so many of them, and which orders it gives."""
    with FakeCircusd() as circusd:
        for name in ("web", "My App", "plugin:x"):
            circusd.add_watcher(name, 2)
        circusd.set_stats("web", cpu=12.5, mem=3.25, mem_info1="20M", mem_info2="30M")
        circusd.set_stats("web", circusd.pids("web")[0], cpu=95.0)
        to = {"host": "127.0.0.1", "port": udp.getsockname()[1]}
        with run_plugin(use, circusd, application_name="shop", **to, **options) as running:
            act(running)
            lines: list[str] = []
            while len(lines) < count:
                lines += udp.recv(65536).decode().split("\n")
            return sorted(lines), orders(running)


def publish(running: RunningPlugin) -> None:
    for watcher, action in (("web", "spawn"), ("My App", "reap"), ("web", "the.end")):
        running.publish(watcher, action)


def test_statsd_counts_the_same_events(udp: socket.socket) -> None:
    # Theirs takes the last dot for the end of the watcher's name, and so does ours.
    assert figures(udp, Statsd, 3, publish) == figures(udp, StatsdEmitter, 3, publish)


def test_full_stats_sends_the_same_gauges(udp: socket.socket) -> None:
    def read(use: type) -> dict[str, float]:
        lines, _ = figures(udp, use, 14, look, loop_rate=NEVER)
        pairs = (line.removesuffix("|g").split(":") for line in lines)
        return {name.lower().replace(" ", "_"): float(value) for name, value in pairs}

    assert read(FullStats) == read(TheirFullStats)


def decisions(use: type, figures: list[dict[str, Any]], **options: Any) -> list[int]:
    """How many restarts a plugin has asked for after each of several looks."""
    with FakeCircusd() as circusd:
        circusd.add_watcher("web", 2)
        given = {"watcher": "web", "loop_rate": NEVER, **options}
        with run_plugin(use, circusd, **given) as running:
            counts = []
            for figure in figures:
                circusd.set_stats("web", **{"cpu": 1.0, "mem": 1.0, "mem_info1": "9M", **figure})
                look(running)
                counts.append(len(orders(running)))
            return counts


CPU, MEM, WELL = {"cpu": 95.0}, {"mem": 95.0, "mem_info1": "300M"}, {"cpu": 50.0}


@pytest.mark.parametrize(
    ("figures", "options"),
    [
        ([CPU] * 9, {}),
        ([CPU, CPU, CPU, WELL] * 3, {}),
        ([MEM] * 6, {"max_count": 1}),
        ([MEM] * 4, {"max_count": 0, "max_mem": "250M"}),
        ([MEM] * 4, {"max_count": 0, "max_mem": "350M"}),
        ([CPU, MEM] * 3, {"max_count": 1}),  # two kinds in turn
        ([{"cpu": 89.0, "mem": 70.0}] * 6, {}),  # neither, but their mean
        ([{"cpu": 0.0}] * 6, {"min_cpu": 1}),
        ([{"mem": 0.1}] * 6, {"min_mem": 1}),
        ([CPU] * 6, {"max_cpu": 0, "health_threshold": 0}),
        ([WELL] * 6, {}),
    ],
)
def test_resource_watcher_restarts_at_the_same_looks(
    figures: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    ours = decisions(ResourceWatcher, figures, **options)
    assert ours == decisions(TheirResourceWatcher, figures, **options)


@pytest.mark.parametrize(
    ("figures", "options", "theirs"),
    [
        # A size as min_mem is compared with percent.
        ([{"mem": 50.0, "mem_info1": "9M"}] * 2, {"max_count": 0, "min_mem": "1M"}, [1, 2]),
        # What is not known counts as 100 %.
        ([{"cpu": "N/A", "mem": "N/A"}] * 2, {"max_count": 0}, [1, 2]),
    ],
)
def test_where_circus_s_resource_watcher_is_wrong_ours_restarts_nothing(
    figures: list[dict[str, Any]], options: dict[str, Any], theirs: list[int]
) -> None:
    assert decisions(TheirResourceWatcher, figures, **options) == theirs
    assert decisions(ResourceWatcher, figures, **options) == [0] * len(figures)


def killed(use: type, **options: Any) -> set[int]:
    """Which of three silent processes are killed in one look."""
    with FakeCircusd() as circusd:
        circusd.add_watcher("web", 3)
        pids = circusd.pids("web")
        given = {"loop_rate": 0.02, "max_count": 1, "port": 0, **options}
        with run_plugin(use, circusd, raise_errors=False, **given) as running:
            circusd.wait_command("kill", count=1 if use is TheirWatchDog else 3, timeout=PATIENCE)
            do(running, lambda: None)
            return set(pids) & {
                one.properties["pid"] for one in circusd.commands if one.command == "kill"
            }


def test_watchdog_kills_all_silent_processes_and_circus_s_one_a_round() -> None:
    assert len(killed(WatchDog)) == 3
    assert len(killed(TheirWatchDog)) >= 1


@pytest.mark.parametrize("arguments", ["", " --port 80"])
def test_command_reloader_restarts_what_has_changed_with_arguments_too(
    arguments: str, tmp_path: Path
) -> None:
    script = tmp_path / "run.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)

    def reloads(use: type, change: Do, **options: Any) -> bool:
        """Whether the watcher is restarted when its file has changed; theirs may fail over it."""
        with FakeCircusd() as circusd:
            circusd.add_watcher("web", cmd=f"{script}{arguments}", working_dir=str(tmp_path))
            with run_plugin(use, circusd, raise_errors=False, **options) as running:
                change(running)
                return bool(orders(running))

    def until_restarted(running: RunningPlugin) -> None:
        for number in range(40):
            script.write_text(f"# {number}\n")
            with contextlib.suppress(AssertionError):
                running.circusd.wait_command("restart", timeout=0.25)
                return

    def between_two_looks(running: RunningPlugin) -> None:
        def look_once() -> None:
            with contextlib.suppress(FileNotFoundError):  # the arguments are taken for its name
                running.plugin.look_after()

        for mtime in (1, 2):
            os.utime(script, (mtime, mtime))
            do(running, look_once)

    assert reloads(CommandReloader, until_restarted, loop_rate=0.05)
    theirs = reloads(TheirReloader, between_two_looks, loop_rate=1000, name="theirs")
    assert theirs == (not arguments)
