# What the system tells of a process and of a thread.

from __future__ import annotations

import os
import subprocess
import threading
import time

import psutil
import pytest
from patience import PATIENCE

from circusplug._control import figures as figures_module
from circusplug._control.figures import Figures


def test_a_process_has_the_figures_that_psutil_tells_too() -> None:
    told = Figures().of(os.getpid(), None, "a command")
    known = psutil.Process()
    assert told["pid"] == os.getpid()
    assert told["cmdline"] == "a command"
    assert told["username"] == known.username()
    assert told["nice"] == known.nice()
    assert told["create_time"] == pytest.approx(known.create_time(), abs=2)
    assert told["age"] == pytest.approx(time.time() - known.create_time(), abs=5)
    assert told["mem"] == pytest.approx(known.memory_percent(), rel=0.5)
    assert told["mem_info1"].endswith("M")
    virtual = float(told["mem_info2"][:-1]) * {"M": 2**20, "G": 2**30}[told["mem_info2"][-1]]
    assert virtual == pytest.approx(known.memory_info().vms, rel=0.2)
    assert told["children"] == []


def test_a_thread_has_its_own_cpu_and_its_process_memory() -> None:
    done, idle_may_end = threading.Event(), threading.Event()
    numbers: dict[str, int] = {}
    ready = threading.Barrier(3)

    def compute() -> None:
        numbers["busy"] = threading.get_native_id()
        ready.wait(PATIENCE)
        end = time.thread_time() + 0.3
        while time.thread_time() < end:
            sum(range(1000))
        done.set()
        idle_may_end.wait(PATIENCE)

    def idle() -> None:
        numbers["idle"] = threading.get_native_id()
        ready.wait(PATIENCE)
        idle_may_end.wait(PATIENCE)

    threads = [threading.Thread(target=compute), threading.Thread(target=idle)]
    for thread in threads:
        thread.start()
    figures = Figures()
    ready.wait(PATIENCE)
    for number in numbers.values():
        figures.of(os.getpid(), number, "")
    assert done.wait(PATIENCE)
    busy, quiet, again = (
        figures.of(os.getpid(), numbers[name], "") for name in ("busy", "idle", "busy")
    )
    idle_may_end.set()
    for thread in threads:
        thread.join()
    assert busy["cpu"] > quiet["cpu"]
    assert quiet["cpu"] < 5
    assert again["cpu"] < 5  # it has waited since, and the other one's figures are not its own
    assert busy["ctime"] >= "0:00.20"
    assert busy["mem_info1"] == pytest.approx(quiet["mem_info1"]) or busy["mem"] > 0


def test_cpu_is_what_was_used_since_it_was_asked_for_the_last_time() -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        figures = Figures()
        figures.of(process.pid, None, "")
        assert figures.of(process.pid, None, "")["cpu"] == 0
        process.kill()


@pytest.mark.parametrize("thread", [None, 1])
def test_what_is_gone_has_no_figures(thread: int | None) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
        told = Figures().of(process.pid, thread, "gone")
    assert (told["pid"], told["cpu"], told["mem"], told["age"]) == (process.pid, *["N/A"] * 3)


def test_a_process_whose_name_has_brackets_and_blanks_is_read(tmp_path: object) -> None:
    program = f"{tmp_path}/a ) b (c"
    os.symlink("/bin/sleep", program)
    with subprocess.Popen([program, "1000"]) as process:
        try:
            assert Figures().of(process.pid, None, "")["nice"] == os.nice(0)
        finally:
            process.kill()


def test_figures_of_processes_long_gone_are_forgotten() -> None:
    figures = Figures()
    for number in range(20_000):
        figures._percent((number, 0), 1.0, 0.0)
    assert len(figures._last) <= 10_001


def test_cpu_is_first_what_was_used_since_the_start_and_never_less_than_nothing() -> None:
    figures, now = Figures(), time.time()
    assert figures._percent((1, 0), 500.0, now - 1000) == pytest.approx(50, abs=5)
    assert figures._percent((2, 0), 7.0, now + 100) > 0  # the clock was set back
    assert figures._percent((1, 0), 1.0, now) == 0  # the number is another process's by now


def test_figures_that_are_asked_for_stay() -> None:
    figures = Figures()
    figures._percent((1, 0), 1.0, 0.0)
    for number in range(2, 15_000):
        figures._percent((number, 0), 1.0, 0.0)
        if number % 1000 == 0:
            assert (1, 0) in figures._last
            figures._percent((1, 0), 1.0, 0.0)


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(figures_module.pwd, "getpwuid", absent)
    assert Figures().of(os.getpid(), None, "")["username"] == str(os.getuid())


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (1023, "1023B"),
        (1024, "1.00K"),
        (1536 * 1024, "1.50M"),
        (5 * 1024**3, "5.00G"),
        (2048 * 1024**3, "2048.00G"),
    ],
)
def test_a_size_has_the_unit_that_fits(size: int, shown: str) -> None:
    assert figures_module._size(size) == shown
