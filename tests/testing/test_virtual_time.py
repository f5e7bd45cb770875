# Plugins in virtual time: all that a plugin waits for is one sequence, whatever it waits with.

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import subprocess
import sys
import threading
from typing import Any

import pytest

from circusplug import CallTimeout, CircusPlugin, HostError
from circusplug._errors import PluginStateError
from circusplug.testing import FakeCircusd, RunningPlugin, _virtual_clock, run_plugin

Event = tuple[bytes, bytes]


class Diary(CircusPlugin):
    """Notes what happens to it, with the moment."""

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self.notes: list[tuple[float, str]] = []

    def note(self, what: str) -> None:
        self.notes.append((round(self.loop.time(), 3), what))

    def handle_recv(self, data: Event) -> Any:
        event = self.parse_event(data)
        self.note(f"{event.watcher} {event.action}")

    def later(self, seconds: float, way: str, command: str, **properties: Any) -> None:
        """Call circusd in a while."""
        call = functools.partial(getattr(self, way), command, **properties)
        self.loop.call_later(seconds, self.loop.add_callback, call)

    def called(self, command: str, **properties: Any) -> None:
        """Note how a call of the blocking kind ends, and when."""
        try:
            self.call(command, **properties)
            self.note(f"{command} answered")
        except CallTimeout:
            self.note(f"{command} timed out")

    async def awaited(self, command: str, **properties: Any) -> None:
        """The same for one that is awaited."""
        try:
            await self.call_async(command, **properties)
            self.note(f"{command} answered")
        except CallTimeout:
            self.note(f"{command} timed out")


def takes_real_time(*_: object) -> dict[str, Any]:
    """Do something that takes a computer some time."""
    subprocess.run([sys.executable, "-c", ""], check=True)
    return {}


def notes_of(plugin: RunningPlugin) -> list[tuple[float, str]]:
    """What a `Diary` has noted since this was asked last."""
    diary: Diary = plugin.plugin
    notes, diary.notes = diary.notes, []
    return notes


class Waiter(Diary):
    """Waits with everything that there is to wait with."""

    def handle_init(self) -> None:
        self.periodic(lambda: self.note("periodic"), 1000)
        self.loop.call_later(700, self.note, "call_later")
        self.loop.add_timeout(self.loop.time() + 1500, self.note, "add_timeout")
        self.loop.add_callback(self.sleep)

    async def sleep(self) -> None:
        await asyncio.sleep(600)
        self.note("sleep")
        try:
            await asyncio.wait_for(asyncio.Event().wait(), 300)
        except asyncio.TimeoutError:
            self.note("wait_for")


def test_an_hour_of_timers_is_one_sequence_and_takes_no_time() -> None:
    with run_plugin(Waiter, clock="virtual") as plugin:
        plugin.at(650, plugin.publish, "web", "reap")
        plugin.at(700, plugin.publish, "web", "spawn")
        plugin.advance(3600)
        assert plugin.elapsed == 3600
        assert notes_of(plugin) == [
            (600, "sleep"),
            (650, "web reap"),
            (700, "call_later"),
            (700, "web spawn"),
            (900, "wait_for"),
            (1000, "periodic"),
            (1500, "add_timeout"),
            (2000, "periodic"),
            (3000, "periodic"),
        ]


def test_time_stands_between_two_advances() -> None:
    with run_plugin(Waiter, clock="virtual") as plugin:
        plugin.advance(599.5)
        takes_real_time()
        assert notes_of(plugin) == []
        plugin.advance(0.5)
        assert notes_of(plugin) == [(600, "sleep")]
        plugin.advance(0)
        assert (plugin.elapsed, notes_of(plugin)) == (600, [])


class Tornado(Diary):
    """Waits as Tornado's programs do."""

    def handle_init(self) -> None:
        ioloop = pytest.importorskip("tornado.ioloop")
        ioloop.PeriodicCallback(lambda: self.note("period"), 10_000).start()
        ioloop.IOLoop.current().call_later(25, self.note, "call_later")
        ioloop.IOLoop.current().spawn_callback(self.sleep)

    async def sleep(self) -> None:
        from tornado import gen

        await gen.sleep(15)
        self.note("gen.sleep")


def test_tornado_lives_by_the_clock_too() -> None:
    pytest.importorskip("tornado.ioloop")
    with run_plugin(Tornado, clock="virtual") as plugin:
        plugin.advance(35)
        assert notes_of(plugin) == [
            (10, "period"),
            (15, "gen.sleep"),
            (20, "period"),
            (25, "call_later"),
            (30, "period"),
        ]


class Dated(Diary):
    """Notes what time of day it is."""

    def handle_recv(self, data: Event) -> None:
        event = self.parse_event(data)
        assert event.time == self.now()
        super().handle_recv(data)


def test_the_time_of_day_and_circusds_figures_follow_the_clock() -> None:
    with FakeCircusd(["web"]) as circusd, run_plugin(Dated, circusd, clock="virtual") as plugin:
        plugin.at(86_400, plugin.publish, "web", "reload")
        plugin.at(86_401, circusd.publish_many, 2, "web", "updated")
        plugin.at(86_402, circusd.exit_process, "web")
        plugin.advance(90_000)
        diary: Dated = plugin.plugin
        assert [note for _, note in notes_of(plugin)] == [
            "web reload",
            "web updated",
            "web updated",
            "web reap",
            "web spawn",
        ]
        diary.loop.add_callback(diary.awaited, "list")
        infos: list[Any] = []
        diary.loop.add_callback(lambda: infos.append(diary.call("stats", name="web")))
        plugin.advance(0)
        (process,) = infos[0]["info"].values()
        assert process["age"] == 90_000 - 86_402
        assert infos[0]["time"] == diary.now() == _virtual_clock.EPOCH + 90_000


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


