# When the virtual clock stands: for what is real, and is on its way. So a test has one trace.

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any

import pytest
from diary import Diary, Event, notes_of, takes_real_time

from circusplug.testing import FakeCircusd, _virtual_clock, run_plugin


@pytest.mark.parametrize("way", ["called", "awaited"])
def test_a_call_without_a_reply_ends_at_its_deadline(way: str) -> None:
    with run_plugin(Diary, clock="virtual") as plugin:
        diary: Diary = plugin.plugin
        plugin.circusd.silence("status")
        diary.later(10, way, "status")
        diary.later(20, way, "list")
        plugin.advance(14.999)
        assert notes_of(plugin) == []
        plugin.advance(10)
        assert notes_of(plugin) == [(15, "status timed out"), (20, "list answered")]


@pytest.mark.parametrize("way", ["called", "awaited"])
def test_the_clock_stands_while_a_reply_is_on_its_way(way: str) -> None:
    with run_plugin(Diary, clock="virtual") as plugin:
        diary: Diary = plugin.plugin
        plugin.circusd.reply("list", takes_real_time)
        for moment in range(5):
            diary.later(moment, way, "list", timeout=0.001)
        plugin.advance(10)
        assert notes_of(plugin) == [(moment, "list answered") for moment in range(5)]


@pytest.mark.parametrize("way", ["called", "awaited"])
def test_a_late_reply_comes_at_its_moment(way: str) -> None:
    for _ in range(12):  # what the reply wakes must not let the clock run before the test does
        with run_plugin(Diary, clock="virtual") as plugin:
            diary: Diary = plugin.plugin
            plugin.circusd.late("list", 3.0)
            plugin.circusd.late("status", 6.0)
            diary.later(1, way, "list")
            diary.later(10, way, "status")
            plugin.advance(60)
            assert notes_of(plugin) == [(4, "list answered"), (15, "status timed out")]


@pytest.mark.parametrize("way", ["called", "awaited"])
def test_a_held_reply_comes_when_it_is_released(way: str) -> None:
    with run_plugin(Diary, clock="virtual") as plugin:
        diary: Diary = plugin.plugin
        hold = plugin.circusd.hold("list")
        diary.later(1, way, "list")
        plugin.advance(3)
        assert (hold.count, notes_of(plugin)) == (1, [])
        hold.release()
        assert notes_of(plugin) == [(3, "list answered")]


class Worker(Diary):
    """Has things done elsewhere, with a deadline that a real clock would miss."""

    async def work(self, way: str) -> None:
        if way == "executor":
            work: Any = self.loop.run_in_executor(None, takes_real_time)
            await asyncio.wait_for(work, 0.001)
        else:
            done = asyncio.Event()
            post = self.loop.call_soon_threadsafe
            thread = threading.Thread(target=lambda: (takes_real_time(), post(done.set)))
            thread.start()
            with self.loop.outside():
                await asyncio.wait_for(done.wait(), 0.001)
            thread.join()
        self.note(way)


@pytest.mark.parametrize("way", ["executor", "thread"])
def test_the_clock_stands_while_a_thread_works(way: str) -> None:
    with run_plugin(Worker, clock="virtual") as plugin:
        plugin.plugin.loop.call_later(5, plugin.plugin.loop.add_callback, plugin.plugin.work, way)
        plugin.advance(10)
        assert notes_of(plugin) == [(5, way)]


def test_the_clock_stands_while_circusd_comes_and_goes() -> None:
    class Reader(Diary):
        def handle_reconnect(self) -> None:
            self.note("back")
            self.called("list")

    with run_plugin(Reader, clock="virtual") as plugin:
        diary: Diary = plugin.plugin
        diary.later(50, "called", "status", timeout=30)
        plugin.at(40, plugin.circusd.stop)
        plugin.at(3600, plugin.circusd.start)
        plugin.at(3600, plugin.publish, "web", "spawn")
        plugin.at(4000, plugin.circusd.restart)
        plugin.at(4000, plugin.publish, "web", "reap")
        plugin.advance(5000)
        assert notes_of(plugin) == [
            (80, "status timed out"),
            (3600, "back"),
            (3600, "list answered"),
            (3600, "web spawn"),
            (4000, "back"),
            (4000, "list answered"),
            (4000, "web reap"),
        ]


def test_a_plugin_that_does_not_come_to_rest_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_virtual_clock, "PATIENCE", 0.05)
    gate = threading.Event()

    class Stuck(Diary):
        def handle_recv(self, data: Event) -> None:
            gate.wait(60)

    with run_plugin(Stuck, clock="virtual") as plugin:
        with pytest.raises(AssertionError, match=r"stands at 0 s, 0.05 s in vain: .*busy"):
            plugin.publish("web", "reap")
        gate.set()
        plugin.advance(1)
        outside = plugin.plugin.loop.outside()
        plugin.plugin.loop.add_callback(outside.__enter__)
        with pytest.raises(AssertionError, match=r"stands at 1 s, .* outside the plugin's loop"):
            plugin.advance(1)


def test_a_circusd_that_is_stuck_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    def wait(_: object) -> dict[str, Any]:
        gate.wait(60)
        return {}

    with run_plugin(Diary, clock="virtual") as plugin:
        plugin.circusd.reply("list", wait)
        plugin.plugin.later(1, "called", "list")
        monkeypatch.setattr(_virtual_clock, "PATIENCE", 0.05)
        with pytest.raises(AssertionError, match=r"stands at 1 s, .* a reply of the fake circusd"):
            plugin.advance(1)
        gate.set()
        plugin.advance(0)
        assert notes_of(plugin) == [(1, "list answered")]


class Crowd(Diary):
    """Fifty timers, some of which call circusd, and events that lead to more."""

    def handle_init(self) -> None:
        for number in range(40):
            self.loop.call_later(number * 1.3, self.loop.add_callback, self.act, number)
        for number in range(10):
            self.periodic(lambda number=number: self.note(f"period {number}"), 3 + number / 4)

    async def act(self, number: int) -> None:
        self.note(f"timer {number}")
        await (asyncio.sleep(0.7) if number % 3 else self.awaited("list", timeout=0.5))
        if number % 5 == 0:
            self.called("incr", name="web", timeout=0.25)
        self.cast("status")
        self.note(f"done {number}")

    def handle_recv(self, data: Event) -> Any:
        event = self.parse_event(data)
        self.note(f"{event.watcher} {event.action} {event.payload.get('number')}")
        self.loop.call_soon(self.note, "soon")
        self.loop.add_callback(self.awaited, "stats", timeout=0.1)
        return asyncio.sleep(0.05) if event.action == "reap" else None


def trace_of_a_crowd() -> list[tuple[float, str]]:
    """What a plugin does in a minute that has everything in it, with 200 events at least."""
    dice = random.Random(4711)
    with FakeCircusd(["web"]) as circusd, run_plugin(Crowd, circusd, clock="virtual") as plugin:
        circusd.silence("stats", count=7)
        circusd.late("list", 0.3, count=5)
        for _ in range(140):
            action = dice.choice(("reap", "spawn", "kill"))
            plugin.at(
                dice.randrange(600) / 10, circusd.publish, "web", action, number=dice.random()
            )
        for _ in range(20):
            plugin.at(
                dice.random() * 60, circusd.publish_many, 3, "db", dice.choice(("reap", "stop"))
            )
        plugin.advance(61)
        assert plugin.counters.received >= 200
        return notes_of(plugin)


def test_the_same_test_gives_the_same_trace_each_time() -> None:
    first = trace_of_a_crowd()
    for _ in range(2):
        assert trace_of_a_crowd() == first
