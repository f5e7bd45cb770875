# The built-in plugins under the real host: against a FakeCircusd, and the two that change
# something against a real circusd as well.

from __future__ import annotations

import contextlib
import io
import itertools
import json
import queue
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from bundled import MOMENT, Journal
from circusd_real import RealCircusd
from patience import PATIENCE

from circusplug import Arbiter, CircusPlugin, Event, SpecError
from circusplug.plugins import Alert, LoadScaler, Logger
from circusplug.plugins._deaths import DeathWatch, Flap
from circusplug.testing import FakeCircusd, RunningPlugin

Run = Callable[..., RunningPlugin]

CONFLICT = {"status": "error", "reason": "arbiter is already running watcher_stop", "errno": 5}


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class TestOptions:
    @pytest.mark.parametrize(
        ("plugin", "options", "message"),
        [
            (Logger, {"format": "xml"}, "'format': 'xml' is none of text, json, logfmt"),
            (
                Logger,
                {"filename": "/nowhere/events.log"},
                "'filename': [Errno 2] No such file or directory: '/nowhere/events.log'",
            ),
            (Alert, {"attempts": "few"}, "'attempts': 'few' is not a whole number"),
            (Alert, {"attempts": 2.5}, "'attempts': 2.5 is not a whole number"),
            (Alert, {"attempts": "0"}, "'attempts': '0' is less than 1"),
            (
                Alert,
                {"window": "1 century"},
                "'window': '1 century' is not a number of seconds; write 90, 1.5 min or 2h",
            ),
            (
                Alert,
                {"window": "nan"},
                "'window': 'nan' is not a number of seconds of 0 or more",
            ),
            (Alert, {"deadline": 0}, "'deadline': 0 must be more than 0"),
            (
                Alert,
                {"what": "crash, crahs"},
                "'what': 'crahs' is none of crash, flapping, gave_up, start_failed, hook_failed, "
                "plugin_failed (did you mean 'crash'?)",
            ),
            (
                Alert,
                {"command": "mail 'ops"},
                "'command': \"mail 'ops\" cannot be split into arguments: No closing quotation",
            ),
            (
                Alert,
                {"command": "no-such-program -x"},
                "'command': there is no program 'no-such-program' here",
            ),
            (
                Alert,
                {"watchers": 3},
                "'watchers': 3 is not names, separated by commas",
            ),
            (
                Alert,
                {"attempts": "0", "quite": "9", "window": "-1"},
                "'attempts': '0' is less than 1; 'window': '-1' is not a number of seconds of 0 or "
                "more; there is no option 'quite' (did you mean 'quiet'?)",
            ),
            (Alert, {"smtp_port": "70000"}, "'smtp_port': '70000' is more than 65535"),
            (LoadScaler, {}, "'watcher' is missing; give the name of the watcher to scale"),
            (
                LoadScaler,
                {"watcher": "web", "min_processes": "4", "max_processes": "3"},
                "'min_processes' (4) is more than 'max_processes' (3)",
            ),
            (
                LoadScaler,
                {"watcher": "web", "up_above": "8%0"},
                "'up_above': '8%0' is not a number of percent",
            ),
            (
                LoadScaler,
                {"watcher": "web", "up_above": " 10 %"},
                "'down_below' (20) must be less than 'up_above' (10)",
            ),
            (
                LoadScaler,
                {"watcher": "web", "up_above": "20"},
                "'down_below' (20) must be less than 'up_above' (20)",
            ),
        ],
    )
    def test_a_value_that_does_not_fit_is_told_in_one_line_without_a_traceback(
        self,
        plugin: type[CircusPlugin],
        options: dict[str, Any],
        message: str,
        fake_circusd: FakeCircusd,
        journal: Journal,
    ) -> None:
        spec = {"use": plugin, "name": "it", "host.restart": "never", **options}
        with Arbiter([spec], fake_circusd.endpoint, fake_circusd.pubsub_endpoint) as arbiter:
            arbiter.wait(lambda plugins: plugins["it"].state == "failed")
            assert (arbiter.plugins["it"].last_error or "").endswith(message)
        record = journal.wait(message)
        assert record.exc_info is None
        assert "\n" not in record.getMessage()

    def test_the_error_names_the_option_for_programs_too(self, run_plugin: Run) -> None:
        with pytest.raises(SpecError) as caught:
            run_plugin(Alert, quiet="long")
        assert caught.value.key == "quiet"

    @pytest.mark.parametrize("plugin", [Logger, Alert, LoadScaler])
    def test_an_option_that_there_is_not_is_refused(self, plugin: type[CircusPlugin]) -> None:
        circus = {"use_sockets": "true", "rlimit_core": "1", "stdout_stream.class": "x"}
        config = {"watcher": "web"} if plugin is LoadScaler else {}
        plugin.check_config({**config, **circus})
        with pytest.raises(SpecError) as caught:
            plugin.check_config({**config, **circus, "colour": "red", "x y": ""})
        first, second = map(str, caught.value.problems)
        assert first.startswith("there is no option 'colour'; there are ")
        assert second == "there is no option 'x y'"

    def test_one_that_looks_misspelt_is_refused_with_a_guess(self) -> None:
        with pytest.raises(SpecError) as caught:
            Alert.check_config({"windw": "3"})
        assert str(caught.value) == "there is no option 'windw' (did you mean 'window'?)"

    def test_options_may_be_text_or_typed(self, run_plugin: Run) -> None:
        text = run_plugin(LoadScaler, name="a", watcher="web", max_processes="9", period="7").plugin
        typed = run_plugin(LoadScaler, name="b", watcher="web", max_processes=9, period=7.0).plugin
        assert text.options == typed.options
        assert (text.options.max_processes, text.options.period) == (9, 7.0)


