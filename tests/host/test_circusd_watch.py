# How a host that circusd has started sees the end of that circusd.

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import Future

import pytest
from patience import PATIENCE

from circusplug._host import circusd_watch
from circusplug._host.circusd_watch import watching_circusd
from circusplug.testing import FakeCircusd


@pytest.fixture
def leader(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is taken for the leader of this one's session."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        monkeypatch.setattr(circusd_watch, "_session_leader", lambda: process.pid)
        yield process
        process.kill()


def test_a_watch_that_is_over_leaves_nothing_open(
    fake_circusd: FakeCircusd, leader: subprocess.Popen[bytes]
) -> None:
    gone: Future[str] = Future()
    with watching_circusd(fake_circusd.endpoint, "plugin:circusplug", gone.set_result):
        fake_circusd.wait_command("list", timeout=PATIENCE)
    assert not gone.done()


def test_the_end_of_the_sessions_leader_is_told(
    fake_circusd: FakeCircusd, leader: subprocess.Popen[bytes]
) -> None:
    gone: Future[str] = Future()
    with watching_circusd(fake_circusd.endpoint, "plugin:circusplug", gone.set_result):
        leader.kill()
        assert "has ended, and so does the host" in gone.result(PATIENCE)
