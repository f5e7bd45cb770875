# circusd's guard with a stand-in for circusd, which needs no circus.

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from patience import PATIENCE

from circusplug._circusd import guard_main
from circusplug._circusd.guard_main import Guard


def test_a_second_request_gives_circusd_less_time_and_never_more() -> None:
    guard = Guard(0, 10.0, os.getpid(), -1, -1, -1, subreaper=True)
    guard._stop_within(10.0)
    soon = guard._deadline
    guard._stop_within(100.0)
    assert guard._deadline == soon
    guard._stop_within(1.0)
    assert guard._deadline is not None
    assert soon is not None
    assert guard._deadline < soon


def test_a_host_that_has_died_before_the_guard_looks_is_noticed(tmp_path: Path) -> None:
    """Even if something else, such as what a plugin forked, holds the host's pipe open."""
    circusd = tmp_path / "circusd.py"
    circusd.write_text("import signal\nsignal.pause()\n")
    with subprocess.Popen(["true"]) as host:
        pass
    control, held_open = os.pipe()
    report, theirs = os.pipe()
    numbers = map(str, (PATIENCE, host.pid, control, theirs, 0.0))
    with open(report) as told, open(held_open, "wb"):
        guard = subprocess.Popen(
            [sys.executable, guard_main.__file__, circusd, "circus.ini", *numbers],
            pass_fds=(control, theirs),
        )
        os.close(control)
        os.close(theirs)
        try:
            assert guard.wait(PATIENCE) == 128 + signal.SIGTERM
            assert told.read() == f"exit {-signal.SIGTERM}\n"
        finally:
            guard.terminate()
            guard.wait()


def test_a_circusd_that_hangs_without_its_guard_ends_with_all_that_it_has_started() -> None:
    program = (
        "import subprocess, sys, time\n"
        "from circusplug._circusd.circusd_main import GuardWatch\n"
        "subprocess.Popen(['sleep', '100'])\n"
        "GuardWatch(int(sys.argv[1]), 0.0, lambda: None)\n"
        "time.sleep(100)\n"
    )
    life, guard = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", program, str(life)], pass_fds=[life], stdout=subprocess.PIPE
    ) as circusd:
        os.close(life)
        os.close(guard)
        circusd.communicate(timeout=PATIENCE)  # to the end of all that could print
    assert circusd.returncode == 1


# One look, one order, one wait, with a clock of the test's.