@pytest.mark.circusd_leaves
@pytest.mark.usefixtures("utc")
class TestLogger:
    def test_an_event_is_a_line_of_text(self, run_plugin: Run, tmp_path: Path) -> None:
        running = run_plugin(Logger, filename=str(tmp_path / "log"))
        running.publish("web", "reap", process_pid=123, exit_code=-9, time=MOMENT)
        running.wait_handled(1)
        assert (
            tmp_path / "log"
        ).read_text() == "2026-01-02 03:04:05 web reap pid=123 exit_code=-9\n"

    def test_an_event_is_a_line_of_json_if_asked_for(self, run_plugin: Run, tmp_path: Path) -> None:
        running = run_plugin(Logger, filename=str(tmp_path / "log"), format="json")
        running.publish("My App", "reap", process_pid=123, exit_code=-9, time=MOMENT)
        running.wait_handled(1)
        (line,) = (tmp_path / "log").read_text().splitlines()
        assert json.loads(line) == {
            "time": MOMENT,
            "watcher": "my_app",
            "action": "reap",
            "process_pid": 123,
            "exit_code": -9,
        }

    def test_plugins_are_watchers_too_and_an_event_without_a_time_is_of_now(
        self, run_plugin: Run, tmp_path: Path
    ) -> None:
        path = tmp_path / "log"
        running = run_plugin(Logger, filename=str(path), format="json", clock="virtual")
        running.advance(5)
        running.circusd.publish_raw(b"watcher.plugin:x.spawn", b"{}")
        running.advance(0)
        line = json.loads(path.read_text())
        assert (line["watcher"], line["time"]) == ("plugin:x", running.plugin.now())

    def test_a_value_that_would_be_ambiguous_is_quoted(
        self, run_plugin: Run, tmp_path: Path
    ) -> None:
        running = run_plugin(Logger, filename=str(tmp_path / "log"))
        values = {"name": "before", "error": "no such file", "a": "b=c", "d": "\n", "none": ""}
        running.publish("web", "hook_failure", **values, time=MOMENT)
        running.wait_handled(1)
        (line,) = (tmp_path / "log").read_text().splitlines()
        assert line.endswith(
            r'web hook_failure name=before error="no such file" a="b=c" d="\n" none=""'
        )

    @pytest.mark.parametrize("form", ["text", "json"])
    @pytest.mark.parametrize(
        ("topic", "message"),
        [
            (b"watcher.web.reap", b"{not json"),
            (b"watcher.web", b"{}"),
            (b"watcher..reap", b"{}"),
            (b"watcher.web.reap", b'{"time": "now", "process_pid": "x"}'),
            (b"watcher.web.reap", b'{"time": 1e300}'),
            (b"watcher.web.reap", b'{"time": 1e999}'),
            (b"watcher.web.reap", b'{"time": 1' + b"0" * 400 + b"}"),
            (b"watcher.web.reap", b'{"time": -1e15}'),
            (b"watcher.web.reap", b'{"cpu": NaN}'),
            (b"watcher.web.reap", b'{"deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
            (b"watcher.web.reap", b'{"error": "\\ud800 \\u0000 \\n"}'),
            (b"watcher.we\nb\xff.re ap", b'{"a\\nb": {"c": [null]}, "watcher": "x"}'),
            (b"watcher.web.reap", b'{"error": "\xff"}'),
        ],
    )
    def test_an_odd_message_is_a_line_as_well(
        self, topic: bytes, message: bytes, form: str, run_plugin: Run, tmp_path: Path
    ) -> None:
        running = run_plugin(Logger, filename=str(tmp_path / "log"), format=form)
        running.circusd.publish_raw(topic, message)
        running.publish("web", "stop", time=MOMENT)
        running.wait_handled(2)
        odd, end = (tmp_path / "log").read_bytes().decode().splitlines()
        assert "stop" in end
        if form == "json":
            fields = json.loads(odd, parse_constant=pytest.fail)
            assert (fields["action"], fields["watcher"]) in (
                ("reap", "web"),
                ("re ap", "we\nb\ufffd"),
                ("unreadable", None),
            )

    def test_standard_output_is_the_default_and_each_line_is_there_at_once(
        self, run_plugin: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        buffer = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, "ascii"))
        running = run_plugin(Logger)
        running.publish("Bär", "start", time=MOMENT)
        running.wait_handled(1)
        assert buffer.getvalue() == rb"2026-01-02 03:04:05 b\xe4r start" + b"\n"
        running.stop()
        assert not sys.stdout.closed

    def test_a_file_that_was_moved_away_is_made_anew(self, run_plugin: Run, tmp_path: Path) -> None:
        log, old = tmp_path / "log", tmp_path / "log.1"
        running = run_plugin(Logger, filename=str(log))
        running.publish("web", "stop", time=MOMENT)
        running.wait_handled(1)
        log.rename(old)
        running.publish("web", "start", time=MOMENT)
        running.wait_handled(2)
        assert old.read_text().endswith(" web stop\n")
        assert log.read_text() == "2026-01-02 03:04:05 web start\n"

    @pytest.mark.parametrize("options", [{}, {"rotate_size": "1M"}, {"rotate_every": "hour"}])
    def test_a_file_that_cannot_be_written_is_told_once_and_tried_for_each_line(
        self, options: dict[str, str], run_plugin: Run, tmp_path: Path, journal: Journal
    ) -> None:
        directory, elsewhere = tmp_path / "logs", tmp_path / "elsewhere"
        directory.mkdir()
        running = run_plugin(Logger, filename=str(directory / "log"), **options)
        directory.rename(elsewhere)
        for _ in range(3):
            running.publish("web", "stop", time=MOMENT)
        running.wait_handled(3)
        elsewhere.rename(directory)
        running.publish("web", "start", time=MOMENT)
        running.wait_handled(4)
        assert (directory / "log").read_text() == "2026-01-02 03:04:05 web start\n"
        journal.wait("3 lines were lost")
        assert str(journal.messages).count("cannot write to") == 1

    @pytest.mark.parametrize("form", ["text", "json"])
    def test_a_line_tells_that_events_may_be_missing_when_circusd_comes_back(
        self, form: str, run_plugin: Run, tmp_path: Path
    ) -> None:
        running = run_plugin(Logger, filename=str(tmp_path / "log"), format=form)
        running.circusd.restart()
        running.wait(lambda status: status.counters.reconnects == 1)
        running.stop()
        (line,) = (tmp_path / "log").read_text().splitlines()
        assert "reconnect" in line
        assert "events before this line may be missing" in line

    def test_the_file_is_closed_when_the_plugin_stops(
        self, run_plugin: Run, tmp_path: Path
    ) -> None:
        running = run_plugin(Logger, filename=str(tmp_path / "log"))
        opened = [file.path for file in psutil.Process().open_files()]
        assert str(tmp_path / "log") in opened
        running.stop()
        opened = [file.path for file in psutil.Process().open_files()]
        assert str(tmp_path / "log") not in opened


