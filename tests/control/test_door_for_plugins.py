# What a plugin sends where the host takes circusd's commands in its place: straight to circusd, or
# to the door, which asks a busy circusd again.

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from hosts import all_run
from members import Journal, Member
from patience import PATIENCE
from steered import asked_of, control_ends

from circusplug import Arbiter, CallError, CallTimeout, HostError
from circusplug._config.specs import HostConfig, make_specs
from circusplug._control import door
from circusplug._control.door import Door
from circusplug._host.own_process import OwnProcess
from circusplug.testing import FakeCircusd

CONFLICT = {
    "status": "error",
    "errno": 5,
    "reason": "arbiter is already running watcher_restart command",
}
#: A pattern that fits the other plugin; circusd is asked, too, as it may fit a watcher of its.
TWO = "?lugin:two"


class Scene:
    """A plugin, another one, and what came to the door and to circusd."""

    def __init__(self, arbiter: Arbiter, circusd: FakeCircusd, at_door: list[str]) -> None:
        self.arbiter = arbiter
        self.circusd = circusd
        self.at_door = at_door

    @property
    def plugin(self) -> Any:
        return self.arbiter.instance("one")


@pytest.fixture
def scene(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    at_door = asked_of(Door, monkeypatch)
    plugins = [{"use": Member, "name": name, "journal": journal} for name in ("one", "two")]
    with contextlib.ExitStack() as stack:
        ends = stack.enter_context(control_ends())
        circusd = stack.enter_context(FakeCircusd(["web"]))
        config = HostConfig(make_specs(plugins), ends.endpoint, circusd.pubsub_endpoint)
        process = OwnProcess(circusd_endpoint=circusd.endpoint)
        arbiter = stack.enter_context(Arbiter.from_config(config, process=process))
        arbiter.wait(all_run, PATIENCE)
        yield Scene(arbiter, circusd, at_door)


def on_its_thread(plugin: Any, call: Callable[[], Any]) -> Any:
    """What a call returns, or raises, on the plugin's own thread."""
    import concurrent.futures

    done: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def run() -> None:
        try:
            done.set_result(call())
        except Exception as error:
            done.set_exception(error)

    plugin.loop.add_callback(run)
    return done.result(PATIENCE)


WAYS = pytest.mark.parametrize("way", [lambda _, call: call(), on_its_thread])


@WAYS
def test_what_is_circusds_alone_goes_straight_there(
    scene: Scene, way: Callable[[Any, Callable[[], Any]], Any]
) -> None:
    call = scene.plugin.call
    for command in ("stats", "numprocesses", "incr", "status", "restart"):
        way(scene.plugin, lambda command=command: call(command, name="web"))
    assert scene.at_door == []
    assert len(scene.circusd.commands) == 5


@WAYS
def test_what_is_about_plugins_goes_to_the_door(
    scene: Scene, way: Callable[[Any, Callable[[], Any]], Any]
) -> None:
    call = scene.plugin.call
    assert way(scene.plugin, lambda: call("status"))["statuses"] == {
        "web": "active",
        "plugin:one": "active",
        "plugin:two": "active",
    }
    assert way(scene.plugin, lambda: call("status", name="plugin:two"))["status"] == "active"
    assert scene.at_door == ["status", "status"]


def test_a_busy_circusd_is_asked_again_and_its_plugins_are_not(
    scene: Scene, journal: Journal
) -> None:
    scene.circusd.reply("restart", CONFLICT, count=2)
    scene.plugin.call("restart", name=TWO, waiting=True)
    assert [each.command for each in scene.circusd.commands] == ["restart"] * 3
    assert (journal.count("one", "init"), journal.count("two", "init")) == (1, 2)


def test_what_fails_here_is_told_although_circusd_has_done_its_part(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: Future[None] = Future()
    failed.set_exception(HostError("two cannot be started"))
    monkeypatch.setattr(scene.arbiter._steering, "change", lambda *_: failed)
    with pytest.raises(CallError, match="two cannot be started"):
        scene.plugin.call("restart", name=TWO, waiting=True)
    assert [each.command for each in scene.circusd.commands] == ["restart"]


def test_a_circusd_that_stays_busy_is_told_of(
    scene: Scene, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "_PATIENCE", 0.1)
    scene.circusd.reply("restart", CONFLICT)
    with pytest.raises(CallError, match="only the plugins were reached: arbiter is already"):
        scene.plugin.call("restart", name=TWO)
    journal.wait("two", "init", 2)
    assert scene.at_door == ["restart"]


def test_commands_that_circusd_never_answers_are_forgotten_in_the_end(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "_MOST_UNDER_WAY", 3)
    scene.circusd.silence("status")
    for _ in range(5):
        with pytest.raises(CallTimeout):
            scene.plugin.call("status", timeout=0.05)
    the_door = scene.arbiter._steering._door  # type: ignore[union-attr]
    assert the_door is not None
    assert len(scene.at_door) == 5
    assert len(the_door._under_way) == 3


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a socket away")
def test_the_endpoint_of_the_file_belongs_to_its_owner() -> None:
    with control_ends() as ends, FakeCircusd() as circusd:
        config = HostConfig((), ends.endpoint, circusd.pubsub_endpoint)
        process = OwnProcess(circusd_endpoint=circusd.endpoint, endpoint_owner="nobody")
        with Arbiter.from_config(config, process=process):
            owner = os.stat(ends.endpoint.removeprefix("ipc://")).st_uid
    assert owner == pwd.getpwnam("nobody").pw_uid
