# What is left of `circusplug up` when its processes are killed, in every combination: nothing. A
# watcher, a plugin on a thread and an isolated one hold a FIFO open, and everybody the stream that
# the host prints to; the end of both is the proof.

from __future__ import annotations

import itertools
import os
import re
import signal
from pathlib import Path

import psutil
import pytest
from circusd_real import free_endpoints
from command import Fifo, Running, assert_ends, environment, plugin, write_ini

PROCESSES = ("host", "circusd", "guard", "forkserver")

#: A plugin that leaves marks on disk, wherever what it prints may go.
MARKERS = """\
from tellers import Holder


class Marker(Holder):
    def mark(self, what):
        with open(self.config["marks"], "a") as marks:
            marks.write(f"{self.config['name']} {what}\\n")

    def handle_init(self):
        super().handle_init()
        self.mark("begins")

    def handle_stop(self):
        self.mark("stops")
"""


def combinations() -> list[tuple[str, ...]]:
    """Every set of victims, in both orders."""
    found = []
    for count in range(len(PROCESSES) + 1):
        for victims in itertools.combinations(PROCESSES, count):
            found += sorted({victims, victims[::-1]})
    return found


@pytest.mark.parametrize("victims", combinations(), ids="+".join)
def test_nothing_is_left_whoever_is_killed(tmp_path: Path, victims: tuple[str, ...]) -> None:
    temporary, marks, script = tmp_path / "tmp", tmp_path / "marks", tmp_path / "hold.sh"
    temporary.mkdir()
    (tmp_path / "markers.py").write_text(MARKERS)
    with Fifo(tmp_path / "fifo") as fifo:
        script.write_text(f"exec 3>{fifo.path}\necho up >&3\nexec sleep 120\n")
        options = {"fifo": fifo.path, "marks": marks, "host_restart_delay": 0.01}
        sections = [
            f"[watcher:holds]\ncmd = sh {script}\nnumprocesses = 2\n",
            plugin("thread", "markers.Marker", **options),
            plugin("isolated", "markers.Marker", isolate="yes", **options),
        ]
        path = write_ini(tmp_path, *free_endpoints(2), *sections)
        quiet = environment(PYTHONWARNINGS="", TMPDIR=str(temporary))
        with Running(tmp_path, "up", path, env=quiet) as command:
            fifo.wait_held(4)
            host = psutil.Process(command.pid)
            pids = processes(command)
            everybody = {host.pid, *(process.pid for process in host.children(recursive=True))}
            assert set(pids.values()) <= everybody
            for victim in victims:
                os.kill(pids[victim], signal.SIGKILL)
            if set(victims) <= {"forkserver"}:
                if victims:
                    fifo.wait_held()  # the isolated plugin's next life
                command.signal(signal.SIGTERM)
            assert_ends(*everybody)
            assert command.end() in expected_statuses(victims)
        fifo.wait_unheld()
    assert list(temporary.iterdir()) == []
    lines = marks.read_text().splitlines()
    # A new life of the isolated plugin may just have begun when the host heard of another death.
    assert lines.count("plugin:isolated stops") == lines.count("plugin:isolated begins") >= 1
    if "host" not in victims:
        assert lines.count("plugin:thread stops") == 1


def processes(command: Running) -> dict[str, int]:
    """The number of each of the processes that are not a plugin's or a watcher's."""
    found = re.search(r"circusd runs, process (\d+)", command.wait_for("circusd runs, process"))
    assert found is not None
    circusd = int(found[1])
    guard = psutil.Process(circusd).ppid()
    children = [child.pid for child in psutil.Process(command.pid).children()]
    (forkserver,) = [pid for pid in children if pid != guard]
    return dict(zip(PROCESSES, (command.pid, circusd, guard, forkserver), strict=True))


def expected_statuses(victims: tuple[str, ...]) -> set[int]:
    """What `up` ends with: a failure if circusd, or its guard, has ended unasked."""
    failure = 1 if {"circusd", "guard"} & {*victims} else 0
    if "host" not in victims:
        return {failure}
    # One that is killed last may have ended by itself, as its circusd had gone a moment before.
    return {-signal.SIGKILL} | ({failure} if victims[0] != "host" and failure else set())