def reap(moment: float, pid: int = 7, watcher: str = "web") -> Event:
    return Event(watcher, "reap", {"process_pid": pid, "exit_code": 1}, moment)


def kill(moment: float, pid: int = 7) -> Event:
    return Event("web", "kill", {"process_pid": pid}, moment)


class TestDeathWatch:
    def observe(self, *events: Event, attempts: int = 2) -> list[Flap]:
        watch = DeathWatch(kill_grace=60.0)
        crashes = [event for event in events if watch.is_crash(event)]
        return [flap for event in crashes if (flap := watch.count(event, attempts, 10.0))]

    def test_so_many_deaths_within_the_window_are_too_many(self) -> None:
        (flap,) = self.observe(reap(1), reap(5), reap(11), attempts=3)
        assert (flap.watcher, flap.deaths, flap.seconds) == ("web", 3, 10)

    def test_deaths_further_apart_are_not(self) -> None:
        assert not self.observe(reap(1), reap(5), reap(11.1), reap(15.1), attempts=3)

    def test_each_watcher_has_its_own_count(self) -> None:
        assert not self.observe(reap(1), reap(2, watcher="other"))

    def test_the_count_begins_anew_after_that(self) -> None:
        assert len(self.observe(reap(1), reap(2), reap(3))) == 1
        assert len(self.observe(reap(1), reap(2), reap(3), reap(4))) == 2

    def test_a_process_that_circusd_killed_did_not_die_by_itself(self) -> None:
        assert not self.observe(kill(1), reap(2), kill(3, 8), reap(4, 8), reap(5, 9))

    def test_only_the_killed_process_is_excused_and_only_once(self) -> None:
        assert self.observe(kill(1, 8), reap(2), reap(3))
        assert self.observe(kill(1), reap(2), reap(3), reap(4))

    def test_a_signal_that_a_process_survived_does_not_excuse_its_crash_later(self) -> None:
        assert self.observe(kill(1), kill(1, 8), reap(62), reap(62, 8))

    def test_a_new_process_with_an_old_number_is_not_excused(self) -> None:
        spawn = Event("web", "spawn", {"process_pid": 7}, 2)
        assert self.observe(kill(1), spawn, reap(3), reap(4, 8))

    def test_old_kills_are_forgotten(self) -> None:
        watch = DeathWatch(60.0)
        for moment in range(1000):
            watch.is_crash(kill(moment, pid=moment))
        assert len(watch._killed) == 61

    def test_a_clock_that_is_set_back_makes_no_alarm_and_does_not_stop_the_count(self) -> None:
        assert not self.observe(reap(100), reap(1))
        assert self.observe(reap(100), reap(1), reap(2))

    @pytest.mark.parametrize(
        ("code", "words"),
        [
            (3, "with exit code 3"),
            (-9, "of SIGKILL"),
            (-99, "of signal 99"),
            (None, "in a way that circusd did not see"),
        ],
    )
    def test_the_description_tells_how_the_last_one_died(self, code: Any, words: str) -> None:
        last = Event("my_app", "reap", {"process_pid": 7, "exit_code": code}, 5)
        text = Flap("my_app", 3, 4.0, last).describe("My App")
        assert text == f"My App: 3 processes died within 4 s, the last one (pid 7) {words}"


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
        assert set(running.plugin._meter._known) == {me.pid}
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


