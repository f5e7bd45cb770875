# Meter: what is taken from circusd, what is measured here, and of which process.

from __future__ import annotations

import contextlib
import os
import time
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from circusplug.plugins._processes import Meter, Usage
from circusplug.plugins._watchers import Patterns

ME = psutil.Process()
INFO = {"pid": ME.pid, "create_time": ME.create_time(), "cpu": 3.0, "mem_info1": "1B"}


class Process:
    """One of psutil's that is as the test wants it."""

    def __init__(self, running: bool = True, memory: float = 5.0, created: float = 100.0) -> None:
        self.is_running = lambda: running
        self.create_time = lambda: created
        self.memory_info = lambda: SimpleNamespace(rss=memory)
        self.cpu_percent = lambda: 7.0
        self.num_fds = self.num_threads = lambda: 1
        self.oneshot = contextlib.nullcontext
        self.pid = 4000001

    def children(self, recursive: bool = False) -> list[Process]:
        child, grandchild = Process(), Process()
        grandchild.pid = 4000002
        return [child, grandchild] if recursive else [child]


def with_known(process: Process, pid: int = 7) -> Any:
    meter = Meter(local=True)
    meter._known[pid] = process
    return meter


def test_what_circusd_tells_is_taken_where_nothing_is_measured() -> None:
    told = {"pid": 7, "cpu": 1.0, "mem": 1.5, "mem_info1": "2M", "age": 3}
    assert Meter(local=False).of(told) == Usage(7, 1.0, 2 * 2**20, 1.5, age=3.0)
    gone = {**told, "pid": 2**22 + 1, "create_time": 100.0}
    assert Meter(local=True).of(gone).memory == 2 * 2**20


def test_what_is_measured_is_in_the_units_of_circusd() -> None:
    usage = Meter(local=True).of(INFO)
    assert usage.memory
    assert usage.memory > 2**20
    assert usage.memory_percent == pytest.approx(100 * usage.memory / psutil.virtual_memory().total)
    assert usage.age == pytest.approx(time.time() - ME.create_time(), abs=30)


@pytest.mark.parametrize(("off", "measured"), [(0.9, True), (-0.9, True), (1.1, False)])
def test_two_looks_at_a_start_may_differ_by_a_second(off: float, measured: bool) -> None:
    usage = Meter(local=True).of({**INFO, "create_time": ME.create_time() + off})
    assert (usage.files is not None) is measured


def test_a_new_process_with_an_old_number_is_measured_anew() -> None:
    usage = with_known(Process(running=False), ME.pid).of(INFO)
    assert usage.cpu is None
    assert usage.memory > 2**20


def test_one_that_is_about_to_end_is_not_measured() -> None:
    told = {"pid": 7, "create_time": 100.0, "cpu": 3.0}
    assert with_known(Process()).of(told).cpu == 7.0
    assert with_known(Process(memory=0)).of(told).cpu == 3.0


def test_a_family_is_all_that_a_process_and_its_children_have_started() -> None:
    meter = with_known(Process())
    for pid in (4000001, 4000002):
        meter._known[pid] = Process()
    info = {"pid": 7, "create_time": 100.0}
    assert meter.family_of(info).memory == 15.0
    recorded = meter.to_record(info)
    assert recorded["measured"]["memory"] == 5.0
    assert [one["pid"] for one in recorded["children"]] == [4000001, 4000002]
    assert [one["measured"]["cpu"] for one in recorded["children"]] == [7.0, 7.0]
    elsewhere = Meter(local=False)
    assert elsewhere.of(recorded).files == 1
    assert elsewhere.family_of(recorded).memory == 15.0


def test_the_processes_of_a_recording_are_not_measured() -> None:
    for replaying in (False, True):
        plugin: Any = SimpleNamespace(
            endpoint="tcp://[::1]:5555", ssh_server=None, replaying=replaying
        )
        usage = Meter.of_plugin(plugin).of({**INFO, "pid": os.getpid()})
        assert (usage.files is None) is replaying


def test_a_pattern_may_have_a_set_of_letters_and_none_at_all_fits_nothing() -> None:
    some, none = Patterns(["web-[12]", "My App"]), Patterns([])
    assert not some.plain
    assert [some.match(name) for name in ("web-1", "web-3", "my_app")] == [True, False, True]
    assert not none.match("web")
    assert not none.match("")
