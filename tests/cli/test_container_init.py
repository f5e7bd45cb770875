# A command as process 1, as in a container: orphans are reaped, children that somebody waits for
# are left to whom they belong, signals and the exit status pass through.

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import psutil
import pytest
from command import COMMAND, Running, plugin, write_ini
from patience import PATIENCE

from circusplug._cli import container_init
from circusplug.testing import FakeCircusd

_UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")

#: Leaves an orphan, and waits for children of its own, in each way there is.
PARENT = """\
import multiprocessing, os, subprocess, sys
from tellers import Teller

class Parent(Teller):
    def handle_recv(self, data):
        orphan = subprocess.run(
            ["sh", "-c", "sleep 0.01 & echo $!"], stdout=subprocess.PIPE, text=True
        )
        for _ in range(20):
            child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
            process = multiprocessing.get_context("fork").Process(target=os._exit, args=(8,))
            process.start()
            process.join()
            statuses = child.wait(), process.exitcode
            if statuses != (7, 8):
                break
        self.say(f"waited {statuses}, is {os.getpid()} of {os.getppid()}")
        self.say(f"orphan {orphan.stdout.strip()}")
"""


@pytest.fixture(scope="module")
def unshare() -> tuple[str, ...]:
    for more in ((), ("--map-root-user",)):
        program = (*_UNSHARE[:1], *more, *_UNSHARE[1:])
        with contextlib.suppress(OSError):
            if subprocess.run([*program, "true"], capture_output=True).returncode == 0:
                return program
    pytest.skip("this user may not make a namespace of process numbers (unshare --pid)")


@contextlib.contextmanager
def as_process_1(
    unshare: tuple[str, ...], directory: Path, isolate: str = "no"
) -> Iterator[tuple[Running, psutil.Process, FakeCircusd]]:
    """Run a host as process 1; gives the command, process 1 as seen from here, and circusd."""
    (directory / "parent.py").write_text(PARENT)
    with FakeCircusd() as circusd:
        section = plugin("a", "parent.Parent", isolate=isolate)
        path = write_ini(directory, circusd.endpoint, circusd.pubsub_endpoint, section)
        with Running(directory, "run", path, program=[*unshare, *COMMAND]) as command:
            command.wait_for("plugin:a: init")
            (init,) = psutil.Process(command.pid).children()
            yield command, init, circusd


@pytest.mark.parametrize("isolate", ["no", "yes"], ids=["thread", "process"])
def test_orphans_are_reaped_and_children_are_left_to_their_parents(
    isolate: str, unshare: tuple[str, ...], tmp_path: Path
) -> None:
    with as_process_1(unshare, tmp_path, isolate) as (command, init, circusd):
        circusd.wait_subscribed(timeout=PATIENCE)
        circusd.publish("web", "spawn")
        assert "waited (7, 8)" in command.wait_for("waited")
        command.wait_for("orphan")
        # Its child and no other is left to process 1: the orphan is reaped at its end.
        (host,) = _only(init)
        assert host.status() != psutil.STATUS_ZOMBIE
        init.send_signal(signal.SIGTERM)
        assert command.end() == 0
    assert "plugin:a: stop\n" in command.output


def _only(init: psutil.Process) -> list[psutil.Process]:
    """The children of process 1, once there is only one."""
    while len(children := init.children()) > 1:
        orphan = max(children, key=lambda child: child.pid)
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            handle = os.pidfd_open(orphan.pid)
            try:
                assert select.select([handle], [], [], PATIENCE)[0]
            finally:
                os.close(handle)
    return children


def test_the_exit_status_of_process_1_is_that_of_the_command(
    unshare: tuple[str, ...], tmp_path: Path
) -> None:
    missing = subprocess.run(
        [*unshare, *COMMAND, "run", "nothing.ini"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    with as_process_1(unshare, tmp_path) as (command, init, _):
        (host,) = init.children()
        host.kill()
        assert command.end() == 128 + signal.SIGKILL


def test_a_signal_of_the_terminal_is_not_passed_on_as_the_command_gets_it_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class OverError(Exception):
        """The command has ended."""

    def end(command: int) -> NoReturn:
        raise OverError

    found = [(signal.SIGINT, 128), (signal.SIGTERM, 0), (signal.SIGCHLD, 1)]  # 128: SI_KERNEL
    told = iter([SimpleNamespace(si_signo=number, si_code=code) for number, code in found])
    passed: list[tuple[int, int]] = []
    monkeypatch.setattr(signal, "sigwaitinfo", lambda _: next(told))
    monkeypatch.setattr(os, "kill", lambda *what: passed.append(what))
    monkeypatch.setattr(container_init, "_reap", end)
    with pytest.raises(OverError):
        container_init._be_init(7, {signal.SIGCHLD})
    assert passed == [(7, signal.SIGTERM)]


@pytest.mark.parametrize(("status", "code"), [(0, 0), (3 << 8, 3), (signal.SIGTERM, 143)])
def test_all_that_have_ended_are_reaped_and_the_end_of_the_command_is_its_own(
    status: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OverError(Exception):
        """It has ended."""

    def end(status: int) -> NoReturn:
        raise OverError(status)

    ended = iter([(5, 1 << 8), (6, 0), (0, 0), (8, 0), (7, status)])
    monkeypatch.setattr(os, "waitpid", lambda *_: next(ended))
    monkeypatch.setattr(os, "_exit", end)
    container_init._reap(7)  # the others are none of its business
    with pytest.raises(OverError, match=f"^{code}$"):
        container_init._reap(7)
