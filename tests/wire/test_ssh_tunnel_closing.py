# How an ssh tunnel is closed, and what is left of it.

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from patience import PATIENCE
from ssh_stand_in import ENDS, Opening, StandIn, paths

from circusplug import Arbiter, HostError
from circusplug._wire.ssh_tunnel import Tunnel


def test_a_silent_ssh_keeps_nobody_from_closing(
    ssh: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug._wire.ssh_tunnel.OPEN_WAIT", 1000.0)
    monkeypatch.setattr("circusplug._wire.ssh_tunnel._END_WAIT", 0.1)
    ssh.will("silent")
    with Opening() as opening:
        process = ssh.wait_started()
        failures: queue.SimpleQueue[str] = queue.SimpleQueue()

        def wait() -> None:
            try:
                opening.tunnel.wait()
            except HostError as error:
                failures.put(str(error))

        waiting = threading.Thread(target=wait)
        waiting.start()
        opening.tunnel.close()
        assert failures.get(timeout=PATIENCE) == "no ssh tunnel through host: closed"
        waiting.join()
        assert psutil.wait_procs([process], PATIENCE)[1] == []
        assert not paths(opening.tunnel.link())[0].parent.exists()
    assert opening.calls.empty()


def test_a_tunnel_that_is_closed_starts_no_ssh_and_tells_nobody_that_it_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("it is started"))
    opening = Opening()
    opening.tunnel.close()
    assert opening.tunnel._run() == (False, "")
    opening.tunnel._stand()
    assert opening.calls.empty()


def test_a_tunnel_closes_itself_in_its_own_callback(ssh: StandIn) -> None:
    ssh.will("refuse")
    closed = threading.Event()

    def close(_: str) -> None:
        tunnel.close()
        closed.set()

    tunnel = Tunnel("host", *ENDS, on_failed=close)
    tunnel.start()
    assert closed.wait(PATIENCE)


def test_nothing_is_left_of_a_host_that_is_killed(ssh: StandIn, runtime_directory: str) -> None:
    program = (
        "from circusplug._wire.ssh_tunnel import Tunnel\n"
        f"tunnel = Tunnel('host', *{ENDS!r})\n"
        "tunnel.start(); tunnel.wait(); print('up', flush=True); input()\n"
    )
    place = Path(tempfile.mkdtemp(dir=runtime_directory))  # a socket's path has to be short
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(place)},
    ) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == b"up\n"
        process = ssh.wait_started()
        assert list(place.iterdir())
        host.send_signal(signal.SIGKILL)
    assert psutil.wait_procs([process], PATIENCE)[1] == []
    place.rmdir()  # empty


def test_a_change_to_a_server_that_does_not_let_us_in_leaves_nothing(
    ssh: StandIn, runtime_directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", place := tempfile.mkdtemp(dir=runtime_directory))
    ssh.will("refuse")
    with Arbiter([], *ENDS) as arbiter:
        with pytest.raises(HostError, match="for you"):
            arbiter.reconfigure(replace(arbiter.config, ssh_server="host"))
        os.rmdir(place)  # empty


def test_a_directory_that_has_gone_is_no_trouble_at_the_end(ssh: StandIn) -> None:
    with Opening() as opening:
        opening.tunnel.wait(PATIENCE)
        shutil.rmtree(paths(opening.tunnel.link())[0].parent)
