# What a test can do with a FakeCircusd beyond what a real circusd does: events, watchers, commands
# and replies. What they have in common is in test_contract.py.

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
from wire import Wire

from circusplug._errors import CircusdError
from circusplug.testing import Command, FakeCircusd


class TestEvents:
    def test_a_published_event_has_the_res_name_in_its_topic_and_a_time(
        self, fake: FakeCircusd, wire: Wire
    ) -> None:
        fake.publish("My App.v1", "reap", process_pid=7, exit_code=-9)
        topic, payload = wire.event()
        assert topic == "watcher.my_app.v1.reap"
        assert isinstance(payload.pop("time"), float)
        assert payload == {"process_pid": 7, "exit_code": -9}

    def test_a_time_that_is_given_is_kept(self, fake: FakeCircusd, wire: Wire) -> None:
        fake.publish("web", "start", time=1.5)
        assert wire.event() == ("watcher.web.start", {"time": 1.5})

    def test_a_payload_may_hold_a_name(self, fake: FakeCircusd, wire: Wire) -> None:
        fake.publish("web", "hook_success", name="before_start", time=1)
        assert wire.event()[1] == {"name": "before_start", "time": 1}

    def test_anything_can_be_published(self, fake: FakeCircusd, wire: Wire) -> None:
        fake.publish_raw(b"watcher.\xff", b"not json", b"a third")
        assert wire.event_frames() == [b"watcher.\xff", b"not json", b"a third"]

    def test_a_flood_arrives_complete_and_in_order(self, fake: FakeCircusd, wire: Wire) -> None:
        fake.publish_many(20_000, "web", "spawn", process_pid=7)
        events = [wire.event() for _ in range(20_000)]
        assert [payload["number"] for _, payload in events] == [*range(20_000)]
        assert events[-1][0] == "watcher.web.spawn"
        assert events[-1][1].keys() == {"time", "process_pid", "number"}

    def test_events_to_no_subscriber_are_lost(self, fake: FakeCircusd) -> None:
        fake.publish("web", "start", time=1)
        with Wire(fake) as wire:
            fake.wait_subscribed()
            fake.publish("web", "stop", time=2)
            assert wire.event() == ("watcher.web.stop", {"time": 2})

    def test_each_subscription_is_counted_and_each_end_of_one(self, fake: FakeCircusd) -> None:
        assert fake.subscribers == 0
        with Wire(fake), Wire(fake):
            fake.wait_subscribed(2)
            assert fake.subscribers == 2
        fake.wait_unsubscribed()
        assert fake.subscribers == 0

    def test_subscriptions_can_be_counted_by_topic(self, fake: FakeCircusd) -> None:
        with Wire(fake, b"watcher.web."), Wire(fake):
            fake.wait_subscribed(2)
            fake.wait_subscribed(1, topic=b"watcher.web.")
            with pytest.raises(AssertionError, match="2 subscriptions, there are 1"):
                fake.wait_subscribed(2, topic=b"watcher.web.", timeout=0)

    def test_a_wait_in_vain_says_how_many_subscriptions_there_are(self, fake: FakeCircusd) -> None:
        with pytest.raises(AssertionError, match=r"in vain for 1 subscriptions, there are 0"):
            fake.wait_subscribed(timeout=0)

    def test_a_stopped_circusd_cannot_publish(self, fake: FakeCircusd) -> None:
        fake.stop()
        with pytest.raises(CircusdError, match="is down"):
            fake.publish("web", "start")


