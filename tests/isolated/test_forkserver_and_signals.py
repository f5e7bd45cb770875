# Whom the forkserver and the host signal and whom not, and what the forkserver leaves as it was.

from __future__ import annotations

import contextlib
import multiprocessing.forkserver
import os
import signal
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import assert_ends
from scene import Scene, forkserver, scene

from circusplug._isolated.forkserver_main import ANSWER, ENDED, ForkServer, Process

pytestmark = pytest.mark.usefixtures("unhurried_end")


def test_a_group_is_killed_while_its_leader_is_not_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = []

    def kill(group: int, number: int) -> None:
        # Its number is not free yet: it can still be waited for.
        killed.append(os.waitid(os.P_PID, group, os.WEXITED | os.WNOWAIT) is not None)

    monkeypatch.setattr(os, "killpg", kill)
    dead = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, dead, os.WEXITED | os.WNOWAIT)
    answers, far = socket.socketpair()
    waitid = os.waitid

    def wait_for_it(kind: int, number: int, options: int) -> Any:  # this process has other ones
        return waitid(os.P_PID, dead, options)

    with answers, far, socket.socket() as requests:
        server = ForkServer(requests)
        server._children[dead] = Process(dead, far, 1.0)
        monkeypatch.setattr(os, "waitid", wait_for_it)
        server._look_after_children()
        assert killed == [True]
        assert ANSWER.unpack(answers.recv(ANSWER.size)) == (ENDED, 0)


def test_the_forkserver_keeps_no_handle_of_the_processes_that_it_forked() -> None:
    with scene():
        pass
    held = []
    for file in Path(f"/proc/{forkserver()}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            held.append(os.readlink(file))
    assert held
    assert not [what for what in held if "pidfd" in what]


def test_the_host_signals_nobody_by_a_number(
    monkeypatch: pytest.MonkeyPatch, soon_forced: None
) -> None:
    def refuse(number: int, what: int) -> None:
        raise AssertionError("it may be another's by now")

    with scene() as stage:
        process = stage.process
        stage.make("freeze")
        stage.wait(lambda status: process.status() == psutil.STATUS_STOPPED)
        monkeypatch.setattr(os, "kill", refuse)
        monkeypatch.setattr(os, "killpg", refuse)
        stage.arbiter.stop_plugin("trouble")
        assert_ends(process.pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_forkserver_leaves_signals_to_the_host(stage: Scene, number: signal.Signals) -> None:
    pid = forkserver()
    for _ in range(2):
        os.kill(pid, number)
        stage.arbiter.restart_plugin("trouble")
        stage.wait(lambda status: status.state == "running")
    assert forkserver() == pid


def test_multiprocessing_of_the_program_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs: Any = multiprocessing.forkserver._forkserver  # type: ignore[attr-defined]
    monkeypatch.setattr(theirs, "_preload_modules", ["json"])
    before = theirs._forkserver_pid
    with scene() as stage:
        stage.assert_siblings_work()
    assert (theirs._preload_modules, theirs._forkserver_pid) == (["json"], before)


def test_a_plugins_programs_find_signals_as_usual(stage: Scene) -> None:
    with open(f"/proc/{stage.trouble.pid}/status") as file:
        masks = dict(line.split(":\t") for line in file.read().splitlines() if "Sig" in line)
    lowest = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    for kind in ("SigIgn", "SigBlk"):
        assert not any(int(masks[kind], 16) >> (number - 1) & 1 for number in lowest)
