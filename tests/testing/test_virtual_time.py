# Plugins in virtual time: all that a plugin waits for is one sequence, whatever it waits with.

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import Any

import pytest
from diary import Diary, Event, notes_of, takes_real_time

from circusplug import HostError
from circusplug._errors import PluginStateError
from circusplug.testing import FakeCircusd, _virtual_clock, run_plugin


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


def test_a_circusd_can_have_one_such_plugin_after_the_other(fake_circusd: FakeCircusd) -> None:
    for _ in range(2):
        with run_plugin(Waiter, fake_circusd, clock="virtual") as plugin:
            plugin.advance(600)
            assert notes_of(plugin) == [(600, "sleep")]


class Unborn(Diary):
    def handle_init(self) -> None:
        raise ZeroDivisionError


def test_a_plugin_that_cannot_start_gives_its_circusd_back(fake_circusd: FakeCircusd) -> None:
    with pytest.raises(ZeroDivisionError), run_plugin(Unborn, fake_circusd, clock="virtual"):
        pass
    with run_plugin(Diary, fake_circusd, clock="virtual"):
        pass


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


def test_a_plugin_that_stops_itself_ends_its_tasks_in_real_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Stops(Diary):
        def handle_recv(self, data: Event) -> None:
            self.task = self.loop.create_task(self.linger())
            self.loop.call_soon(self.loop.call_soon, self.stop)

        async def linger(self) -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await asyncio.sleep(3600)

    monkeypatch.setattr("circusplug._plugin.worker.TASK_GRACE", 0.05)
    with run_plugin(Stops, clock="virtual") as plugin:
        plugin.circusd.publish("web", "reap")
        plugin.wait(lambda status: status.state == "stopped")


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
        assert plugin.plugin.now() == _virtual_clock.EPOCH + 40
        assert notes_of(plugin) == [(40, "web spawn")]


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
        for no_number in (lambda: plugin.advance(math.nan), lambda: plugin.at(math.nan, print)):
            with pytest.raises(ValueError, match="nan"):
                no_number()
        plugin.at(11, plugin.advance, 1)
        with pytest.raises(PluginStateError, match="being advanced already"):
            plugin.advance(1)
        plugin.advance(1)  # it can go on
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
