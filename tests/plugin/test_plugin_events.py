# How a plugin gets its events: in order, its exceptions contained, garbage counted, and only
# the topics that it asks for.

from __future__ import annotations

import asyncio
import datetime
import logging
from typing import Any

import pytest
from fixture_types import Run
from noting_plugins import Frames, Noting, Seen

from circusplug import CircusPlugin, EventError
from circusplug.testing import FakeCircusd


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
