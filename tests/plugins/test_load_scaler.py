# LoadScaler by the number that a command prints, and its dry run. By CPU it is tested in
# test_load_scaler_by_cpu.py.

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from bundled import Journal, do, let_pass
from circusd_real import RealCircusd
from fixture_types import Run
from patience import PATIENCE

from circusplug import Arbiter, SpecError
from circusplug.plugins import LoadScaler
from circusplug.plugins._command_number import CommandNumber
from circusplug.plugins._delivery import DeliveryError
from circusplug.testing import FakeCircusd, RunningPlugin


@pytest.fixture
def web(fake_circusd: FakeCircusd) -> FakeCircusd:
    fake_circusd.add_watcher("web", numprocesses=2)
    return fake_circusd


def scale(run_plugin: Run, command: Any, **options: Any) -> RunningPlugin:
    usual = {"min_processes": 1, "max_processes": 4, "period": 0.01, "command_timeout": PATIENCE}
    return run_plugin(LoadScaler, watcher="web", command=command, **{**usual, **options})


def changes(circusd: FakeCircusd) -> list[str]:
    return [each.command for each in circusd.commands if each.command in ("incr", "decr")]


@pytest.mark.parametrize(
    ("number", "change", "count"), [("101", "incr", 3), (" 9.5\n", "decr", 1), ("-1e3", "decr", 1)]
)
def test_it_goes_by_the_number_that_the_command_prints(
    number: str, change: str, count: int, web: FakeCircusd, run_plugin: Run, journal: Journal
) -> None:
    scale(run_plugin, ["printf", "%s", number], up_above="100", down_below=10)
    assert web.wait_command(change).properties == {"name": "web", "nb": 1}
    journal.wait(f"web: printf says {float(number):g}, 2 -> {count} processes")
    assert "stats" not in [each.command for each in web.commands]


def test_between_the_thresholds_and_within_the_cooldown_nothing_happens(
    web: FakeCircusd, run_plugin: Run, tmp_path: Path
) -> None:
    queue = tmp_path / "queue"
    queue.write_text("50")
    scale(run_plugin, f"cat {queue}", cooldown=1000)
    web.wait_command("get", count=3)
    assert changes(web) == []
    queue.with_suffix(".new").write_text("90")
    queue.with_suffix(".new").replace(queue)
    web.wait_command("incr")
    web.clear()
    web.wait_command("get", count=3)
    assert changes(web) == []


@pytest.mark.parametrize("number", ["80", "20"])
def test_on_a_threshold_nothing_happens(number: str, web: FakeCircusd, run_plugin: Run) -> None:
    scale(run_plugin, f"echo {number}")
    web.wait_command("get", count=3)
    assert changes(web) == []


def test_two_looks_at_once_change_the_number_once(web: FakeCircusd, run_plugin: Run) -> None:
    running = scale(run_plugin, "echo 99", cooldown=1000, period=1e6)
    look = running.plugin.look
    do(running, lambda: asyncio.gather(look(), look()))
    assert changes(web) == ["incr"]


def test_a_number_outside_the_bounds_is_corrected_within_the_cooldown_too(
    web: FakeCircusd, run_plugin: Run
) -> None:
    running = scale(run_plugin, "echo 99", cooldown=1000, period=1e6)
    do(running, running.plugin.look)
    web.reply("get", {"options": {"numprocesses": 9}})
    do(running, running.plugin.look)
    assert changes(web) == ["incr", "decr"]


def test_trouble_and_a_dry_run_are_told_again_when_all_was_well_meanwhile(
    web: FakeCircusd, run_plugin: Run, journal: Journal, tmp_path: Path
) -> None:
    queue = tmp_path / "queue"
    running = scale(run_plugin, f"cat {queue}", cooldown=0, period=1e6, dry_run="yes")
    for text in ("", "50", "", "99", "50", "99"):
        queue.write_text(text)
        do(running, running.plugin.look)
    assert str(journal.messages).count("printed no number") == 2
    assert str(journal.messages).count("if this were no dry run") == 2