class Ward(Guard):
    """A guard of nobody, that waits by the test's clock, and what it does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, subreaper: bool = True) -> None:
        self.control, self.orders = os.pipe()
        self.told, report = os.pipe()
        self.signs, life = os.pipe()
        super().__init__(12, 10.0, os.getpid(), self.control, report, life, subreaper)
        self.now = 100.0
        self.gone_at = 1e6
        self.sent: list[Any] = []
        self.waits: list[float | None] = []
        monkeypatch.setattr(guard_main, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(guard_main, "_send", lambda *what: self.sent.append((self.now, *what)))
        monkeypatch.setattr(os, "kill", lambda *what: self.sent.append((self.now, *what)))

    def close(self) -> None:
        for fd in (self.control, self.orders, self.told, self._report, self.signs, self._life):
            if fd >= 0:
                os.close(fd)


class Waiting(Ward):
    """One that is not to look at anything but the clock."""

    def run(self) -> int:
        status = super().run()
        self._report = -1  # it has closed that
        return status

    def _watch(self) -> None:
        pass

    def _circusd_gone(self) -> bool:
        self._status = -signal.SIGKILL if self.now >= self.gone_at else None
        return self._status is not None

    def _wait(self, until: float | None) -> None:
        self.waits.append(until)
        self.now = self.gone_at if until is None else until


@pytest.fixture
def ward(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ward]:
    ward = Ward(monkeypatch)
    yield ward
    ward.close()


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waiting]:
    waiting = Waiting(monkeypatch)
    yield waiting
    waiting.close()


def test_circusd_is_asked_to_quit_again_and_again_and_killed_in_the_end(waiting: Waiting) -> None:
    waiting._stop_within(3.0)
    waiting.gone_at = 103.5
    waiting._childless = True
    assert waiting.run() == -signal.SIGKILL
    moments = [100.0, 100.1, 100.3, 100.7, 101.5, 102.5]
    assert [(round(now, 6), *rest) for now, *rest in waiting.sent] == [
        *((moment, 12, signal.SIGTERM) for moment in moments),
        (103.0, 12, signal.SIGKILL),
    ]
    assert os.read(waiting.told, 100) == b"exit -9\n"
    assert os.read(waiting.told, 100) == b""
    assert waiting._deadline == 103.0


def test_nobody_asks_circusd_for_anything_before_there_is_a_reason(waiting: Waiting) -> None:
    waiting.gone_at = 200.0
    waiting._childless = True
    waiting.run()
    assert (waiting.waits, waiting.sent) == ([None], [])
    assert waiting._deadline == 210.0  # for what it has left behind


def test_a_host_that_does_not_read_the_report_is_no_trouble(waiting: Waiting) -> None:
    os.close(waiting.told)
    waiting.told = -1
    waiting.gone_at = 100.0
    waiting._childless = True
    assert waiting.run() == -signal.SIGKILL


def test_what_circusd_has_left_is_asked_once_and_then_killed(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left = ["five", "six"]
    monkeypatch.setattr(waiting, "_left", lambda: left if waiting.now < 105.02 else [])
    waiting._deadline = 105.0
    waiting._clear()
    term, kill = signal.SIGTERM, signal.SIGKILL
    assert waiting.sent == [
        *((100.0, each, term) for each in left),
        *((105.0, each, kill) for each in left),
    ]
    assert waiting.waits == [101.0, 102.0, 103.0, 104.0, 105.0, 105.05]
    assert capsys.readouterr().err == ""


def test_what_cannot_be_ended_is_told_with_its_number(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stuck:
        def __init__(self, pid: int) -> None:
            self.pid = pid

    left = [Stuck(5), Stuck(6)]
    monkeypatch.setattr(waiting, "_left", lambda: left)
    waiting._deadline = 90.0  # is over
    waiting._clear()
    assert capsys.readouterr().err == "circusplug: could not end these processes: 5, 6\n"
    assert waiting.now == pytest.approx(100.0 + guard_main.KILL_TIMEOUT, abs=0.1)
    assert {number for _, _, number in waiting.sent} == {signal.SIGKILL}


@pytest.mark.parametrize(
    ("orders", "deadline", "passed_on"),
    [
        (b"stop 5.500\n", 105.5, b""),
        (b"go\n", None, b"g"),
        (b"go\nstop 2.000\nstop 7.000\n", 102.0, b"g"),
        (b"gone\nnonsense\n", None, b""),
        (b"", 110.0, b""),
    ],
)
def test_the_guard_obeys_the_host_and_stops_when_it_has_gone(
    orders: bytes, deadline: float | None, passed_on: bytes, ward: Ward
) -> None:
    os.set_blocking(ward.signs, False)
    ward._poll.register(ward.control, select.POLLIN)
    os.write(ward.orders, orders)
    if not orders:
        os.close(ward.orders)
        ward.orders = -1
    ward._wait(None)
    assert ward._deadline == deadline
    if passed_on:
        assert os.read(ward.signs, 10) == passed_on
    assert ward._poll.poll(0) == []  # an end is seen once


def test_a_word_for_a_circusd_that_has_just_ended_is_no_trouble(ward: Ward) -> None:
    os.close(ward.signs)
    ward.signs = -1
    os.write(ward.orders, b"go\n")
    ward._obey()
    assert ward._deadline is None


@pytest.mark.parametrize(
    ("numbers", "deadline"),
    [
        ([signal.SIGTERM], 110.0),
        ([signal.SIGCHLD, signal.SIGINT], 110.0),
        ([signal.SIGCHLD, signal.SIGCHLD], None),
    ],
)
def test_a_signal_to_the_guard_stops_circusd(
    numbers: list[int], deadline: float | None, ward: Ward
) -> None:
    ward._wakeup, woken = os.pipe()
    ward._poll.register(ward._wakeup, select.POLLIN)
    os.write(woken, bytes(numbers))
    ward._wait(None)
    assert ward._deadline == deadline
    os.close(woken)
    os.close(ward._wakeup)


def test_orphans_are_reaped_and_only_circusds_end_is_its_end(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [(7, 0), (0, 0), (8, 0), (12, 3 << 8), (0, 0)]

    def wait(pid: int, options: int) -> tuple[int, int]:
        assert (pid, options) == (-1, os.WNOHANG)
        if not found:
            raise ChildProcessError
        return found.pop(0)

    monkeypatch.setattr(os, "waitpid", wait)
    assert not ward._circusd_gone()
    assert ward._circusd_gone()
    assert (ward._status, ward._childless) == (3, False)
    assert ward._circusd_gone()
    assert (ward._status, ward._childless) == (3, True)


@pytest.mark.parametrize("subreaper", [True, False])
def test_where_orphans_are_not_its_children_the_guard_remembers_what_there_was(
    subreaper: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward = Ward(monkeypatch, subreaper)
    lives, ended = (
        SimpleNamespace(is_running=lambda lives=lives: lives) for lives in (True, False)
    )
    there: list[Any] = [lives, ended]
    monkeypatch.setattr(guard_main, "_descendants", lambda: there)
    monkeypatch.setattr(ward, "_circusd_gone", lambda: True)
    ward._stop_within(10.0)
    there = ["a new one"]
    ward._stop_within(5.0)
    before = [] if subreaper else [lives]
    assert ward._left() == [*before, "a new one"]
    ward._childless = True
    assert ward._left() == before
    ward.close()


def test_a_circusd_that_cannot_be_run_at_all_leaves_no_second_guard() -> None:
    program = (
        "import os, sys\n"
        "import guard_main\n"
        "sys.executable = '/nowhere/python'\n"
        "pid, life = guard_main.start_circusd('program', 'ini', 1.0, 1, '0')\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), os.get_inheritable(life))\n"
    )
    done = subprocess.run(
        [sys.executable, "-SE", "-c", program],
        cwd=Path(guard_main.__file__).parent,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "127 False\n"
