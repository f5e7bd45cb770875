# When a plugin may restart a watcher: a limit within a window, a grace after each start, one at a
# time. No circusd; the clock is a number.

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from circusplug import CallError
from circusplug.plugins._restarts import RestartOptions, Restarts


class Plugin:
    """What `Restarts` needs of a plugin; `commands` are those that it has sent."""

    logger = logging.getLogger("circusplug.test")

    def __init__(self) -> None:
        self.now = 0.0
        self.commands: list[tuple[str, dict[str, Any]]] = []
        self.fails = False
        self.loop = self

    def time(self) -> float:
        return self.now

    async def call_async(self, command: str, **properties: Any) -> None:
        self.commands.append((command, properties))
        await asyncio.sleep(0)
        if self.fails:
            raise CallError(command, properties, "no")


@pytest.fixture
def plugin() -> Plugin:
    return Plugin()


def make(plugin: Any, **options: Any) -> Restarts:
    given = {"grace": 0.0, "restart_limit": None, "restart_window": 100.0, **options}
    return Restarts(plugin, RestartOptions(**given))


def restart(restarts: Restarts, name: str = "My App", *moments: float) -> list[bool]:
    """Whether a restart was asked for at each moment."""
    found = []
    for moment in moments or (0.0,):
        restarts._plugin.now = moment  # type: ignore[attr-defined]
        found.append(asyncio.run(restarts.restart(name, "is ill")))
    return found


def test_a_restart_waits_for_a_busy_circusd_and_means_no_pattern(plugin: Plugin) -> None:
    assert restart(make(plugin)) == [True]
    assert plugin.commands == [
        ("restart", {"patience": 120.0, "name": "My App", "match": "simple"})
    ]


def test_so_many_are_allowed_within_the_window_and_each_becomes_old(plugin: Plugin) -> None:
    restarts = make(plugin, restart_limit=2)
    moments = (0.0, 10.0, 20.0, 99.9, 100.0, 105.0, 110.0)
    assert restart(restarts, "web", *moments) == [True, True, False, False, True, False, True]
    assert restart(restarts, "other", 111.0) == [True]


def test_each_time_that_they_are_used_up_is_told_once(
    plugin: Plugin, caplog: pytest.LogCaptureFixture
) -> None:
    restarts = make(plugin, restart_limit=1)
    for count, moment in enumerate((0.0, 200.0), 1):
        assert restart(restarts, "web", *(moment + n for n in range(4))) == [True] + [False] * 3
        assert caplog.text.count("left alone, as it was restarted 1 times within 100 s") == count


def test_a_watcher_that_is_removed_begins_anew(plugin: Plugin) -> None:
    restarts = make(plugin, restart_limit=1)
    assert restart(restarts, "My App", 0.0, 1.0) == [True, False]
    restarts.observe("my_app", "stop")
    assert restart(restarts, "My App", 2.0) == [False]
    restarts.observe("my_app", "remove")
    assert restart(restarts, "My App", 3.0) == [True]


def test_one_that_has_just_started_is_left_alone_for_the_grace_time(plugin: Plugin) -> None:
    restarts = make(plugin, grace=10.0)
    restarts.observe("my_app", "start")
    plugin.now = 5.0
    restarts.observe("my_app", "spawn")
    assert restart(restarts, "My App", 9.9, 10.0) == [False, True]


def test_two_that_want_the_same_watcher_restarted_have_it_once(plugin: Plugin) -> None:
    restarts = make(plugin)

    async def both() -> list[bool]:
        return await asyncio.gather(*(restarts.restart("web", "is ill") for _ in range(2)))

    assert asyncio.run(both()) == [True, False]
    assert len(plugin.commands) == 1


def test_one_that_circusd_refuses_is_none_and_is_tried_the_next_time(
    plugin: Plugin, caplog: pytest.LogCaptureFixture
) -> None:
    restarts = make(plugin)
    plugin.fails = True
    assert restart(restarts) == [False]
    assert "My App: " in caplog.text
    plugin.fails = False
    assert restart(restarts) == [True]