def test_a_command_that_was_given_up_before_it_began_is_killed() -> None:
    delivery = CommandNumber(["sleep", "1000"])
    delivery.abort()
    with pytest.raises(DeliveryError, match="exit code -9"):
        delivery.run()


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("false", "command 'false': exit code 1"),
        ("sh -c 'echo 99; exit 3'", "command 'sh': exit code 3"),
        ("echo 99 messages", "it printed no number, but '99 messages'"),
        ("true", "it printed no number, but ''"),
        ("echo nan", "it printed no number, but 'nan'"),
        ("echo inf", "it printed no number, but 'inf'"),
        (["printf", r"\377"], r"it printed no number, but '\\xff'"),
        ("yes", "it printed no number, but 'y"),
    ],
)
def test_a_command_that_fails_or_prints_rubbish_is_told_once_and_nothing_is_scaled(
    command: Any, told: str, web: FakeCircusd, run_plugin: Run, journal: Journal, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    program = f'echo >> {mark}; exec "$@"'
    wanted = shlex.split(command) if isinstance(command, str) else command
    running = scale(run_plugin, ["sh", "-c", program, "sh", *wanted], min_processes=3)
    journal.wait(told.replace("command 'false'", "command 'sh'"))
    runs = 0
    while runs < 4:
        runs = mark.read_text().count("\n")
    running.stop()
    assert str(journal.messages).count("trying again every") == 1
    assert changes(web) == []
    assert running.errors == []


def test_it_goes_on_when_the_command_works_again(
    web: FakeCircusd, run_plugin: Run, journal: Journal, tmp_path: Path
) -> None:
    scale(run_plugin, f"cat {tmp_path / 'queue'}")
    journal.wait("command 'cat': exit code 1; trying again every 0.01 s")
    (tmp_path / "new").write_text("99\n")
    (tmp_path / "new").replace(tmp_path / "queue")
    web.wait_command("incr")


def test_a_command_that_takes_too_long_is_killed_with_all_its_children(
    web: FakeCircusd, run_plugin: Run, journal: Journal, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "first").touch()
    # The FIFO ends for its reader when the last of them is gone.
    program = (
        'rm "$0"/first || exec echo 50; exec 3> "$0"/fifo; echo begun >&3; sleep 1000 & sleep 1000'
    )
    running = scale(run_plugin, ["sh", "-c", program, str(tmp_path)], command_timeout=1000)
    with open(tmp_path / "fifo") as fifo:
        assert fifo.readline() == "begun\n"
        let_pass(running, 1000)
        assert fifo.read() == ""
    journal.wait("command 'sh': not done within 1000 s; trying again every 0.01 s")
    assert changes(web) == []


def test_a_command_that_runs_at_the_stop_is_killed(
    web: FakeCircusd, run_plugin: Run, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    command = ["sh", "-c", 'exec 3> "$0"; echo begun >&3; sleep 1000', str(tmp_path / "fifo")]
    running = scale(run_plugin, command)
    with open(tmp_path / "fifo") as fifo:
        assert fifo.readline() == "begun\n"
        running.stop()
        assert fifo.read() == ""


def test_a_program_that_there_is_not_is_one_line(run_plugin: Run) -> None:
    with pytest.raises(SpecError) as caught:
        scale(run_plugin, "no-such-program -x")
    assert str(caught.value).endswith("'command': there is no program 'no-such-program' here")


@pytest.mark.parametrize(
    ("number", "bounds", "told"),
    [
        ("99", {}, "web: echo says 99, 2 -> 3 processes, if this were no dry run"),
        ("1", {}, "web: echo says 1, 2 -> 1 processes, if this were no dry run"),
        ("50", {"min_processes": 4}, "web: fewer than min_processes (4), 2 -> 4 processes, if"),
    ],
)
def test_a_dry_run_tells_once_and_changes_nothing(
    number: str,
    bounds: dict[str, int],
    told: str,
    web: FakeCircusd,
    run_plugin: Run,
    journal: Journal,
) -> None:
    running = scale(run_plugin, f"echo {number}", dry_run="yes", cooldown=0, **bounds)
    journal.wait(told)
    web.clear()
    web.wait_command("get", count=4)
    running.stop()
    assert changes(web) == []
    assert str(journal.messages).count("dry run") == 1


def test_a_queue_that_fills_and_empties_scales_a_real_watcher(
    journal: Journal, tmp_path: Path
) -> None:
    (tmp_path / "queue").write_text("x\n" * 90)
    count = "import sys; print(len(open(sys.argv[1]).readlines()))"
    plugin = {"use": LoadScaler, "watcher": "my app", "max_processes": 3, "cooldown": 0}
    plugin["command"] = [sys.executable, "-c", count, str(tmp_path / "queue")]
    plugin["period"] = 0.1
    with (
        RealCircusd({"My App": {"numprocesses": 1}}) as circusd,
        Arbiter([plugin], circusd.endpoint, circusd.pubsub_endpoint),
    ):
        journal.wait("says 90, 2 -> 3 processes")
        assert len(circusd.call("list", name="My App")["pids"]) == 3
        (tmp_path / "queue").write_text("")
        journal.wait("says 0, 2 -> 1 processes")
        reply = circusd.call("get", name="My App", keys=["numprocesses"])
        assert reply["options"]["numprocesses"] == 1
