# The watchers of a fake circusd together: what is done in which order, what excludes what, and that
# all can begin anew. Time passes when the test says so.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from circusplug._control.language import RefusedError
from circusplug.testing._fleet import Fleet
from circusplug.testing._steps import run


class Scene:
    """A fleet, what it has told, and what is to be done later."""

    def __init__(self, **priorities: int) -> None:
        self.now = 1000.0
        self.told: list[str] = []
        self.later: list[Callable[[], object]] = []
        self.fleet = Fleet(
            lambda name, action, _: self.told.append(f"{name} {action}"),
            dict,
            lambda: self.now,
            lambda _, function: self.later.append(function),
        )
        for name, priority in priorities.items():
            self.fleet.configure(name, {"priority": priority})

    def begin(self, command: str, error: Exception | None = None) -> Any:
        """Have an exclusive command under way that takes a while."""

        async def steps() -> None:
            await self.fleet.pause(10.0)
            if error is not None:
                raise error

        return self.fleet.exclusively(command, steps())

    def pass_time(self) -> None:
        """Do what was to be done later."""
        later, self.later = self.later, []
        for function in later:
            function()


def test_the_most_important_is_started_first_and_stopped_last() -> None:
    scene = Scene(low=1, high=9, middle=5)
    run(scene.fleet.stop(scene.fleet.watchers.values()))
    run(scene.fleet.start(scene.fleet.by_priority()))
    kills = [told.split()[0] for told in scene.told if told.endswith("kill")]
    starts = [told.split()[0] for told in scene.told if told.endswith("spawn")]
    assert (kills, starts) == (["low", "middle", "high"], ["high", "middle", "low"])


def test_what_excludes_is_refused_and_waits_until_the_other_is_done() -> None:
    scene, done = Scene(), list[str]()
    scene.begin("watcher_stop")
    scene.fleet.when_idle(lambda: done.append("waited"))
    with pytest.raises(RefusedError, match="arbiter is already running watcher_stop command"):
        scene.begin("watcher_start")
    scene.fleet.restarts = True
    with pytest.raises(RefusedError, match=r"arbiter is restarting\.\.\."):
        scene.begin("watcher_start")
    assert done == []
    scene.pass_time()
    scene.fleet.manage()
    assert (done, scene.fleet.busy) == (["waited"], "")


def test_when_all_begins_anew_nothing_that_was_to_come_comes() -> None:
    scene, done = Scene(web=0), list[str]()
    (process,) = scene.fleet.watchers["web"].alive
    under_way = scene.begin("watcher_stop")
    scene.fleet.when_idle(lambda: done.append("waited"))
    scene.fleet.call_later(5.0, lambda: done.append("later"))
    scene.now = 2000.0
    scene.fleet.begin_anew()
    assert under_way.done()
    scene.pass_time()
    scene.fleet.manage()
    assert (done, scene.fleet.busy, scene.told) == ([], "", [])
    assert scene.fleet.started == process.started == 2000.0
    scene.fleet.call_later(5.0, lambda: done.append("later"))
    scene.pass_time()
    assert done == ["later"]


def test_what_fails_at_once_is_told_to_who_asked_and_what_fails_later_to_the_next_round() -> None:
    scene = Scene()

    async def fail() -> None:
        raise ZeroDivisionError("at once")

    with pytest.raises(ZeroDivisionError, match="at once"):
        scene.fleet.exclusively("watcher_stop", fail()).result()
    scene.fleet.manage()
    scene.begin("watcher_stop", ZeroDivisionError("later"))
    scene.pass_time()
    with pytest.raises(ZeroDivisionError, match="later"):
        scene.fleet.manage()
    scene.fleet.manage()


def test_what_is_said_of_watchers_beforehand_takes_no_time_and_is_no_event() -> None:
    scene = Scene()
    scene.fleet.configure("web", {"numprocesses": 3, "warmup_delay": 60.0})
    scene.fleet.configure("off", {"autostart": False})
    assert [len(scene.fleet.find(name).alive) for name in ("WEB", "off")] == [3, 0]
    assert (scene.told, scene.later) == ([], [])
    with pytest.raises(TypeError):
        scene.fleet.configure("odd", {"numprocesses": None})
    run(scene.fleet.find("web").stop())
    assert scene.told[-1] == "web stop"


@pytest.mark.parametrize("name", [7, None, ["web"]])
def test_a_name_that_is_no_text_is_refused(name: Any) -> None:
    with pytest.raises(RefusedError, match="is no text"):
        Scene(web=0).fleet.find(name)


def test_a_watcher_is_known_in_any_case_of_letters_and_once() -> None:
    scene = Scene(web=0)
    with pytest.raises(RefusedError, match="'WEB' already exist"):
        scene.fleet.add("WEB", {})


def test_circusd_ends_when_all_are_stopped_and_comes_again_if_it_was_asked_to() -> None:
    for again in (False, True):
        scene = Scene(web=0)
        run(scene.fleet.quit(again))
        assert (scene.fleet.ends, scene.fleet.restarts) == (True, again)
        assert scene.told == ["web kill", "web reap", "web stop"]
