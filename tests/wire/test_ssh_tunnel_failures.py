# An ssh tunnel for which there is no process, no directory or no thread.

from __future__ import annotations

import errno
import os
import queue
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE
from ssh_stand_in import Opening, StandIn

from circusplug import HostError
from circusplug._logs import logger


class NoProcesses:
    """Stands for a system that has no process left for so many starts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._start = subprocess.Popen
        self.left = 0
        self.failed = threading.Event()
        monkeypatch.setattr(subprocess, "Popen", self.start)

    def start(self, *args: Any, **options: Any) -> Any:
        if self.left > 0:
            self.left -= 1
            self.failed.set()
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return self._start(*args, **options)


def test_an_ssh_that_cannot_be_started_is_tried_again(
    ssh: StandIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    no_processes = NoProcesses(monkeypatch)
    no_processes.left = 2
    with Opening() as opening:
        assert opening.calls.get(timeout=PATIENCE)[0] == "up"
        no_processes.left = 2
        ssh.wait_started().kill()
        ssh.wait_started()
    assert caplog.text.count("ssh cannot be run: Resource temporarily unavailable; next try") == 4


def test_the_tries_grow_rarer_while_none_succeeds(
    ssh: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug._wire.ssh_tunnel.RETRY_DELAY_MAX", 0.005)
    delays: queue.SimpleQueue[float] = queue.SimpleQueue()
    monkeypatch.setattr(logger, "warning", lambda *said: delays.put(said[-1]))
    no_processes = NoProcesses(monkeypatch)
    with Opening() as opening:
        opening.tunnel.wait(PATIENCE)
        no_processes.left = 5
        ssh.wait_started().kill()
        ssh.wait_started()
    assert [delays.get() for _ in range(6)] == [0.001, 0.002, 0.004, 0.005, 0.005, 0.005]


def test_one_that_cannot_be_started_for_too_long_is_a_failure(
    ssh: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug._wire.ssh_tunnel.OPEN_WAIT", 0.0)
    NoProcesses(monkeypatch).left = 1_000_000
    with Opening() as opening:
        what, _ = opening.calls.get(timeout=PATIENCE)
    assert what == "failed: ssh cannot be run: Resource temporarily unavailable"


def test_a_directory_that_cannot_be_made_is_an_error(
    ssh: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    with pytest.raises(HostError, match=r"no ssh tunnel through host: .*No such file"):
        Opening().tunnel.start()


def test_without_a_thread_left_there_is_no_tunnel_and_nothing_of_it(
    ssh: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "bin"))
    before = set(os.listdir(tmp_path / "bin"))
    with pytest.raises(HostError, match="no ssh tunnel through host: can't start new thread"):
        Opening().tunnel.start()
    assert set(os.listdir(tmp_path / "bin")) == before