class TestWatchers:
    def test_watchers_are_there_from_the_start_without_an_event(
        self, fake: FakeCircusd, wire: Wire
    ) -> None:
        fake.add_watcher("late", numprocesses=3)
        fake.publish("web", "start", time=1)
        assert wire.event()[0] == "watcher.web.start"
        assert len(fake.pids("late")) == 3
        assert fake.status("my app.V1") == "active"

    def test_watchers_can_be_given_by_name_only(self) -> None:
        with FakeCircusd(["one", "two"]) as fake:
            assert [len(fake.pids(name)) for name in ("one", "two")] == [1, 1]

    def test_a_watcher_without_autostart_is_stopped(self, fake: FakeCircusd) -> None:
        fake.add_watcher("off", autostart=False)
        assert (fake.status("off"), fake.pids("off")) == ("stopped", [])

    def test_process_ids_belong_to_no_process_of_this_machine(self, fake: FakeCircusd) -> None:
        with pytest.raises(ProcessLookupError):
            os.kill(fake.pids("my app.v1")[0], 0)

    def test_a_process_that_exits_is_reaped_and_replaced(
        self, fake: FakeCircusd, wire: Wire
    ) -> None:
        pid, other = fake.pids("my app.v1")
        fake.exit_process("my app.v1", exit_code=3, pid=pid)
        topic, payload = wire.event()
        assert topic == "watcher.my_app.v1.reap"
        assert (payload["process_pid"], payload["exit_code"]) == (pid, 3)
        topic, payload = wire.event()
        assert topic == "watcher.my_app.v1.spawn"
        assert fake.pids("my app.v1") == [other, payload["process_pid"]]

    def test_a_watcher_that_does_not_respawn_stops_with_its_last_process(
        self, fake: FakeCircusd
    ) -> None:
        fake.add_watcher("once", respawn=False)
        fake.exit_process("once", exit_code=0)
        assert fake.status("once") == "stopped"

    def test_stats_tell_the_figures_that_were_set(self, fake: FakeCircusd, wire: Wire) -> None:
        pid, other = fake.pids("my app.v1")
        fake.set_stats("my app.v1", cpu=10.0, mem="N/A")
        fake.set_stats("my app.v1", pid, cpu=97.5)
        info = wire.call("stats", name="my app.v1")["info"]
        assert (info[str(pid)]["cpu"], info[str(pid)]["mem"]) == (97.5, "N/A")
        assert info[str(other)]["cpu"] == 10.0

    @pytest.mark.parametrize("method", ["pids", "status", "exit_process", "set_stats"])
    def test_an_absent_watcher_is_an_error(self, fake: FakeCircusd, method: str) -> None:
        with pytest.raises(CircusdError, match="program absent not found"):
            getattr(fake, method)("absent")

    def test_two_watchers_of_one_name_are_an_error(self, fake: FakeCircusd) -> None:
        with pytest.raises(CircusdError, match="already exist"):
            fake.add_watcher("MY APP.v1")


class TestCommands:
    def test_calls_and_casts_are_recorded_in_order(self, fake: FakeCircusd, wire: Wire) -> None:
        wire.cast("incr", name="My App.v1", nb=2)
        call_id = wire.request("list")
        wire.receive()
        first, second = fake.commands
        assert first == Command("incr", {"name": "My App.v1", "nb": 2}, cast=True)
        assert (second.command, second.id, second.cast) == ("list", call_id, False)
        assert second.properties == {}

    def test_a_command_that_came_before_is_waited_for_no_longer(
        self, fake: FakeCircusd, wire: Wire
    ) -> None:
        wire.call("stop", name="My App.v1")
        assert fake.wait_command("stop", timeout=0).properties["name"] == "My App.v1"

    def test_a_wait_takes_a_command_that_comes_later(self, fake: FakeCircusd, wire: Wire) -> None:
        found: list[Command] = []
        thread = threading.Thread(target=lambda: found.append(fake.wait_command("incr", nb=3)))
        thread.start()
        wire.call("incr", name="My App.v1", nb=2)
        wire.call("incr", name="My App.v1", nb=3)
        thread.join()
        assert found[0].properties["nb"] == 3

    def test_a_wait_looks_at_name_properties_kind_and_number(
        self, fake: FakeCircusd, wire: Wire
    ) -> None:
        wire.cast("incr", name="My App.v1")
        wire.call("incr", name="My App.v1")
        assert fake.wait_command("incr", timeout=0).cast is True
        assert fake.wait_command("INCR", timeout=0, cast=False).cast is False
        assert fake.wait_command("incr", timeout=0, count=2).cast is False
        for wrong in ({"count": 3}, {"name": "other"}, {"nb": None}):
            with pytest.raises(AssertionError, match="in vain for command 'incr'"):
                fake.wait_command("incr", timeout=0, **wrong)  # type: ignore[arg-type]
        with pytest.raises(AssertionError, match=r"received: \[Command\(command='incr'"):
            fake.wait_command("decr", timeout=0)

    def test_a_cleared_record_is_empty(self, fake: FakeCircusd, wire: Wire) -> None:
        wire.call("list")
        fake.clear()
        assert fake.commands == []
        with pytest.raises(AssertionError):
            fake.wait_command("list", timeout=0)

    def test_what_a_test_has_got_is_not_changed_by_what_comes_later(
        self, fake: FakeCircusd, wire: Wire
    ) -> None:
        before = fake.commands
        wire.call("list")
        assert (before, len(fake.commands)) == ([], 1)
        properties = {"name": "web"}
        command = Command("incr", properties)
        properties["name"] = "other"
        assert command.properties == {"name": "web"}

    def test_a_command_cannot_be_changed(self) -> None:
        command = Command("incr", {"name": "web"})
        with pytest.raises(TypeError):
            command.properties["name"] = "other"  # type: ignore[index]
        assert hash(command) == hash(Command("incr", {"name": "web"}))