class Witness(CircusPlugin):
    """Passes on what it hears."""

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        event = self.parse_event(data)
        self.config["heard"].put(f"{event.watcher} {event.action}")


@contextlib.contextmanager
def witnessed(circusd: RealCircusd, plugin: dict[str, Any]) -> Iterator[Callable[[str], None]]:
    """Run a plugin at a real circusd; gives a function that waits for an event.

    No event of what the plugin does is missed.
    """
    heard: queue.SimpleQueue[str] = queue.SimpleQueue()

    def wait(wanted: str) -> None:
        while heard.get(timeout=PATIENCE) != wanted:
            pass

    plugins = [{"use": Witness, "heard": heard}]
    with Arbiter(plugins, circusd.endpoint, circusd.pubsub_endpoint) as arbiter:
        while heard.empty():  # a real circusd does not tell when a subscription has arrived
            circusd.call("set", name="My App", options={"max_retry": 5})
            with contextlib.suppress(TimeoutError):
                arbiter.wait(lambda _: not heard.empty(), 0.05)
        arbiter.add_plugin(plugin)
        yield wait


class TestRealCircusd:
    def test_an_idle_watcher_is_scaled_down_and_its_lower_bound_kept(
        self, journal: Journal
    ) -> None:
        plugin = {"use": LoadScaler, "watcher": "my app", "period": "0.3", "cooldown": "0"}
        plugin |= {"min_processes": "1", "max_processes": "3"}
        with (
            RealCircusd({"My App": {"numprocesses": 2}}) as circusd,
            witnessed(circusd, plugin) as wait,
        ):
            wait("my_app kill")
            journal.wait("my app: load 0.0 %, 2 -> 1 processes")
            reply = circusd.call("get", name="My App", keys=["numprocesses"])
            assert reply["options"]["numprocesses"] == 1