class Busy(Diary):
    """Handles each event for ten seconds, and calls back soon as well."""

    async def handle_recv(self, data: Event) -> None:
        super().handle_recv(data)
        self.loop.call_soon(self.loop.call_soon, self.note, "soon")
        await asyncio.sleep(10)


def test_events_wait_for_their_turn_while_time_passes() -> None:
    with run_plugin(Busy, clock="virtual") as plugin:
        plugin.circusd.publish_many(3, "web", "reap")
        plugin.at(5, plugin.publish, "web", "stop")
        plugin.advance(60)
        assert notes_of(plugin) == [
            (moment, what)
            for moment, event in ((0, "reap"), (10, "reap"), (20, "reap"), (30, "stop"))
            for what in (f"web {event}", "soon")
        ]
        assert plugin.counters.handled == 4


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


class Slow(Diary):
    """Takes a minute to start."""

    async def handle_init(self) -> None:
        self.periodic(lambda: self.note("tick"), 25)
        await asyncio.sleep(60)
        self.called("list")


def test_a_start_takes_the_clock_with_it() -> None:
    with FakeCircusd() as circusd:
        circusd.late("list", 2.0)
        with run_plugin(Slow, circusd, clock="virtual") as plugin:
            assert plugin.elapsed == 62
            assert notes_of(plugin) == [(25, "tick"), (50, "tick"), (62, "list answered")]


class Stubborn(Diary):
    """Is in the middle of everything when it is stopped."""

    async def handle_recv(self, data: Event) -> None:
        try:
            await asyncio.sleep(0.01)
        finally:
            self.note("handled")

    def handle_stop(self) -> None:
        self.called("list")
        self.note("stopped")


def test_a_stop_ends_in_real_time() -> None:
    with run_plugin(Stubborn, clock="virtual") as plugin:
        plugin.publish("web", "reap")
        assert notes_of(plugin) == []
    assert [what for _, what in notes_of(plugin)] == ["handled", "list answered", "stopped"]
    plugin.advance(10)  # nobody is left who would mind


class Failing(Diary):
    """Fails at the second event of each life."""

    def handle_recv(self, data: Event) -> None:
        super().handle_recv(data)
        if len(self.notes) == 2:
            raise ZeroDivisionError("second")


def test_what_a_plugin_raises_is_raised_by_what_moves_it() -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.raises(ZeroDivisionError))  # the end tells of it, too
        plugin = stack.enter_context(run_plugin(Failing, clock="virtual"))
        plugin.publish("web", "reap")
        plugin.at(30, plugin.publish, "web", "reap")
        plugin.at(40, pytest.fail, "the test went on")
        with pytest.raises(ZeroDivisionError):
            plugin.advance(60)
        assert plugin.elapsed == 30


def test_a_plugin_that_is_restarted_goes_on_by_the_same_clock() -> None:
    options: dict[str, Any] = {"host.on_error": "restart", "host.restart": "on-failure"}
    with run_plugin(Failing, clock="virtual", raise_errors=False, **options) as plugin:
        first = plugin.plugin
        plugin.at(30, plugin.publish, "web", "reap")
        plugin.at(31, plugin.publish, "web", "reap")
        plugin.advance(31)
        plugin.wait(lambda status: status.counters.restarts == 1 and status.state == "running")
        plugin.advance(9)
        plugin.publish("web", "spawn")
        assert plugin.plugin is not first
        assert notes_of(plugin) == [(40, "web spawn")]


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


def test_mistakes_get_one_clear_line() -> None:
    with run_plugin(Diary) as plugin:
        for wrong in (
            lambda: plugin.advance(1),
            lambda: plugin.at(1, print),
            lambda: plugin.elapsed,
        ):
            with pytest.raises(PluginStateError, match=r'runs in real time; .*clock="virtual"'):
                wrong()
    with pytest.raises(ValueError, match="clock='fast'"), run_plugin(Diary, clock="fast"):  # type: ignore[arg-type]
        pass
    with FakeCircusd() as circusd, run_plugin(Diary, circusd, clock="virtual") as plugin:
        plugin.advance(10)
        with pytest.raises(ValueError, match=r"only goes forward, not by -1 s"):
            plugin.advance(-1)
        with pytest.raises(ValueError, match=r"at 9 s is too late, the clock says 10 s"):
            plugin.at(9, print)
        plugin.at(11, plugin.advance, 1)
        with pytest.raises(PluginStateError, match="being advanced already"):
            plugin.advance(1)
        refused = pytest.raises(HostError, match="one plugin with a virtual clock")
        with refused, run_plugin(Diary, circusd, clock="virtual"):
            pass


def test_a_neighbour_in_real_time_does_not_disturb(fake_circusd: FakeCircusd) -> None:
    with (
        run_plugin(Diary, fake_circusd) as real,
        run_plugin(Waiter, fake_circusd, clock="virtual") as plugin,
    ):
        plugin.at(650, plugin.publish, "web", "reap")
        plugin.advance(700)
        real.wait_handled(1)
        assert notes_of(plugin) == [(600, "sleep"), (650, "web reap"), (700, "call_later")]


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
    for _ in range(29):
        assert trace_of_a_crowd() == first
