# What a plugin sends to circusd: calls, casts, and questions for a watcher's name.

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fixture_types import Run
from noting_plugins import Frames, Noting, Seen
from patience import PATIENCE

from circusplug import CallConflict, CallError, CallTimeout, CircusPlugin
from circusplug.testing import FakeCircusd


def test_call_raises_circusds_errors_and_returns_them_where_circus_code_wants_it(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Old(Noting):
        raise_call_errors = False

    new = run_plugin(Noting, name="new", seen=seen).plugin
    old = run_plugin(Old, name="old", seen=seen).plugin
    with pytest.raises(CallError, match=r"^incr name='absent': program absent not found$"):
        new.call("incr", name="absent")
    for reply in (
        old.call("incr", name="absent"),
        asyncio.run(old.call_async("incr", name="absent")),
    ):
        assert (reply["status"], reply["errno"]) == ("error", 3)
    with pytest.raises(CallError, match="program absent not found"):
        asyncio.run(new.call_async("incr", name="absent"))


@pytest.mark.parametrize("awaited", [False, True], ids=["call", "call_async"])
def test_a_conflict_is_raised_only_after_as_much_patience_as_was_asked_for(
    awaited: bool, run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    def incr(patience: float | None) -> Any:
        if awaited:
            return asyncio.run(plugin.call_async("incr", timeout=PATIENCE, patience=patience))
        return plugin.call("incr", timeout=PATIENCE, patience=patience)

    running = run_plugin(Noting, seen=seen)
    plugin = running.plugin
    conflict = {"status": "error", "reason": "arbiter is restarting...", "errno": 5}
    fake_circusd.reply("incr", conflict)
    with pytest.raises(CallConflict, match="incr: arbiter is restarting"):
        incr(0)
    assert len(fake_circusd.commands) == 1
    fake_circusd.reply("incr", {})
    fake_circusd.reply("incr", conflict, count=2)
    assert incr(None)["status"] == "ok"
    counters = running.status.counters
    assert (counters.conflicts, counters.casts_failed) == (3, 0)


def test_a_cast_has_no_deadline_to_give_so_timeout_is_a_property(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    plugin = run_plugin(Noting, seen=seen).plugin
    plugin.cast("incr", timeout=7)
    assert fake_circusd.wait_command("incr", cast=True).properties == {"timeout": 7}


def wait_unreachable(plugin: CircusPlugin) -> None:
    """Wait until a plugin cannot send any more: the events' connection may end before.

    libzmq notices the end on a thread of its own and tells nobody.
    """
    timeout = 0.05
    while True:
        with pytest.raises(CallTimeout) as told:
            plugin.call("list", timeout=timeout)
        if "circusd cannot be reached" in str(told.value):
            return
        assert timeout < PATIENCE, told.value
        timeout *= 2


@pytest.mark.circusd_leaves
@pytest.mark.parametrize("where", ["another thread", "its own thread", "handle_stop"])
def test_a_command_for_a_circusd_that_is_down_does_not_fire_when_it_comes_back(
    where: str,
    run_plugin: Run,
    fake_circusd: FakeCircusd,
    seen: Seen,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("circusplug._plugin.calls.CALL_TIMEOUT", 0.05)

    class Quits(Noting):
        def handle_stop(self) -> None:
            if where == "handle_stop":
                quit_circusd(self)
                fake_circusd.start()
                self.seen.note(self.call("numwatchers", timeout=PATIENCE)["numwatchers"])

    def quit_circusd(plugin: CircusPlugin) -> None:
        for send in (plugin.call, plugin.cast, plugin.call):
            try:
                send("quit")
            except CallTimeout:
                seen.note("timeout")

    running = run_plugin(Quits, seen=seen)
    plugin = running.plugin
    fake_circusd.stop()
    running.wait(lambda status: not status.connected)
    wait_unreachable(plugin)
    if where == "handle_stop":
        running.stop()
        assert seen.take_all(4) == ["timeout", "timeout", "timeout", 0]
    else:
        if where == "its own thread":
            plugin.loop.add_callback(quit_circusd, plugin)
        else:
            quit_circusd(plugin)
        assert seen.take_all(3) == ["timeout"] * 3
        fake_circusd.start()
        assert plugin.call("numwatchers", timeout=PATIENCE)["numwatchers"] == 0
    assert [command.command for command in fake_circusd.commands] == ["numwatchers"]


def test_watcher_name_gives_the_real_name_and_asks_again_after_add_and_remove(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Names(Noting):
        def handle_recv(self, data: Frames) -> None:
            event = self.parse_event(data)
            self.seen.note((event.action, self.watcher_name("my_app.v1")))

    run_plugin(Names, seen=seen)
    fake_circusd.publish("web", "spawn")
    assert seen.take() == ("spawn", "my_app.v1")
    fake_circusd.add_watcher("My App.v1")
    fake_circusd.publish("web", "spawn")
    assert seen.take() == ("spawn", "my_app.v1")
    fake_circusd.publish("My App.v1", "add")
    assert seen.take() == ("add", "My App.v1")
    fake_circusd.publish("web", "spawn")
    assert seen.take() == ("spawn", "My App.v1")
    assert len([each for each in fake_circusd.commands if each.command == "status"]) == 2


@pytest.mark.parametrize("statuses", [None, 7, "web", ["web"]])
def test_statuses_that_are_none_are_a_call_error(
    statuses: Any, run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    plugin = run_plugin(Noting, seen=seen).plugin
    fake_circusd.reply("status", {"statuses": statuses}, count=1)
    with pytest.raises(CallError, match="'statuses' is no object"):
        plugin.watcher_name("my_app")
    assert plugin.watcher_name("my_app") == "my_app"


@pytest.mark.parametrize("where", ["handle_init", "another thread"])
def test_watcher_name_asks_again_wherever_it_was_asked_first(
    where: str, run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Names(Noting):
        def handle_init(self) -> None:
            if where == "handle_init":
                self.watcher_name("my_app")

        def handle_recv(self, data: Frames) -> None:
            self.seen.note(self.watcher_name("my_app"))

    plugin = run_plugin(Names, seen=seen).plugin
    if where != "handle_init":
        assert plugin.watcher_name("my_app") == "my_app"
    fake_circusd.publish("web", "spawn")
    assert seen.take() == "my_app"
    fake_circusd.add_watcher("My App")
    fake_circusd.publish("My App", "add")
    assert seen.take() == "My App"


@pytest.mark.circusd_leaves
def test_watcher_name_asks_again_after_circusd_was_away(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Names(Noting):
        def handle_reconnect(self) -> None:
            self.seen.note(self.watcher_name("my_app"))

    plugin = run_plugin(Names, seen=seen).plugin
    assert plugin.watcher_name("my_app") == "my_app"
    fake_circusd.publish("web", "spawn")
    assert seen.take() == "spawn"
    fake_circusd.stop()
    fake_circusd.add_watcher("My App")
    fake_circusd.start()
    assert seen.take() == "My App"
