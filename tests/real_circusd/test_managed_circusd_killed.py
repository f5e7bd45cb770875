# A managed circusd, its guard or its host that is killed or hangs: nothing of what it ran is left.

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from circusd_bench import (
    ALL_SORTS,
    IDLE,
    STUBBORN,
    Bench,
    Exits,
    running,
)
from patience import PATIENCE
from stopped import stopped

pytestmark = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="the promise needs Linux's child subreaper"
)

HOST = """
import os, signal, sys
from circusplug._circusd.process import CircusdProcess

circusd = CircusdProcess(sys.stdin.read(), grace=float(sys.argv[1]))
circusd.start()
circusd.wait_ready()
if "fork" in sys.argv and os.fork() == 0:
    signal.pause()  # as a process that a plugin forked, with all the host's pipes
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print(circusd.pid, circusd.guard_pid, flush=True)
signal.sigwait([signal.SIGUSR1])  # and then it leaves
"""


@contextlib.contextmanager
def host(ini: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run a host process; it is over at the end, and so is what it forked."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HOST, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with process.stdin, process.stdout:
            process.stdin.write(ini)
            process.stdin.close()
            yield process, process.stdout.readline().split()
    finally:
        process.kill()
        process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_killing_circusd_ends_its_watchers_processes(bench: Bench) -> None:
    with running(bench.ini(*ALL_SORTS)) as circusd, Exits(circusd.guard_pid) as exits:
        bench.wait_started()
        os.kill(circusd.pid or 0, signal.SIGKILL)
        bench.wait_all_gone()
        exits.wait()


def test_a_watcher_process_that_ignores_sigterm_does_not_survive_circusd(bench: Bench) -> None:
    with running(bench.ini(STUBBORN), grace=0.3) as circusd:
        bench.wait_started()
        os.kill(circusd.pid or 0, signal.SIGKILL)
        bench.wait_all_gone()


def test_killing_the_guard_ends_circusd_and_its_watchers_processes(bench: Bench) -> None:
    exits: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    with running(bench.ini(*ALL_SORTS)) as circusd, Exits(circusd.pid) as ends:
        circusd.on_exit(exits.put)
        bench.wait_started()
        os.kill(circusd.guard_pid or 0, signal.SIGKILL)
        bench.wait_all_gone()
        ends.wait()
        assert exits.get(timeout=PATIENCE) is None


def test_a_guard_and_a_circusd_that_hang_are_killed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug._circusd.process._GUARD_MARGIN", 0.1)
    with running(bench.ini(IDLE)) as circusd:
        bench.wait_started()
        assert circusd.pid is not None
        assert circusd._guard is not None
        with stopped(circusd._guard.pid), stopped(circusd.pid):
            circusd.stop(0.1)
            assert circusd._guard.returncode == -signal.SIGKILL
            bench.wait_all_gone()


def test_what_a_killed_circusd_leaves_behind_has_time_to_end_cleanly(
    bench: Bench, tmp_path: Path
) -> None:
    polite = tmp_path / "polite.sh"
    polite.write_text("trap 'echo bye >&3; exit' TERM; echo up >&3; sleep 120 & wait\n")
    with running(bench.ini(f"(setsid sh {polite} &) & {IDLE}"), grace=PATIENCE) as circusd:
        bench.wait_started(2)
        assert circusd.pid is not None
        os.kill(circusd.pid, signal.SIGKILL)
        said = b""
        while b"bye" not in said:
            said += (more := bench.read())
            assert more


def test_killing_circusd_and_its_guard_at_once_ends_its_watchers_processes(bench: Bench) -> None:
    with running(bench.ini(IDLE, IDLE)) as circusd:
        bench.wait_started()
        os.kill(circusd.guard_pid or 0, signal.SIGKILL)
        os.kill(circusd.pid or 0, signal.SIGKILL)
        bench.wait_all_gone()


def test_the_end_of_the_hosts_pipe_is_enough_where_there_is_no_pidfd(bench: Bench) -> None:
    with running(bench.ini(IDLE)) as circusd, Exits(circusd.pid, circusd.guard_pid) as exits:
        bench.wait_started()
        os.close(circusd._control)
        circusd._control = -1
        bench.wait_all_gone()
        exits.wait()


@pytest.mark.parametrize("arguments", [["10"], ["10", "fork"]], ids=["plain", "forked"])
def test_killing_the_host_ends_everything(bench: Bench, arguments: list[str]) -> None:
    with (
        host(bench.ini(*ALL_SORTS), *arguments) as (process, words),
        Exits(*map(int, words)) as exits,
    ):
        bench.wait_started()
        process.kill()
        bench.wait_all_gone()
        exits.wait()


def test_killing_the_host_ends_what_ignores_sigterm_too(bench: Bench) -> None:
    with host(bench.ini(STUBBORN), "0.3") as (process, _):
        bench.wait_started()
        process.kill()
        bench.wait_all_gone()


def test_a_host_that_forgets_to_stop_it_leaves_nothing_either(bench: Bench) -> None:
    with host(bench.ini(IDLE), "10") as (process, words):
        with Exits(*map(int, words[:2])) as exits:
            bench.wait_started()
            process.send_signal(signal.SIGUSR1)
            exits.wait()
        bench.wait_all_gone()