class TestReplies:
    def test_a_canned_reply_takes_the_place_of_the_watchers(
        self, fake: FakeCircusd, wire: Wire
    ) -> None:
        fake.reply("incr", {"numprocesses": 42})
        reply = wire.call("incr", name="My App.v1")
        assert reply.keys() == {"status", "time", "id", "numprocesses"}
        assert (reply["status"], reply["numprocesses"]) == ("ok", 42)
        assert len(fake.pids("My App.v1")) == 2

    def test_status_time_and_id_of_a_reply_can_be_given(
        self, fake: FakeCircusd, wire: Wire
    ) -> None:
        fake.reply("list", {"status": "error", "errno": 5, "time": 1, "id": "odd"})
        assert wire.call_raw("list") == {"status": "error", "errno": 5, "time": 1, "id": "odd"}

    def test_a_computed_reply_sees_the_properties(self, fake: FakeCircusd, wire: Wire) -> None:
        fake.reply("status", lambda properties: {"status": properties["name"].upper()})
        assert wire.call("status", name="web")["status"] == "WEB"

    def test_a_reply_can_be_for_some_properties_and_some_times_only(
        self, fake: FakeCircusd, wire: Wire
    ) -> None:
        fake.reply("status", {"status": "starting"}, count=1, name="My App.v1")
        assert wire.call("status", name="my app.v1")["status"] == "active"
        assert wire.call("status", name="My App.v1")["status"] == "starting"
        assert wire.call("status", name="My App.v1")["status"] == "active"

    def test_the_latest_reply_counts(self, fake: FakeCircusd, wire: Wire) -> None:
        fake.reply("status", {"status": "starting"})
        fake.reply("status", {"status": "stopping"}, count=1)
        assert [wire.call("status")["status"] for _ in range(2)] == ["stopping", "starting"]

    @pytest.mark.parametrize("wrong", ["ok", None, 7, [{}]])
    def test_a_reply_that_is_none_is_refused_at_once(self, fake: FakeCircusd, wrong: Any) -> None:
        with pytest.raises(TypeError, match="reply to 'list' must be a dict or a function, not "):
            fake.reply("list", wrong)

    def test_a_computed_reply_may_publish(self, fake: FakeCircusd, wire: Wire) -> None:
        def publish(properties: Any) -> dict[str, Any]:
            fake.publish("web", "start")
            return {}

        fake.reply("start", publish)
        wire.call("start")
        assert wire.event()[0] == "watcher.web.start"

    def test_an_error_in_a_computed_reply_is_raised_at_the_end(self) -> None:
        def fail(properties: Any) -> dict[str, Any]:
            raise ZeroDivisionError("in the test's own function")

        def use(fake: FakeCircusd) -> None:
            fake.reply("list", fail)
            with Wire(fake) as wire:
                reply = wire.call("list")
            assert (reply["status"], reply["errno"]) == ("error", 5)
            with pytest.raises(CircusdError, match="ZeroDivisionError"):
                fake.wait_command("never")

        with pytest.raises(ZeroDivisionError), FakeCircusd() as fake:
            use(fake)
