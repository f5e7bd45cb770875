# Recorder: what it writes of a circusd's life, and that nothing secret gets out.

from __future__ import annotations

import gzip
import json
import os
import resource
from pathlib import Path
from typing import Any

import pytest
from fixture_types import Run
from patience import wait_while

from circusplug.plugins import Recorder
from circusplug.testing import FakeCircusd
from circusplug.testing._recording import Recording


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "traffic.jsonl"


def lines(path: Path) -> list[dict[str, Any]]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in data.splitlines()]


def keys(path: Path) -> list[str]:
    """What each line is about."""
    return [next(key for key in one if key != "at") for one in lines(path)]


def test_the_state_at_the_start_events_as_they_came_and_the_end(
    fake_circusd: FakeCircusd, run_plugin: Run, path: Path
) -> None:
    fake_circusd.add_watcher("Big One", cmd="x", env={"A": "b"}, api_key="k")
    running = run_plugin(Recorder, filename=path, clock="virtual")
    running.advance(1.5)
    running.publish("big_one", "updated", number=1)
    fake_circusd.publish_raw(b"watcher.web.x", b'{"a":1}')
    fake_circusd.publish_raw(b"watcher.web.x", b'{"\xff')
    fake_circusd.publish_raw(b"watcher.web.x", b'{"a":' + b"[" * 100_000)
    running.advance(1)
    running.stop()
    head, options, figures, event, odd, binary, deep, end = lines(path)
    assert (head["recording"], head["version"], head["check_delay"]) == ("circusplug", 1, 5.0)
    assert (head["started"], head["endpoint"]) == (1_800_000_000, fake_circusd.endpoint)
    watcher = options["options"]["Big One"]
    assert (watcher["cmd"], watcher["env"], watcher["api_key"]) == ("x", {"A": "****"}, "****")
    assert options["globaloptions"]["check_delay"] == 5.0
    assert figures["status"] == {"Big One": "active"}
    (pid,) = fake_circusd.pids("Big One")
    assert figures["stats"]["Big One"][str(pid)]["pid"] == pid
    assert figures["dstats"]["cmdline"] == "circusd"
    assert event == {
        "at": 1.5,
        "event": "watcher.big_one.updated",
        "payload": {"time": 1_800_000_001.5, "number": 1},
    }
    assert [sorted(one) for one in (odd, binary, deep)] == [["at", "frames"]] * 3
    assert end["end"]
    assert end["at"] >= 2.5
    with Recording(path, pytest.fail) as recording:
        assert [one.payload for one in recording if hasattr(one, "payload")][1:3] == [
            b'{"a":1}', b'{"\xff',
        ]  # fmt: skip


def test_figures_as_often_as_asked_for_and_for_how_long(
    fake_circusd: FakeCircusd, run_plugin: Run, path: Path
) -> None:
    fake_circusd.add_watcher("web")
    running = run_plugin(Recorder, filename=path, stats="10", seconds="35", clock="virtual")
    running.advance(34.9)
    assert [one["at"] for one in lines(path) if "stats" in one] == [0.0, 10.0, 20.0, 30.0]
    fake_circusd.silence("stats", count=1)
    running.advance(0.1)
    running.wait(lambda status: status.state == "stopped")
    assert keys(path)[-1] == "end"


