# The bundled plugins under the real host: their options, the Logger's lines, deaths that are too
# many, and a LoadScaler beside a real circusd.

from __future__ import annotations

import contextlib
import io
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
