# What the guard's report means to who waits for circusd: one end of a pipe stands for the guard.

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import Future
from typing import Any

import pytest
from announcing import Announcing
from patience import PATIENCE

from circusplug._circusd import process
from circusplug._circusd.process import CircusdProcess, describe_status
from circusplug._errors import CircusdError


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"", "circus.ini: circusd ended; see its log above"),
        (b"exit 1\n", "circus.ini: circusd exited with status 1; see its log above"),
        (
            b"failed address in use\nexit 0\n",
            "circus.ini: circusd did not start: address in use",
        ),
        (b"failed \n", "circus.ini: circusd did not start: see its log above"),
    ],
)
def test_who_waits_for_a_circusd_hears_at_once_that_it_has_ended(said: bytes, told: str) -> None:
    circusd = CircusdProcess("")
    circusd._path = "/proc/self/fd/7"
    circusd._changed = changed = Announcing()
    read, write = os.pipe()
    reader = threading.Thread(target=circusd._read_report, args=(read,))
    reader.start()
    outcome: Future[None] = Future()

    def wait() -> None:
        try:
            circusd.wait_ready(1000 * PATIENCE)
        except CircusdError as error:
            outcome.set_exception(error)

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    assert changed.waits.wait(PATIENCE)
    os.write(write, said)
    os.close(write)
    error = outcome.exception(PATIENCE)
    assert isinstance(error, CircusdError)
    assert str(error) == told
    for thread in (reader, waiter):
        thread.join(PATIENCE)


def test_who_waits_for_a_circusd_hears_at_once_that_it_is_ready() -> None:
    circusd = CircusdProcess("")
    circusd._changed = changed = Announcing()
    ready = threading.Event()
    read, write = os.pipe()

    def wait() -> None:
        circusd.wait_ready(1000 * PATIENCE)
        ready.set()

    threads = [
        threading.Thread(target=circusd._read_report, args=(read,), daemon=True),
        threading.Thread(target=wait, daemon=True),
    ]
    for thread in threads:
        thread.start()
    assert changed.waits.wait(PATIENCE)
    os.write(write, b"ready 12\n")
    assert ready.wait(PATIENCE)
    assert (circusd.pid, circusd.has_quit) == (12, False)
    os.close(write)
    for thread in threads:
        thread.join(PATIENCE)


def report(circusd: CircusdProcess, said: bytes) -> None:
    """Have a whole report read."""
    read, write = os.pipe()
    os.write(write, said)
    os.close(write)
    circusd._read_report(read)


def test_who_asked_is_told_of_the_end_once_and_who_asks_late_at_once() -> None:
    circusd = CircusdProcess("", source="/etc/mine.ini")
    circusd._path = "/proc/self/fd/7"
    statuses: list[int | None] = []
    circusd.on_exit(statuses.append)
    report(circusd, b"ready 12\nfailed /proc/self/fd/7 is wrong\nexit 0\n")
    assert (statuses, circusd.has_quit) == ([0], True)
    circusd.on_exit(statuses.append)
    assert statuses == [0, 0]
    with pytest.raises(CircusdError, match=r"^/etc/mine.ini: circusd did not start: /etc/mine.ini"):
        circusd.wait_ready()


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (None, "ended"),
        (0, "exited with status 0"),
        (-9, "was killed by SIGKILL"),
        (-40, "was killed by signal 40"),
    ],
)
def test_how_circusd_has_ended_is_said_in_words(status: int | None, text: str) -> None:
    assert describe_status(status) == text


class GuardProcess:
    """Stands for the guard's process: ends when it is told to, or only when it is killed."""

    pid = 12

    def __init__(self, hangs: bool) -> None:
        self._hangs = hangs
        self.done: list[Any] = []

    def wait(self, timeout: float | None = None) -> None:
        self.done.append(timeout)
        if self._hangs and timeout is not None:
            raise subprocess.TimeoutExpired("guard", timeout)

    def kill(self) -> None:
        self.done.append("killed")


@pytest.mark.parametrize("hangs", [False, True])
def test_the_guard_is_told_how_long_a_stop_may_take_and_killed_if_it_hangs(hangs: bool) -> None:
    circusd = CircusdProcess("")
    guard: Any = GuardProcess(hangs)
    circusd._guard = guard
    control, circusd._control = os.pipe()
    circusd._file = os.memfd_create("circus.ini")
    circusd._reader = threading.current_thread()  # as in what it calls back
    assert circusd.guard_pid == 12
    circusd.let_go()
    circusd.stop(2.5)
    first = 2.5 + process._GUARD_MARGIN
    assert guard.done == ([first, "killed", None] if hangs else [first])
    with open(control, "rb") as orders:
        assert orders.read() == b"go\nstop 2.500\n"
    assert (circusd._control, circusd._file) == (-1, -1)
    circusd.let_go()
    circusd.stop(2.5)  # has nothing more to close


def test_a_guard_that_has_ended_is_told_nothing() -> None:
    circusd = CircusdProcess("")
    control, circusd._control = os.pipe()
    os.close(control)
    circusd.let_go()
    os.close(circusd._control)


def test_a_circusd_that_was_never_ready_is_not_killed_by_a_number_that_nobody_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)  # it would be needed for that
    CircusdProcess("")._kill_circusd()


def test_a_guard_that_cannot_be_started_leaves_nothing_and_is_told_with_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        assert options["stdin"] == subprocess.DEVNULL
        assert options["start_new_session"]
        raise BlockingIOError("no processes left")

    monkeypatch.setattr(subprocess, "Popen", fail)
    circusd = CircusdProcess("", source="/etc/mine.ini")
    for _ in range(2):  # it may be tried again
        with pytest.raises(CircusdError, match=r"^/etc/mine.ini: cannot start circusd: no proc"):
            circusd.start()
    assert circusd.stop() is None


def test_one_that_does_not_get_ready_is_stopped_before_the_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    circusd = CircusdProcess("", start_timeout=7.0)
    done: list[Any] = []

    def wait(timeout: float) -> None:
        done.append(timeout)
        raise CircusdError("not ready")

    monkeypatch.setattr(circusd, "start", lambda: done.append("started"))
    monkeypatch.setattr(circusd, "wait_ready", wait)
    monkeypatch.setattr(circusd, "stop", lambda: done.append("stopped"))
    with pytest.raises(CircusdError, match="not ready"), circusd:
        pass
    assert done == ["started", 7.0, "stopped"]
