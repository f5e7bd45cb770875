# Replays of the bundled plugins, and of Circus's own: what they would have ordered, by recorded
# events and figures, and that they send, write and listen nowhere.

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest
from recordings import event, figures, reap, write

from circusplug import CircusPlugin
from circusplug.plugins import (
    Alert,
    Flapping,
    FullStats,
    LoadScaler,
    Logger,
    Prometheus,
    ResourceWatcher,
    WatchDog,
)
from circusplug.testing import replay


def test_flapping_stops_and_starts_as_it_would_have(path: Path) -> None:
    deaths = [reap(at / 10, pid=at) for at in range(1, 4)]
    write(path, figures(0, web={}), *deaths, event(0.4, "web", "stop"), {"at": 60, "end": True})
    result = replay(path, Flapping, attempts="3", window="2", retry_in="20")
    commands = [(deed.at, deed.facts["command"]) for deed in result.commands]
    assert commands == [(0.3, "stop"), (20.3, "start")]


def test_circus_s_own_flapping_lives_by_the_clock_of_the_replay(path: Path) -> None:
    circus = pytest.importorskip("circus.plugins.flapping")
    deaths = [reap(at / 10, pid=at) for at in range(1, 4)]
    write(path, figures(0, web={}), *deaths, {"at": 60, "end": True})
    result = replay(path, circus.Flapping, attempts="3", window="2", retry_in="20")
    assert [(deed.at, deed.text) for deed in result.commands] == [
        (0.3, "stop name='web' (cast)"),
        (20.3, "start name='web' (cast)"),
    ]
    assert circus.time is time


def test_alerts_are_told_and_not_sent(path: Path, tmp_path: Path) -> None:
    write(path, figures(0, web={}), reap(1), {"at": 60, "end": True})
    result = replay(path, Alert, command=f"touch {tmp_path}/sent")
    assert [(deed.at, deed.text) for deed in result.alerts] == [
        (6.0, "web: a process (pid 1) died with exit code 1")
    ]
    assert not (tmp_path / "sent").exists()


def test_a_logger_shows_its_lines_and_writes_none(path: Path, tmp_path: Path) -> None:
    write(path, reap(1, pid=12))
    result = replay(path, Logger, filename=str(tmp_path / "log"), format="logfmt")
    assert "watcher=web action=reap pid=12 exit_code=1" in result.log[0].text
    assert not (tmp_path / "log").exists()


def test_recorded_figures_are_what_processes_used(path: Path) -> None:
    def leak(at: int) -> dict[str, Any]:
        measured = {"cpu": at, "memory": at * 1024**2, "files": 3, "threads": 1}
        child = {"pid": 6, "create_time": 1, "measured": {**measured, "memory": 1}}
        return figures(at, web={"5": {"measured": measured, "children": [child]}})

    write(path, *map(leak, range(0, 120, 5)), {"at": 121, "end": True})
    options = {"watcher": "web", "max_mem": "60M", "loop_rate": "10", "max_count": "0"}
    result = replay(path, ResourceWatcher, with_children="yes", max_cpu="1000", **options)
    assert (result.commands[0].at, result.commands[0].facts["command"]) == (60.0, "restart")
    # The child's load counts as well.
    scaled = replay(path, LoadScaler, watcher="web", max_processes="2", down_below="1")
    assert [(deed.at, deed.facts["command"]) for deed in scaled.commands][:1] == [(50.0, "incr")]
    assert replay(path, FullStats).errors == []


def test_figures_are_those_of_the_nearest_moment(path: Path) -> None:
    class Asking(CircusPlugin):
        def handle_recv(self, data: tuple[bytes, bytes]) -> None:
            infos = self.call("stats", name="web")["info"]
            self.seen = [
                *getattr(self, "seen", []),
                {pid: one["cpu"] for pid, one in infos.items()},
            ]

    told = [figures(at, web={"5": {"cpu": at}, "6": {"cpu": at}}) for at in (0, 10, 20)]
    moments = [event(at, "web", "updated") for at in (4, 6, 14, 16)]
    gone = reap(15, pid=6)  # is not told of again by what comes later
    write(path, *sorted([*told, *moments, gone], key=lambda record: float(record["at"])))
    both = [{"5": cpu, "6": cpu} for cpu in (0, 10, 10)]
    assert replay(path, Asking).plugin.seen == [*both, {"5": 10}, {"5": 20}]


def test_nothing_is_listened_at(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = {"port": str(taken.getsockname()[1])}
        write(path, figures(0, web={"5": {}}), {"at": 241, "end": True})
        watched = replay(path, WatchDog, **options)
        assert [deed.text for deed in watched.commands] == ["kill name='web' pid=5"]
        assert [watched.errors, replay(path, Prometheus, **options).errors] == [[], []]


def test_what_is_looked_at_outside_is_told_of(path: Path) -> None:
    write(path, figures(0, web={"5": {"cpu": 1.0}}), {"at": 30, "end": True})
    result = replay(path, LoadScaler, watcher="web", command="echo 90", max_processes="3")
    assert [deed.facts["command"] for deed in result.commands] == ["incr"]
    (warning,) = result.warnings
    assert "a recording does not hold that" in warning


def test_what_is_done_on_another_thread_is_told_of_as_well(path: Path) -> None:
    class Looks(CircusPlugin):
        async def handle_recv(self, data: tuple[bytes, bytes]) -> None:
            await self.loop.run_in_executor(None, int)

    write(path, reap(1))
    assert ["does not hold that" in line for line in replay(path, Looks).warnings] == [True]
    write(path)
    assert replay(path, Looks).warnings == []
