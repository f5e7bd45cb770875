# What plugin authors write, run as they would run it: what files made for Circus rely on, and
# what circusplug adds. Plugins note what happens to them in `seen`, a queue of the test's.

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from patience import PATIENCE

from circusplug import (
    CallConflict,
    CallError,
    CallTimeout,
    CircusPlugin,
    EventError,
    PluginLoadError,
    PluginStateError,
)
from circusplug._plugin.load import load_plugin_class
from circusplug.testing import FakeCircusd, RunningPlugin

Run = Callable[..., RunningPlugin]
Frames = tuple[bytes, bytes]


class Seen:
    """What a plugin noted, in order; the test takes it one by one."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def note(self, item: Any) -> None:
        self._items.put(item)

    def take(self) -> Any:
        return self._items.get(timeout=PATIENCE)

    def take_all(self, count: int) -> list[Any]:
        return [self.take() for _ in range(count)]

    @property
    def empty(self) -> bool:
        return self._items.empty()


@pytest.fixture
def seen() -> Seen:
    return Seen()


class Noting(CircusPlugin):
    """Notes the action of each event."""

    @property
    def seen(self) -> Seen:
        seen: Seen = self.config["seen"]
        return seen

    def handle_recv(self, data: Frames) -> Any:
        self.seen.note(self.parse_event(data).action)


# The documentation's examples, and what else the files made for Circus do.


class Logger(CircusPlugin):
    name = "logger"

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self.filename = config.get("filename")

    def handle_init(self) -> None:
        assert self.filename is not None
        self.file = open(self.filename, "a+", buffering=1)  # noqa: SIM115 - as documented

    def handle_recv(self, data: Frames) -> None:
        watcher_name, action, message = self.split_data(data)
        self.file.write(f"{action} {watcher_name}::{self.load_message(message)!r}\n")

    def handle_stop(self) -> None:
        self.file.close()


def test_the_logger_of_the_documentation_writes_its_file(
    run_plugin: Run, fake_circusd: FakeCircusd, tmp_path: Path
) -> None:
    file = tmp_path / "circus.log"
    running = run_plugin(Logger, filename=str(file))
    fake_circusd.publish("My App.v1", "reap", process_pid=7, exit_code=-9, time=1.5)
    running.wait_handled(1)
    running.stop()
    payload = {"time": 1.5, "process_pid": 7, "exit_code": -9}
    assert file.read_text() == f"reap my_app.v1::{payload!r}\n"
    assert running.plugin.file.closed


def test_a_constructor_may_take_circus_arguments_by_name_and_drop_its_config(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Old(CircusPlugin):
        name = None

        def __init__(
            self,
            endpoint: str,
            pubsub_endpoint: str,
            check_delay: float,
            ssh_server: str | None = None,
            **config: Any,
        ) -> None:
            super().__init__(endpoint, pubsub_endpoint, check_delay, ssh_server=ssh_server)
            self.seen = config["seen"]
            self.name = "renamed"

        def handle_recv(self, data: Frames) -> None:
            self.seen.note((self.config, self.active, self.name))

    run_plugin(Old, seen=seen)
    fake_circusd.publish("web", "spawn")
    assert seen.take() == ({}, True, "renamed")


@pytest.mark.parametrize(
    ("config", "active"), [({"active": "false"}, False), ({"active": "1"}, True), ({}, True)]
)
def test_the_option_active_says_whether_a_plugin_is(
    config: dict[str, str], active: bool, alone: Callable[..., Any]
) -> None:
    assert alone(Noting, **config).active is active


def test_tornados_periodic_callback_made_in_handle_init_calls_back(
    run_plugin: Run, seen: Seen
) -> None:
    ioloop = pytest.importorskip("tornado.ioloop")

    class Ticks(Noting):
        def handle_init(self) -> None:
            self.period = ioloop.PeriodicCallback(self.look_after, 1)
            self.period.start()

        def look_after(self) -> None:
            self.seen.note((threading.current_thread().name, asyncio.get_running_loop()))

        def handle_stop(self) -> None:
            self.period.stop()

    running = run_plugin(Ticks, name="ticks", seen=seen)
    loop = running.plugin.loop
    assert seen.take_all(3) == [("plugin:ticks", loop)] * 3


def test_tornados_periodic_callback_made_in_the_constructor_calls_back(
    run_plugin: Run, seen: Seen
) -> None:
    ioloop = pytest.importorskip("tornado.ioloop")

    class Ticks(Noting):
        def __init__(self, *args: Any, **config: Any) -> None:
            super().__init__(*args, **config)
            self.period = ioloop.PeriodicCallback(lambda: self.seen.note("tick"), 1)

        def handle_init(self) -> None:
            self.period.start()

    run_plugin(Ticks, seen=seen)
    assert seen.take_all(2) == ["tick", "tick"]


def test_a_handler_on_a_udp_socket_is_called(run_plugin: Run, seen: Seen) -> None:
    class Udp(Noting):
        def handle_init(self) -> None:
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.socket.bind(("127.0.0.1", 0))
            self.loop.add_handler(self.socket.fileno(), self.receive, self.loop.READ)
            self.seen.note(self.socket.getsockname())

        def receive(self, fd: int, events: int) -> None:
            assert fd == self.socket.fileno()
            assert events == self.loop.READ
            self.seen.note(self.socket.recv(100))

        def handle_stop(self) -> None:
            self.loop.remove_handler(self.socket.fileno())
            self.socket.close()

    run_plugin(Udp, seen=seen)
    address = seen.take()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for message in (b"one", b"two"):
            sender.sendto(message, address)
            assert seen.take() == message


def test_what_was_put_on_the_loop_before_start_runs_after_handle_init(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Early(Noting):
        def __init__(self, *args: Any, **config: Any) -> None:
            super().__init__(*args, **config)
            self.loop.add_timeout(datetime.timedelta(0), self.seen.note, "timedelta")
            self.loop.add_timeout(time.time(), self.seen.note, "time")
            self.loop.add_callback(self.seen.note, "callback")

        def handle_init(self) -> None:
            self.seen.note("init")

        def initialize(self) -> None:
            super().initialize()
            self.seen.note("initialize")

    run_plugin(Early, seen=seen)
    noted = seen.take_all(5)
    assert noted[:3] == ["init", "initialize", "callback"]
    assert sorted(noted[3:]) == ["time", "timedelta"]


def test_an_initialize_that_ends_in_a_call_gets_its_reply(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Asks(Noting):
        def initialize(self) -> None:
            super().initialize()
            self.seen.note(self.call("list")["watchers"])

    fake_circusd.add_watcher("web")
    run_plugin(Asks, seen=seen)
    assert seen.take() == ["web"]


def test_a_thread_started_in_handle_init_calls_and_casts(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Threaded(Noting):
        def handle_init(self) -> None:
            self.thread = threading.Thread(target=self.work)
            self.thread.start()

        def work(self) -> None:
            self.seen.note(self.call("numprocesses", name="web")["numprocesses"])
            self.cast("incr", name="web")
            self.call("incr", name="web", waiting=True)
            self.seen.note("worked")

        def handle_recv(self, data: Frames) -> None:
            pass

        def handle_stop(self) -> None:
            self.thread.join()

    fake_circusd.add_watcher("web")
    running = run_plugin(Threaded, seen=seen)
    assert seen.take_all(2) == [1, "worked"]
    assert [command.cast for command in fake_circusd.commands] == [False, True, False]
    assert running.counters.calls == 3


def test_a_plugin_may_override_stop_and_have_it_called_by_the_host(
    run_plugin: Run, seen: Seen
) -> None:
    class Old(Noting):
        def handle_stop(self) -> None:
            self.seen.note("handle_stop")

        def stop(self) -> None:
            self.seen.note("stop")
            super().stop()
            self.loop.close()

    running = run_plugin(Old, seen=seen)
    running.stop()
    assert seen.take_all(2) == ["stop", "handle_stop"]


def test_the_worker_attribute_and_the_other_names_in_use_are_free_for_plugins(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Greedy(Noting):
        def __init__(self, *args: Any, **config: Any) -> None:
            super().__init__(*args, **config)
            self.worker = self._worker = self._thread = self._client = self.client = "mine"

    run_plugin(Greedy, seen=seen)
    fake_circusd.publish("web", "spawn")
    assert seen.take() == "spawn"


# Events.


@pytest.mark.parametrize(
    ("topic", "watcher"),
    [
        (b"watcher.web.spawn", "web"),
        (b"watcher.my_app.v1.spawn", "my_app.v1"),
        (b"watcher.plugin:logger.spawn", "plugin:logger"),
        (b"watcher..hidden.spawn", ".hidden"),
        ("watcher.café.spawn".encode(), "café"),
    ],
)
def test_split_data_is_right_for_names_with_dots(topic: bytes, watcher: str) -> None:
    assert CircusPlugin.split_data((topic, b"{}")) == (watcher, "spawn", b"{}")
    text: Any = topic.decode()
    assert CircusPlugin.split_data((text, b"{}")) == (watcher, "spawn", b"{}")
    assert CircusPlugin.parse_event((topic, b"{}")).watcher == watcher


def test_what_is_no_event_is_refused_by_split_data_and_parse_event() -> None:
    for topic in (b"", b"watcher", b"watcher.web", b"watcher..spawn", b"stats.web.spawn"):
        with pytest.raises(EventError):
            CircusPlugin.split_data((topic, b"{}"))
    with pytest.raises(ValueError, match="JSON"):
        CircusPlugin.parse_event((b"watcher.web.spawn", b"not json"))
    with pytest.raises(ValueError, match="Expecting"):
        CircusPlugin.load_message(b"not json")
    for text in (b"[" * 100_000, "[" * 100_000, b'{"a": ' * 100_000):
        with pytest.raises(ValueError, match="nested too deeply"):
            CircusPlugin.load_message(text)
    assert CircusPlugin.load_message('{"time": 1}') == {"time": 1}


def test_events_are_handled_in_order_on_the_plugins_thread(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Numbers(Noting):
        def handle_recv(self, data: Frames) -> None:
            self.seen.note(self.parse_event(data).payload["number"])

    running = run_plugin(Numbers, seen=seen)
    fake_circusd.publish_many(5000, "web", "spawn")
    assert seen.take_all(5000) == list(range(5000))
    running.wait_handled(5000)
    assert running.counters.received == 5000


def test_async_handlers_are_awaited_in_order_and_timers_go_on_meanwhile(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Awaits(Noting):
        async def handle_init(self) -> None:
            self.turn = asyncio.Event()
            await asyncio.sleep(0)
            self.seen.note("init")

        async def handle_recv(self, data: Frames) -> None:
            event = self.parse_event(data)
            self.seen.note(f"begin {event.action}")
            if event.action == "start":
                self.loop.call_soon(self.turn.set)
                await self.turn.wait()
            else:
                await self.call_async("list")
            self.seen.note(f"end {event.action}")

    running = run_plugin(Awaits, seen=seen)
    for action in ("start", "spawn", "reap", "stop"):
        fake_circusd.publish("web", action)
    assert seen.take() == "init"
    assert seen.take_all(8) == [
        f"{word} {action}"
        for action in ("start", "spawn", "reap", "stop")
        for word in ("begin", "end")
    ]
    running.wait_handled(4)


def test_a_handler_may_be_async_for_some_events_only(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Mixed(Noting):
        def handle_recv(self, data: Frames) -> Any:
            number = self.parse_event(data).payload["number"]
            return self.later(number) if number % 3 == 0 else self.seen.note(number)

        async def later(self, number: int) -> None:
            await asyncio.sleep(0)
            self.seen.note(number)

    running = run_plugin(Mixed, seen=seen)
    fake_circusd.publish_many(300, "web", "spawn")
    assert seen.take_all(300) == list(range(300))
    running.wait_handled(300)


def test_exceptions_are_contained_logged_and_counted(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    class Fails(Noting):
        def handle_recv(self, data: Frames) -> Any:
            action = self.parse_event(data).action
            if action == "start":
                raise ZeroDivisionError("in the handler")
            if action == "stop":
                return self.fail_later()
            if action == "reload":
                self.loop.add_callback(self.fail, "in the callback")
                self.loop.add_timeout(datetime.timedelta(0), self.fail, "in the timer")
                self.loop.add_callback(self.fail_later)
            return super().handle_recv(data)

        def fail(self, where: str) -> None:
            raise ZeroDivisionError(where)

        async def fail_later(self) -> None:
            await asyncio.sleep(0)
            raise ZeroDivisionError("in the coroutine")

    running = run_plugin(Fails, name="fails", raise_errors=False, seen=seen)
    for action in ("start", "stop", "reload", "spawn"):
        fake_circusd.publish("web", action)
    assert seen.take_all(2) == ["reload", "spawn"]
    status = running.wait(
        lambda status: status.counters.errors == 5 and status.counters.handled == 2
    )
    assert status.counters.received == 4
    assert status.state == "running"
    texts = [str(error) for error in running.errors]
    assert texts[:2] == ["in the handler", "in the coroutine"]
    assert sorted(texts[2:]) == ["in the callback", "in the coroutine", "in the timer"]
    records = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert {record.name for record in records} == {"circusplug.plugin.fails"}
    # Callback and timer fail in the same line, and newer Pythons describe both alike: once in full.
    assert len([record for record in records if record.exc_info]) in (4, 5)


@pytest.mark.parametrize(
    ("messages", "garbage"),
    [
        ([(b"watcher.alone",)], 1),
        ([(b"watcher.one",), (b"watcher.two",)], 2),
        ([(b"watcher.web.start", b'{"time": 1}', b"more")], 1),
        ([(b"watcher.web.start", b'{"time": 1}', b"more", b"and more")], 1),
        ([(b"watcher.web.start", b"")], 1),
        ([(b"watcher.web.start", b"not json")], 1),
        ([(b"watcher.web.start", b"[1]", b"more")], 1),
        ([(b"watcher.one",), (b"watcher.web.start", b"not json")], 2),
        ([(b"watcher.",)], 1),
    ],
    ids=[
        "one frame",
        "one frame twice",
        "three frames",
        "four frames",
        "empty payload",
        "no JSON",
        "no JSON and a third frame",
        "one frame and no JSON",
        "a prefix alone",
    ],
)
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("followed", [False, True], ids=["alone", "followed"])
def test_garbage_is_counted_and_the_events_around_it_are_handled(
    messages: list[tuple[bytes, ...]],
    garbage: int,
    asynchronous: bool,
    followed: bool,
    run_plugin: Run,
    fake_circusd: FakeCircusd,
    seen: Seen,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Awaits(Noting):
        async def handle_recv(self, data: Frames) -> None:
            await asyncio.sleep(0)
            super().handle_recv(data)

    running = run_plugin(Awaits if asynchronous else Noting, seen=seen)

    def publish() -> None:
        fake_circusd.publish("web", "spawn")
        for message in messages:
            fake_circusd.publish_raw(*message)
        if followed:
            fake_circusd.publish("web", "reap")

    if followed:
        fake_circusd._core.run(publish)  # in one go, so that one is received behind the other
    else:
        publish()
    good = sum(len(message) > 2 and message[1][:1] == b"{" for message in messages)
    expected = ["spawn", *["start"] * good, *(["reap"] if followed else [])]
    assert seen.take_all(len(expected)) == expected
    status = running.wait(lambda status: status.counters.garbage == garbage)
    if not followed:
        fake_circusd.publish("web", "reap")
        assert seen.take() == "reap"
        status = running.status
    running.wait_handled(len(expected) + (not followed))
    assert running.counters.received == running.counters.handled
    assert (running.counters.garbage, status.counters.errors) == (garbage, 0)
    assert seen.empty
    assert caplog.text.count("not an event") == min(garbage, 1)  # and the 10th time, and so on


def test_only_the_topics_asked_for_are_received(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Some(Noting):
        topics = ("watcher.web.", "db.", b"watcher.cache.")

        def handle_recv(self, data: Frames) -> None:
            self.seen.note(self.parse_event(data).watcher)

    run_plugin(Some, seen=seen)
    for watcher in ("web", "web2", "db", "other", "cache"):
        fake_circusd.publish(watcher, "spawn")
    assert seen.take_all(3) == ["web", "db", "cache"]
    assert seen.empty


def test_one_topic_may_be_given_as_text(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class One(Noting):
        topics = "web."  # type: ignore[assignment]  # a plain text, which is easily written

    run_plugin(One, seen=seen)
    fake_circusd.publish("other", "start")
    fake_circusd.publish("web", "spawn")
    assert seen.take() == "spawn"


@pytest.mark.parametrize("ignored", [True, False])
def test_the_events_of_circusds_own_plugins_can_be_left_out(
    ignored: bool, run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Selective(Noting):
        ignore_plugins = ignored

    run_plugin(Selective, seen=seen)
    fake_circusd.publish("plugin:logger", "start")
    fake_circusd.publish("web", "spawn")
    assert seen.take_all(1 if ignored else 2) == (["spawn"] if ignored else ["start", "spawn"])


@pytest.mark.circusd_leaves
@pytest.mark.parametrize("unseen", [False, True], ids=["seen", "unseen"])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_handle_reconnect_runs_before_the_events_that_follow_it(
    asynchronous: bool, unseen: bool, run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Reads(Noting):
        def handle_reconnect(self) -> Any:
            self.seen.note(self.call("list")["watchers"])

    class AwaitsAndReads(Noting):
        async def handle_reconnect(self) -> None:
            reply = await self.call_async("list")
            self.seen.note(reply["watchers"])

    running = run_plugin(AwaitsAndReads if asynchronous else Reads, seen=seen)
    fake_circusd.publish("web", "start")
    assert seen.take() == "start"
    if unseen:
        look_away_from_new_connections(running, fake_circusd)
    fake_circusd.restart()
    fake_circusd.wait_subscribed(timeout=PATIENCE)  # each attempt in vain doubles the next pause
    for action in ("spawn", "kill", "reap"):
        fake_circusd.publish("web", action)
    assert seen.take_all(4) == [[], "spawn", "kill", "reap"]
    assert running.counters.reconnects == 1
    running.wait_handled(4)


def look_away_from_new_connections(running: RunningPlugin, fake_circusd: FakeCircusd) -> None:
    """Let the loop see events alone: as when one comes in the middle of a poll."""
    fake_circusd.stop()
    running.wait(lambda status: not status.connected)
    loop = running.plugin.loop
    done = threading.Event()

    def look_away() -> None:
        connection = running.plugin._circusplug_worker._connection
        loop.watch_socket(connection._monitors[0], None)
        connection._loop = None
        done.set()

    loop.post(look_away)
    assert done.wait(PATIENCE)


@pytest.mark.circusd_leaves
def test_when_circusd_comes_back_calls_need_not_wait_for_the_old_connection(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reads(Noting):
        def handle_reconnect(self) -> None:
            self.seen.note(self.call("list", timeout=PATIENCE)["watchers"])

    def configure(dealer: Any, *args: Any) -> None:
        dealer.linger = 0
        dealer.setsockopt(zmq.RECONNECT_IVL, 3_600_000)

    monkeypatch.setattr("circusplug._wire.endpoints.configure_link", configure)
    run_plugin(Reads, seen=seen).plugin.call("list")
    fake_circusd.restart()
    assert seen.take() == []


@pytest.mark.circusd_leaves
def test_a_handle_reconnect_that_fails_is_contained(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Fails(Noting):
        def handle_reconnect(self) -> Any:
            raise ZeroDivisionError

    running = run_plugin(Fails, raise_errors=False, seen=seen)
    fake_circusd.restart()
    running.wait(lambda status: status.counters.errors == 1, PATIENCE)
    fake_circusd.wait_subscribed(timeout=PATIENCE)
    fake_circusd.publish("web", "spawn")
    assert seen.take() == "spawn"


# Commands.


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


# Helpers.


def test_periodic_calls_back_until_it_is_stopped(run_plugin: Run, seen: Seen) -> None:
    class Ticks(Noting):
        def handle_init(self) -> None:
            self.count = 0
            self.ticks = self.periodic(self.tick, 0.001)

        def tick(self) -> None:
            self.count += 1
            self.seen.note(self.count)
            if self.count == 3:
                self.ticks.stop()
                self.ticks.stop()
                self.loop.call_later(0.005, self.seen.note, "later")

    plugin = run_plugin(Ticks, seen=seen).plugin
    assert seen.take_all(4) == [1, 2, 3, "later"]
    assert not plugin.ticks.running
    plugin.ticks.start()  # from another thread, and once more
    plugin.ticks.start()
    assert seen.take_all(2) == [4, 5]


def test_a_periodic_coroutine_never_overlaps_itself(run_plugin: Run, seen: Seen) -> None:
    class Ticks(Noting):
        under_way = 0

        def handle_init(self) -> None:
            self.ticks = self.periodic(self.tick, 0.001)

        async def tick(self) -> None:
            self.under_way += 1
            if self.under_way == 1:
                # While it is awaited, neither time passing nor a restart calls it again.
                self.ticks.stop()
                self.ticks.start()
                await asyncio.sleep(0.01)
            self.seen.note(self.under_way)
            self.under_way -= 1

    run_plugin(Ticks, seen=seen)
    assert seen.take_all(10) == [1] * 10


def test_a_periodic_callback_that_fails_is_reported_and_called_again(
    run_plugin: Run, seen: Seen
) -> None:
    class Fails(Noting):
        def handle_init(self) -> None:
            self.periodic(self.fail, 0.001)
            self.periodic(self.fail_later, 0.001)

        def fail(self) -> None:
            raise ZeroDivisionError("now")

        async def fail_later(self) -> None:
            raise ZeroDivisionError("later")

    running = run_plugin(Fails, raise_errors=False, seen=seen)

    def both_again(_: object) -> bool:
        texts = [str(error) for error in running.errors]
        return texts.count("now") > 1 and texts.count("later") > 1

    running.wait(both_again, PATIENCE)


def test_a_periodic_callback_that_is_cancelled_by_its_own_doing_is_called_again(
    run_plugin: Run, seen: Seen
) -> None:
    class Cancelled(Noting):
        def handle_init(self) -> None:
            self.periodic(self.sync, 0.001)
            self.periodic(self.awaited, 0.001)

        def sync(self) -> None:
            self.seen.note("sync")
            raise asyncio.CancelledError

        async def awaited(self) -> None:
            self.seen.note("awaited")
            future = self.loop.create_future()
            future.cancel()
            await future

    run_plugin(Cancelled, raise_errors=False, seen=seen)
    noted: list[str] = []
    while min(noted.count("sync"), noted.count("awaited")) < 3:
        noted.append(seen.take())


@pytest.mark.parametrize("seconds", [0.001, 0.0002])
def test_a_plugin_that_parks_leaves_no_task_undone(
    seconds: float, run_plugin: Run, seen: Seen
) -> None:
    class Ticks(Noting):
        def handle_init(self) -> None:
            self.periodic(self.tick, seconds)
            self.loop.call_later(0, self.make_tasks)

        async def tick(self) -> None:
            self.seen.note("tick")
            await asyncio.sleep(0)

        def make_tasks(self) -> None:
            self.task = self.loop.create_task(self.tick())
            self.loop.call_later(seconds, self.make_tasks)

    for _ in range(20):
        running = run_plugin(Ticks, seen=seen)
        seen.take()
        loop = running.plugin.loop
        running.stop()
        assert asyncio.all_tasks(loop) == set()


def test_a_period_must_be_more_than_zero(run_plugin: Run, seen: Seen) -> None:
    plugin = run_plugin(Noting, seen=seen).plugin
    for seconds in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="more than 0"):
            plugin.periodic(print, seconds)


def test_the_logger_says_which_plugin_speaks(
    run_plugin: Run, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    class Speaks(Noting):
        def handle_init(self) -> None:
            self.logger.warning("hello from %s", "the plugin")

    run_plugin(Speaks, name="speaker", seen=seen)
    assert ("circusplug.plugin.speaker", logging.WARNING, "hello from the plugin") in (
        caplog.record_tuples
    )


# Stopping.


class Stops(Noting):
    def handle_stop(self) -> None:
        self.seen.note(("handle_stop", threading.current_thread().name))


def test_stop_may_be_called_by_a_handler_which_is_finished_first(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class StopsItself(Stops):
        def handle_recv(self, data: Frames) -> None:
            self.stop()
            self.stop()
            super().handle_recv(data)

    running = run_plugin(StopsItself, seen=seen)
    fake_circusd.publish("web", "spawn")
    assert seen.take() == "spawn"
    assert seen.take()[0] == "handle_stop"
    assert running.wait(lambda status: status.state == "stopped").last_error is None
    assert seen.empty


def test_stop_may_be_called_twice_and_from_any_thread(run_plugin: Run, seen: Seen) -> None:
    running = run_plugin(Stops, seen=seen)
    plugin = running.plugin
    stoppers = [threading.Thread(target=plugin.stop) for _ in range(4)]
    for stopper in stoppers:
        stopper.start()
    for stopper in stoppers:
        stopper.join(PATIENCE)
    running.wait(lambda status: status.state == "stopped")
    plugin.stop()
    assert seen.take()[0] == "handle_stop"
    assert seen.empty
    assert not plugin.running


def test_in_handle_stop_nothing_of_the_plugin_runs_and_calls_still_work(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Busy(Noting):
        stopping = False

        def handle_init(self) -> None:
            self.periodic(self.look, 0.0005)
            self.loop.create_task(self.spin())
            self.timer = self.loop.call_later(3600, self.look)

        def handle_recv(self, data: Frames) -> None:
            self.look()

        def look(self) -> None:
            if self.stopping:
                self.seen.note("ran while stopping")

        async def spin(self) -> None:
            while True:
                await asyncio.sleep(0)
                self.look()

        def handle_stop(self) -> None:
            self.stopping = True
            self.timer.cancel()
            for _ in range(20):
                self.call("list")
                self.cast("incr", name="web")
            self.seen.note(len(self.call("list")["watchers"]))

    running = run_plugin(Busy, seen=seen)
    publisher = threading.Thread(target=fake_circusd.publish_many, args=(20000, "web", "spawn"))
    publisher.start()
    running.wait_received(100)
    running.stop()
    publisher.join(PATIENCE)
    assert seen.take() == 0
    assert seen.empty
    assert running.counters.calls == 41


def test_handle_stop_can_join_a_thread_whose_call_is_under_way(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Joins(Noting):
        def handle_init(self) -> None:
            self.thread = threading.Thread(target=self.ask)
            self.thread.start()

        def ask(self) -> None:
            try:
                self.seen.note(self.call("list", timeout=PATIENCE)["watchers"])
            except Exception as error:
                self.seen.note(repr(error))

        def handle_stop(self) -> None:
            hold.release()
            self.thread.join()

    hold = fake_circusd.hold("list")
    running = run_plugin(Joins, seen=seen, **{"host.graceful_timeout": PATIENCE})
    hold.wait()
    running.stop()
    assert seen.take() == []


def test_a_call_under_way_without_a_reply_fails_when_the_plugin_ends(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    def ask() -> None:
        try:
            plugin.call("list", timeout=PATIENCE)
        except Exception as error:
            seen.note(type(error))

    hold = fake_circusd.hold("list")
    running = run_plugin(Noting, seen=seen)
    plugin = running.plugin
    asker = threading.Thread(target=ask)
    asker.start()
    hold.wait()
    running.stop()
    asker.join(PATIENCE)
    assert seen.take() is PluginStateError
    for use in (plugin.call, plugin.cast):
        with pytest.raises(PluginStateError, match="not connected"):
            use("list")


def test_a_deadline_passes_while_the_plugin_is_parked(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Joins(Noting):
        def handle_init(self) -> None:
            self.thread = threading.Thread(target=self.ask)
            self.thread.start()

        def ask(self) -> None:
            try:
                self.call("list", timeout=0.5)
            except CallTimeout as error:
                self.seen.note(str(error))

        def handle_stop(self) -> None:
            self.thread.join()
            self.seen.note(self.call("numwatchers")["numwatchers"])

    # The plugin's thread is to say so itself, however late it gets to it.
    monkeypatch.setattr("circusplug._plugin.calls_from_threads.SLACK", PATIENCE)
    fake_circusd.silence("list")
    running = run_plugin(Joins, seen=seen)
    fake_circusd.wait_command("list")
    running.stop()
    assert seen.take_all(2) == ["list: no reply within 0.5 s", 0]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("code", "state", "error"),
    [(None, "stopped", None), (0, "stopped", None), (3, "failed", "sys.exit(3)")],
)
def test_sys_exit_in_a_handler_ends_the_plugin_alone(
    code: int | None,
    state: str,
    error: str | None,
    asynchronous: bool,
    run_plugin: Run,
    fake_circusd: FakeCircusd,
    seen: Seen,
) -> None:
    class Exits(Stops):
        def handle_recv(self, data: Frames) -> Any:
            sys.exit(code)

    class ExitsLater(Stops):
        async def handle_recv(self, data: Frames) -> Any:
            await asyncio.sleep(0)
            sys.exit(code)

    running = run_plugin(ExitsLater if asynchronous else Exits, raise_errors=False, seen=seen)
    fake_circusd.publish("web", "spawn")
    status = running.wait(lambda status: status.state in ("stopped", "failed"))
    assert status.state == state
    assert (error is None) == (status.last_error is None)
    assert (error or "") in (status.last_error or "")
    assert (status.counters.errors, status.counters.handled) == (0, 0)
    assert seen.take()[0] == "handle_stop"
    assert seen.empty


def test_sys_exit_in_a_timer_ends_a_plugin_whose_handler_is_awaited(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class ExitsMeanwhile(Stops):
        async def handle_recv(self, data: Frames) -> None:
            self.loop.call_soon(sys.exit, 3)
            await asyncio.get_running_loop().create_future()

    running = run_plugin(ExitsMeanwhile, raise_errors=False, seen=seen)
    fake_circusd.publish("web", "spawn")
    status = running.wait(lambda status: status.state == "failed", PATIENCE)
    assert "sys.exit(3)" in (status.last_error or "")
    assert seen.take()[0] == "handle_stop"


def test_an_async_handler_that_never_ends_is_cancelled_after_the_grace_time(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Endless(Stops):
        async def handle_recv(self, data: Frames) -> None:
            self.seen.note("begin")
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self.seen.note("cancelled")

    # Once cancelled it has as long again, be it as late as it may.
    monkeypatch.setattr("circusplug._plugin.plugin_thread._SHORT_WAIT", PATIENCE)
    running = run_plugin(Endless, seen=seen, **{"host.graceful_timeout": 0.3})
    fake_circusd.publish("web", "spawn")
    assert seen.take() == "begin"
    running.stop()
    assert seen.take() == "cancelled"
    assert seen.take()[0] == "handle_stop"
    assert running.status.state == "stopped"


def test_an_async_handler_in_hand_is_finished_before_handle_stop(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Slow(Stops):
        async def handle_recv(self, data: Frames) -> None:
            self.seen.note("begin")
            await self.call_async("list")
            self.seen.note("end")

    hold = fake_circusd.hold("list")
    running = run_plugin(Slow, seen=seen, **{"host.graceful_timeout": PATIENCE})
    fake_circusd.publish("web", "spawn")
    fake_circusd.publish("web", "reap")
    assert seen.take() == "begin"
    hold.wait()
    stopper = threading.Thread(target=running.stop)
    stopper.start()
    running.wait(lambda status: status.state == "stopping")
    hold.release()
    stopper.join(PATIENCE)
    assert seen.take() == "end"
    assert seen.take()[0] == "handle_stop"
    assert seen.empty


# Without a host.


@pytest.fixture
def alone(fake_circusd: FakeCircusd, seen: Seen) -> Iterator[Callable[..., Any]]:
    """Make a plugin for `start()` by hand; it is stopped at the end."""
    with contextlib.ExitStack() as stack:

        def make(plugin_class: type[CircusPlugin], **config: Any) -> CircusPlugin:
            plugin = plugin_class(
                fake_circusd.endpoint, fake_circusd.pubsub_endpoint, 5.0, None, seen=seen, **config
            )
            stack.callback(plugin.stop)
            return plugin

        yield make


def test_start_runs_the_plugin_on_the_calling_thread_until_stop(
    alone: Callable[..., Any], fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Plain(Stops):
        def handle_init(self) -> None:
            self.seen.note(threading.current_thread().name)

    plugin = alone(Plain)
    assert not plugin.running
    thread = threading.Thread(target=plugin.start, name="by hand")
    thread.start()
    assert seen.take() == "by hand"
    fake_circusd.wait_subscribed()
    fake_circusd.publish("web", "spawn")
    assert seen.take() == "spawn"
    assert plugin.running
    assert plugin.call("list")["watchers"] == []
    plugin.stop()  # returns when it has stopped
    assert seen.take() == ("handle_stop", "by hand")
    plugin.stop()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert not plugin.running
    assert seen.empty


def test_a_plugin_started_by_hand_may_stop_itself(
    alone: Callable[..., Any], fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class StopsItself(Stops):
        def handle_init(self) -> None:
            self.loop.add_callback(self.stop)

    plugin = alone(StopsItself)
    plugin.start()
    assert seen.take() == ("handle_stop", "MainThread")


def test_an_inactive_plugin_refuses_to_start(alone: Callable[..., Any]) -> None:
    with pytest.raises(PluginStateError, match="inactive"):
        alone(Noting, active="no").start()


def test_a_plugin_is_started_once(
    alone: Callable[..., Any], fake_circusd: FakeCircusd, seen: Seen
) -> None:
    plugin = alone(Stops)
    thread = threading.Thread(target=plugin.start)
    thread.start()
    fake_circusd.wait_subscribed()
    with pytest.raises(PluginStateError, match="make a new instance"):
        plugin.start()
    plugin.stop()
    thread.join(PATIENCE)
    with pytest.raises(PluginStateError, match="make a new instance"):
        plugin.start()


def test_a_plugin_that_was_not_started_can_be_stopped_and_not_call(
    alone: Callable[..., Any],
) -> None:
    plugin = alone(Stops)
    with pytest.raises(PluginStateError, match="not connected"):
        plugin.call("list")
    plugin.stop()
    plugin.stop()
    assert plugin.loop.is_closed()
    with pytest.raises(PluginStateError, match="make a new instance"):
        plugin.start()


def test_a_class_without_handle_recv_is_refused_by_name() -> None:
    class Deaf(CircusPlugin):
        pass

    with pytest.raises(PluginLoadError, match=r"Deaf has no handle_recv\(self, data\)"):
        load_plugin_class(Deaf)


_PROGRAM = """
import sys
from circusplug import CircusPlugin

class Plain(CircusPlugin):
    def handle_init(self):
        print("init", flush=True)
    def handle_recv(self, data):
        print(self.parse_event(data).action, flush=True)
    def handle_stop(self):
        print("stop", flush=True)

plugin = Plain(*sys.argv[1:], 5.0)
try:
    plugin.start()
except KeyboardInterrupt:
    print("interrupted", flush=True)
finally:
    plugin.stop()
print("done", flush=True)
"""


@pytest.mark.parametrize(
    ("number", "lines"),
    [(signal.SIGTERM, "stop\ndone\n"), (signal.SIGINT, "stop\ninterrupted\ndone\n")],
    ids=["SIGTERM", "SIGINT"],
)
def test_a_signal_stops_a_plugin_started_by_hand_on_the_main_thread(
    number: signal.Signals, lines: str, fake_circusd: FakeCircusd
) -> None:
    arguments = [fake_circusd.endpoint, fake_circusd.pubsub_endpoint]
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "init\n"
            fake_circusd.wait_subscribed()
            fake_circusd.publish("web", "spawn")
            assert process.stdout.readline() == "spawn\n"
            process.send_signal(number)
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (0, lines, "")