def test_a_circusd_that_does_not_tell_costs_figures_only(
    fake_circusd: FakeCircusd, run_plugin: Run, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    fake_circusd.add_watcher("web")
    fake_circusd.silence("globaloptions", count=1)
    fake_circusd.silence("stats", count=1)
    running = run_plugin(Recorder, filename=path, stats="10", clock="virtual")
    running.publish("web", "reap")
    running.advance(30)
    assert "circusd does not tell of its watchers: globaloptions: no reply" in caplog.text
    assert "no figures this time: stats: no reply" in caplog.text
    assert keys(path)[:2] == ["recording", "event"]
    assert keys(path).count("status") == 2


def test_changed_options_are_written_once(
    fake_circusd: FakeCircusd, run_plugin: Run, path: Path
) -> None:
    fake_circusd.add_watcher("web")
    fake_circusd.add_watcher("db")
    running = run_plugin(Recorder, filename=path, clock="virtual")
    running.plugin.loop.add_callback(
        running.plugin.cast, "set", name="web", options={"max_retry": 1, "graceful_timeout": 2}
    )
    running.advance(1)
    fake_circusd.exit_process("db")  # a process in its place changes nothing
    running.advance(1)
    changed = [one["options"] for one in lines(path) if "options" in one][1:]
    assert [list(one) for one in changed] == [["web"]]
    assert changed[0]["web"]["max_retry"] == 1
    fake_circusd.add_watcher("new")
    running.publish("new", "add")
    running.publish("gone", "add")
    running.advance(1)
    assert list([one["options"] for one in lines(path) if "options" in one][2]) == ["new"]


@pytest.mark.parametrize(
    ("action", "written"),
    [*((one, 1) for one in ("add", "start", "updated", "spawn", "kill")), ("reap", 0)],
)
def test_options_are_asked_for_after_what_may_change_them(
    action: str, written: int, fake_circusd: FakeCircusd, run_plugin: Run, path: Path
) -> None:
    fake_circusd.add_watcher("Big One")
    running = run_plugin(Recorder, filename=path, clock="virtual")
    running.advance(1)
    fake_circusd.clear()
    fake_circusd.reply("options", {"options": {"numprocesses": 9}})
    for _ in range(3):
        running.publish("Big One", action)
    running.advance(1)
    assert keys(path)[3:] == ["event"] * 3 + ["options"] * written
    assert [one.command for one in fake_circusd.commands].count("options") == written


def test_one_that_is_gone_hides_no_other(
    fake_circusd: FakeCircusd, run_plugin: Run, path: Path
) -> None:
    for name in ("gone", "web"):
        fake_circusd.add_watcher(name)
    no = {"status": "error", "reason": "not found", "errno": 3}
    fake_circusd.reply("options", no, name="gone")
    run_plugin(Recorder, filename=path, clock="virtual").advance(1)
    assert list(lines(path)[1]["options"]) == ["web"]


def test_no_secret_of_circusds_own_options_is_written(
    fake_circusd: FakeCircusd, run_plugin: Run, path: Path
) -> None:
    fake_circusd.add_watcher("web")
    fake_circusd.reply("globaloptions", {"options": {"api_key": "hush", "warmup_delay": 0}})
    running = run_plugin(Recorder, filename=path, rotate_size="1K", keep=99, clock="virtual")
    running.advance(1)
    for _ in range(30):
        running.publish("web", "reap", process_pid=7, exit_code=1)
    running.stop()
    written = [one.read_text() for one in path.parent.iterdir()]
    assert len(written) > 2
    assert all('"api_key": "****"' in text and "hush" not in text for text in written)


def test_a_file_that_is_too_small_for_the_figures_is_not_begun_anew_for_ever(
    fake_circusd: FakeCircusd, run_plugin: Run, path: Path
) -> None:
    fake_circusd.add_watcher("web")
    running = run_plugin(Recorder, filename=path, rotate_size=1, keep=99, clock="virtual")
    running.advance(1)
    fake_circusd.clear()
    running.publish("web", "reap")
    running.advance(1)
    assert [one.command for one in fake_circusd.commands] == ["status", "stats", "dstats"]
    running.stop()
    written = [keys(one) for one in path.parent.iterdir()]
    assert ["recording", "options", "status"] in written


def test_lines_that_are_lost_at_the_end_are_told_of(
    run_plugin: Run, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(_: bytes) -> None:
        raise OSError("full")

    running = run_plugin(Recorder, filename=path, clock="virtual")
    monkeypatch.setattr(running.plugin._file, "write", write)
    running.publish("web", "reap")
    running.stop()
    assert f"{path}: 2 lines were lost" in caplog.text


def test_a_file_whose_head_cannot_be_written_is_refused_and_closed(run_plugin: Run) -> None:
    running = run_plugin(Recorder, filename="/dev/full", raise_errors=False)
    assert "'filename': [Errno 28]" in str(running.status.last_error)


def test_a_circusd_that_comes_back(fake_circusd: FakeCircusd, run_plugin: Run, path: Path) -> None:
    fake_circusd.add_watcher("web")
    running = run_plugin(Recorder, filename=path, clock="virtual")
    running.advance(1)
    fake_circusd.restart()
    running.advance(1)
    assert keys(path) == ["recording", "options", "status", "circusd", "options", "status"]


def test_each_of_several_files_can_be_read_by_itself(
    fake_circusd: FakeCircusd, run_plugin: Run, path: Path
) -> None:
    fake_circusd.add_watcher("web")
    running = run_plugin(Recorder, filename=path, rotate_size="3K", keep="2", clock="virtual")
    for number in range(100):
        running.publish("web", "reap", process_pid=number, exit_code=1)
    running.advance(1)
    running.stop()
    names = sorted(one.name for one in path.parent.iterdir())
    assert names == ["traffic.jsonl", "traffic.jsonl.1", "traffic.jsonl.2"]
    for name in names:
        assert keys(path.parent / name)[:2] == ["recording", "options"]
        assert "status" in keys(path.parent / name)
        assert (path.parent / name).stat().st_size < 3500


def test_a_compressed_file_can_be_read_at_any_time(
    fake_circusd: FakeCircusd, run_plugin: Run, tmp_path: Path
) -> None:
    path = tmp_path / "traffic.jsonl.gz"
    running = run_plugin(Recorder, filename=path, clock="virtual")
    for number in range(100):
        running.publish("web", "reap", process_pid=number, exit_code=1)
    warnings: list[str] = []
    with Recording(path, warnings.append) as recording:  # as after kill -9
        assert sum(hasattr(one, "topic") for one in recording) == 100
    assert len(warnings) == 1
    assert path.stat().st_size < 5000
    running.stop()
    assert keys(path)[-1] == "end"


def test_a_file_that_is_there_is_continued(
    fake_circusd: FakeCircusd, run_plugin: Run, path: Path
) -> None:
    fake_circusd.add_watcher("web")
    for _ in range(2):
        running = run_plugin(Recorder, filename=path)
        running.publish("web", "reap")
        running.wait_handled(1)
        running.stop()
    assert keys(path) == ["recording", "options", "status", "event", "end"] * 2


def test_a_file_that_cannot_be_written(run_plugin: Run, tmp_path: Path) -> None:
    running = run_plugin(Recorder, filename=tmp_path, raise_errors=False)
    assert "'filename'" in str(running.status.last_error)
    assert "Is a directory" in str(running.status.last_error)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_full_disk_costs_lines_and_is_told_of(
    suffix: str,
    run_plugin: Run,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / f"traffic{suffix}"
    running = run_plugin(Recorder, filename=path, clock="virtual")
    running.publish("web", "reap", process_pid=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, hard))
    try:
        for pid in (2, 3, 4):
            running.publish("web", "reap", process_pid=pid, text="x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    running.publish("web", "reap", process_pid=5)
    running.stop()
    pids = [one["payload"]["process_pid"] for one in lines(path) if "event" in one]
    # What a compressed file has taken in is written when there is room again.
    assert pids == ([1, 2, 5] if suffix else [1, 5])
    assert "lines are lost" in caplog.text
    assert f"{path}: 3 lines were lost" in caplog.text


def test_what_is_measured_here_is_recorded(
    fake_circusd: FakeCircusd, run_plugin: Run, path: Path
) -> None:
    psutil = pytest.importorskip("psutil")
    me = psutil.Process()
    info = {"pid": me.pid, "create_time": me.create_time(), "cpu": 0.0, "children": []}
    fake_circusd.add_watcher("web")
    fake_circusd.reply("stats", {"infos": {"web": {str(os.getpid()): info, "spawn_count": 3}}})
    run_plugin(Recorder, filename=path)
    wait_while(lambda: "status" not in keys(path))
    (figures,) = (one for one in lines(path) if "status" in one)
    assert figures["stats"]["web"]["spawn_count"] == 3
    measured = figures["stats"]["web"][str(os.getpid())]["measured"]
    assert measured["memory"] > 1024**2
    assert measured["cpu"] is None  # the first figure has nothing to count from
