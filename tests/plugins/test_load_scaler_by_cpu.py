# LoadScaler by the CPU load: which figures count, its bounds, its cooldown, and circusd's return.

from __future__ import annotations

import itertools
from typing import Any

import psutil
import pytest
from bundled import Journal
from fixture_types import Run

from circusplug.plugins import LoadScaler
from circusplug.testing import FakeCircusd, RunningPlugin

CONFLICT = {"status": "error", "reason": "arbiter is already running watcher_stop", "errno": 5}


class TimedScaler(LoadScaler):
    """A scaler whose clock is the test's."""

    now = 0.0

    def clock(self) -> float:  # type: ignore[override]
        return self.now


class TestLoadScaler:
    @pytest.fixture
    def web(self, fake_circusd: FakeCircusd) -> FakeCircusd:
        fake_circusd.add_watcher("web", numprocesses=2)
        return fake_circusd

    def scale(self, run_plugin: Run, **options: Any) -> RunningPlugin:
        options = {"min_processes": 1, "max_processes": 4, "period": 0.01, **options}
        return run_plugin(TimedScaler, watcher="web", **options)

    def looks(self, circusd: FakeCircusd, count: int) -> list[str]:
        """Wait for `count` looks to be over; return the commands that change something."""
        circusd.wait_command("stats", count=count + 1)
        return [each.command for each in circusd.commands if each.command in ("incr", "decr")]

    def test_a_process_is_added_above_the_upper_bound(
        self, web: FakeCircusd, run_plugin: Run, journal: Journal
    ) -> None:
        web.set_stats("web", cpu=85.0)
        self.scale(run_plugin, up_above="80")
        command = web.wait_command("incr")
        assert command.properties == {"name": "web", "nb": 1}
        journal.wait("web: load 85.0 %, 2 -> 3 processes")

    def test_a_process_is_removed_below_the_lower_bound(
        self, web: FakeCircusd, run_plugin: Run
    ) -> None:
        web.set_stats("web", cpu=19.9)
        self.scale(run_plugin, down_below="20")
        assert web.wait_command("decr").properties == {"name": "web", "nb": 1}

    def test_the_load_is_the_mean_and_between_the_bounds_nothing_happens(
        self, web: FakeCircusd, run_plugin: Run
    ) -> None:
        low, high = web.pids("web")
        web.set_stats("web", low, cpu=10.0)
        web.set_stats("web", high, cpu=110.0)
        self.scale(run_plugin)
        assert self.looks(web, 5) == []

    @pytest.mark.parametrize(("cpu", "end"), [(100.0, 4), (0.0, 1)])
    def test_it_goes_to_a_bound_and_never_beyond(
        self, cpu: float, end: int, web: FakeCircusd, run_plugin: Run
    ) -> None:
        web.set_stats("web", cpu=cpu)
        self.scale(run_plugin, cooldown=0)
        # After a change the figures of new processes come one look later.
        assert len(self.looks(web, 12)) == abs(end - 2)
        assert len(web.pids("web")) == end

    @pytest.mark.parametrize(
        ("bounds", "count", "why"),
        [
            ((3, 4), 3, "fewer than min_processes (3)"),
            ((0, 1), 1, "more than max_processes (1)"),
        ],
    )
    def test_a_number_outside_the_bounds_is_corrected_whatever_the_load(
        self,
        bounds: tuple[int, int],
        count: int,
        why: str,
        web: FakeCircusd,
        run_plugin: Run,
        journal: Journal,
    ) -> None:
        web.set_stats("web", cpu="N/A")
        self.scale(run_plugin, min_processes=bounds[0], max_processes=bounds[1])
        assert len(self.looks(web, 3)) == 1
        assert len(web.pids("web")) == count
        journal.wait(f"web: {why}, 2 -> {count} processes")

    def test_without_a_maximum_what_is_there_already_is_left(
        self, web: FakeCircusd, run_plugin: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("os.cpu_count", lambda: 1)
        web.set_stats("web", cpu=100.0)
        run_plugin(TimedScaler, watcher="web", period=0.01, cooldown=0)
        assert self.looks(web, 5) == []
        assert len(web.pids("web")) == 2
        web.set_stats("web", cpu=0.0)
        web.wait_command("decr")
        web.set_stats("web", cpu=100.0)
        web.clear()
        assert self.looks(web, 5) == []

    def test_without_a_maximum_it_goes_up_to_the_number_of_cpus(
        self, web: FakeCircusd, run_plugin: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("os.cpu_count", lambda: 4)
        web.set_stats("web", cpu=100.0)
        run_plugin(TimedScaler, watcher="web", period=0.01, cooldown=0)
        assert self.looks(web, 12) == ["incr"] * 2
        assert len(web.pids("web")) == 4

    def test_without_a_maximum_there_may_be_more_than_cpus_if_so_many_are_the_least(
        self, web: FakeCircusd, run_plugin: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("os.cpu_count", lambda: 1)
        web.set_stats("web", cpu="N/A")
        run_plugin(TimedScaler, watcher="web", period=0.01, min_processes=5)
        assert web.wait_command("incr").properties["nb"] == 3

    def test_what_processes_have_started_counts_with_them(
        self, web: FakeCircusd, run_plugin: Run
    ) -> None:
        web.set_stats("web", cpu=1.0, children=[{"pid": 4000001, "cpu": 99.0}])
        self.scale(run_plugin)
        web.wait_command("incr")

    def test_a_process_that_is_gone_is_forgotten(self, web: FakeCircusd, run_plugin: Run) -> None:
        me = psutil.Process()
        web.reply("stats", {"info": {str(me.pid): {"create_time": me.create_time()}}})
        running = self.scale(run_plugin)
        self.looks(web, 2)
        assert me.pid in running.plugin._meter._known  # and what this process has started, if any
        web.reply("stats", {"info": {}})
        running.wait(lambda _: not running.plugin._meter._known)

    def test_what_counts_is_how_many_there_should_be_not_how_many_run(
        self, web: FakeCircusd, run_plugin: Run
    ) -> None:
        web.set_stats("web", cpu=100.0)
        info = {"info": {"7": {"cpu": 100.0}}}
        web.reply("stats", info)  # one of two runs
        self.scale(run_plugin, max_processes=2)
        assert self.looks(web, 5) == []

    def test_a_figure_that_is_not_available_is_left_out_of_the_mean(
        self, web: FakeCircusd, run_plugin: Run
    ) -> None:
        gone = "No such process (stopped?)"
        web.reply("stats", {"info": {"1": {"cpu": "N/A"}, "2": {"cpu": 99.0}, "3": gone, "4": {}}})
        self.scale(run_plugin)
        assert web.wait_command("incr").properties["nb"] == 1

    def test_without_any_figure_nothing_happens(self, web: FakeCircusd, run_plugin: Run) -> None:
        web.set_stats("web", cpu="N/A")
        self.scale(run_plugin)
        assert self.looks(web, 5) == []

    def test_the_first_figure_of_a_process_is_left_out(
        self, web: FakeCircusd, run_plugin: Run
    ) -> None:
        pids = itertools.count()
        web.reply("stats", lambda _: {"info": {str(next(pids)): {"cpu": 0.0}}})
        self.scale(run_plugin)
        assert self.looks(web, 5) == []

    def test_the_watcher_is_left_alone_for_the_cooldown(
        self, web: FakeCircusd, run_plugin: Run
    ) -> None:
        web.set_stats("web", cpu=100.0)
        running = self.scale(run_plugin, cooldown=60)
        web.wait_command("incr")
        assert self.looks(web, 8) == ["incr"]
        running.plugin.now = 59.9
        web.clear()
        assert self.looks(web, 3) == []
        running.plugin.now = 60.0
        web.wait_command("incr")

    def test_a_conflict_is_tried_again_without_a_word(
        self, web: FakeCircusd, run_plugin: Run, journal: Journal
    ) -> None:
        web.set_stats("web", cpu=100.0)
        web.reply("incr", CONFLICT, count=3)
        self.scale(run_plugin, cooldown=60)
        web.wait_command("incr", count=4)
        journal.wait("2 -> 3 processes")
        assert "arbiter is already running" not in str(journal.messages)

    def test_an_unknown_watcher_is_told_once_and_waited_for(
        self, fake_circusd: FakeCircusd, run_plugin: Run, journal: Journal
    ) -> None:
        self.scale(run_plugin, min_processes=3)
        fake_circusd.wait_command("stats", count=3)
        fake_circusd.add_watcher("web")
        assert fake_circusd.wait_command("incr").properties["nb"] == 2
        journal.wait("1 -> 3 processes")
        assert str(journal.messages).count("program web not found") == 1

    def test_a_singleton_is_told(
        self, fake_circusd: FakeCircusd, run_plugin: Run, journal: Journal
    ) -> None:
        fake_circusd.add_watcher("web", singleton=True)
        self.scale(run_plugin, min_processes=2)
        journal.wait("a singleton cannot be scaled")

    def test_it_looks_afresh_when_circusd_comes_back(
        self, web: FakeCircusd, run_plugin: Run, journal: Journal
    ) -> None:
        web.set_stats("web", cpu=100.0)
        running = self.scale(run_plugin, cooldown=1000, period=1000)
        look, later = running.plugin.look, running.plugin.loop.add_callback
        later(look)
        later(look)
        journal.wait("2 -> 3 processes")
        web.clear()
        web.restart()
        web.wait_command("get")
        later(look)
        web.wait_command("incr")  # the cooldown is forgotten, and so are the figures
        names = [each.command for each in web.commands]
        assert names == ["stats", "get", "stats", "get", "incr"]

    def test_it_brings_the_number_back_into_bounds_as_soon_as_circusd_comes_back(
        self, web: FakeCircusd, run_plugin: Run
    ) -> None:
        running = self.scale(run_plugin, period=1000)
        web.stop()
        running.wait(lambda status: not status.connected)
        web.reply("get", {"options": {"numprocesses": 9}})  # another circusd, as it were
        web.start()
        assert web.wait_command("decr").properties == {"name": "web", "nb": 5}

    def test_circusd_being_gone_is_no_error_of_the_plugin(
        self, web: FakeCircusd, run_plugin: Run, journal: Journal
    ) -> None:
        class HastyScaler(TimedScaler):
            async def call_async(self, *args: Any, **props: Any) -> Any:  # type: ignore[override]
                return await super().call_async(*args, timeout=0.05, **props)

        running = run_plugin(HastyScaler, watcher="web", period=0.01)
        web.stop()
        journal.wait("circusd cannot be reached")
        assert running.errors == []
