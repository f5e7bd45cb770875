# The lines that Logger writes, as text and JSON, to files and to standard output.

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import psutil
import pytest
from bundled import MOMENT, Journal
from fixture_types import Run

from circusplug.plugins import Logger


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
