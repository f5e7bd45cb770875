# The whole shelf beside a fleet that lives by a script: hours and days, and what each plugin does.

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from circusplug import plugins
from circusplug.plugins import Alert, CommandReloader, Logger, Prometheus, Recorder
from circusplug.testing import FakeCircusd, run_plugin
from circusplug.testing._recording import Recording

HOUR = 3600
FLEET = """
    web has 2 processes
    web crashes with 1 every 2h
    leaky has 1 process
    leaky leaks 5 MB/min
    busy has 1 process
    busy uses 95 % CPU from 1:00:00 to 1:02:00
    flaps has flapping.attempts 3
    flaps has flapping.window 20
    flaps crashes with 3 at 3:00:00
    flaps crashes with 3 at 3:00:05
    flaps crashes with 3 at 3:00:10
    circusd restarts at 5:00:00
"""

#: Of each plugin: its options, for how many hours it lives, and what it tells circusd to do.
LIVES: dict[str, tuple[dict[str, Any], int, dict[str, int]]] = {
    "Alert": ({}, 48, {}),
    "CommandReloader": ({}, 48, {}),
    "Flapping": ({"retry_in": "60"}, 48, {"stop": 1, "start": 1}),
    "FullStats": ({"loop_rate": "60"}, 6, {}),
    "HttpObserver": (
        {
            "check_url": "http://127.0.0.1:1/",
            "restart_on_error": "web",
            "loop_rate": "600",
            "restart_limit": "5",
            "restart_window": "6h",
        },
        6,
        {"restart": 5},
    ),
    "LoadScaler": ({"watcher": "busy", "max_processes": "3"}, 2, {"incr": 2, "decr": 2}),
    "Logger": ({"filename": "{tmp}/log"}, 48, {}),
    "Prometheus": ({"port": "0"}, 48, {}),
    "Recorder": ({"filename": "{tmp}/recording", "stats": "1h"}, 48, {}),
    "RedisObserver": (
        {"redis_url": "redis://127.0.0.1:1/0", "restart_on_timeout": "web", "loop_rate": "1h"},
        5,
        {"restart": 4},
    ),
    # From 1.5 MB on: over 100 MB after 20 minutes, and then for three looks more.
    "ResourceWatcher": ({"watcher": "leaky", "max_mem": "100M"}, 4, {"restart": 10}),
    "Statsd": ({}, 48, {}),
    "WatchDog": ({"port": "0", "watchers_regex": "web"}, 1, {"kill": 28}),
}


def test_the_whole_shelf_has_a_life_here() -> None:
    assert sorted(LIVES) == sorted(plugins.__all__)


@pytest.mark.parametrize("name", LIVES)
def test_a_life_beside_a_fleet(name: str, tmp_path: Path) -> None:
    options, hours, expected = LIVES[name]
    given = {key: value.format(tmp=tmp_path) for key, value in options.items()}
    plugin_class = getattr(plugins, name)
    with (
        FakeCircusd(script=FLEET) as circusd,
        run_plugin(plugin_class, circusd, clock="virtual", **given) as running,
    ):
        running.advance(hours * HOUR - 1)
        orders = [one.command for one in circusd.commands if one.command in _ORDERS]
        assert Counter(orders) == expected
        assert (running.counters.errors, running.counters.garbage) == (0, 0)
        assert running.counters.reconnects == (hours > 5)


_ORDERS = ("start", "stop", "restart", "reload", "incr", "decr", "kill", "signal")


def test_what_the_others_tell(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = tmp_path / "log"
    recording = tmp_path / "recording"
    for plugin_class, options in (
        (Alert, {}),
        (Logger, {"filename": str(lines)}),
        (Recorder, {"filename": str(recording)}),
        (Prometheus, {"port": "0"}),
        (CommandReloader, {}),
    ):
        with (
            FakeCircusd(script=FLEET) as circusd,
            run_plugin(plugin_class, circusd, clock="virtual", **options) as running,
        ):
            running.advance(24 * HOUR)
    crashes = 11 + 3  # web's, but for the one during which circusd restarts, and those of flaps
    deaths = [line for line in lines.read_text().splitlines() if "reap" in line]
    assert sum("exit_code=1" in line or "exit_code=3" in line for line in deaths) >= crashes
    with Recording(recording, pytest.fail) as recorded:
        assert sum(b"reap" in getattr(one, "topic", b"") for one in recorded) == len(deaths)
    assert "flaps: 3 processes died within 10 s" in caplog.text
