# How a host that circusd has started sees the end of that circusd.

from __future__ import annotations

import io
import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
import zmq
from patience import PATIENCE

from circusplug._host import circusd_watch
from circusplug._host.circusd_watch import watching_circusd
from circusplug.testing import FakeCircusd

NOBODY = "ipc:///nonexistent/commands"


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


def test_where_circusd_cannot_be_asked_the_end_of_the_leader_is_told_all_the_same(
    leader: subprocess.Popen[bytes],
) -> None:
    gone: Future[str] = Future()
    with watching_circusd(None, "plugin:circusplug", gone.set_result):
        leader.kill()
        assert "has ended, and so does the host" in gone.result(PATIENCE)


def test_one_that_ends_before_it_accepts_a_connection_is_told_of(
    leader: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []

    class Poller(zmq.Poller):
        def poll(self, timeout: int | None = None) -> Any:  # type: ignore[override]
            waits.append(timeout or 0)
            if len(waits) == 3:
                leader.kill()
            return super().poll(timeout)

    monkeypatch.setattr(circusd_watch, "CONNECT_WAIT", 0.01)
    monkeypatch.setattr(circusd_watch.zmq, "Poller", Poller)
    gone: Future[str] = Future()
    with watching_circusd(NOBODY, "plugin:circusplug", gone.set_result):
        assert "has ended, and so does the host" in gone.result(PATIENCE)


@pytest.mark.parametrize("parents", [[LookupError], [os.getpid(), 1], [os.getpid(), LookupError]])
def test_one_that_has_ended_while_it_was_looked_for_is_told_of(
    parents: list[Any], leader: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter(parents)

    def parent(_: int) -> int:
        process = next(found)
        if process is LookupError:
            raise ProcessLookupError
        return int(process)

    monkeypatch.setattr(circusd_watch, "_parent", parent)
    gone: Future[str] = Future()
    with watching_circusd(NOBODY, "plugin:circusplug", gone.set_result):
        assert "has ended, and so does the host" in gone.result(PATIENCE)


def test_one_that_nobody_has_started_any_more_is_not_waited_for_for_ever(
    leader: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circusd_watch, "CONNECT_WAIT", 0.01)
    monkeypatch.setattr(circusd_watch, "_parent", lambda _: 1)
    gone: Future[str] = Future()
    with watching_circusd(NOBODY, "plugin:circusplug", gone.set_result):
        said = gone.result(PATIENCE)
    assert said == f"no circusd is at {NOBODY}: the one that started this host has ended"


@pytest.mark.parametrize("whose", ["ours", "our leader's", "unknown", "another's"])
def test_a_circusd_that_has_not_started_this_host_is_not_its_own(
    whose: str,
    fake_circusd: FakeCircusd,
    leader: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits = threading.Semaphore(0)

    class Poller(zmq.Poller):
        def poll(self, timeout: int | None = None) -> Any:  # type: ignore[override]
            waits.release()
            return super().poll(timeout)

    monkeypatch.setattr(circusd_watch.zmq, "Poller", Poller)
    pids = {"ours": [1, os.getpid()], "our leader's": [leader.pid], "another's": [1]}
    if whose in pids:
        fake_circusd.reply("list", {"pids": pids[whose]})
    gone: Future[str] = Future()
    with watching_circusd(fake_circusd.endpoint, "plugin:circusplug", gone.set_result):
        command = fake_circusd.wait_command("list", timeout=PATIENCE)
        assert command.properties == {"name": "plugin:circusplug"}
        if whose != "another's":
            for _ in ("a connection", "the answer", "an end"):
                assert waits.acquire(timeout=PATIENCE)
            leader.kill()
        said = gone.result(PATIENCE)
    assert ("is not the one that started this host; ending" in said) == (whose == "another's")


def test_the_parent_is_found_whatever_the_process_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = b"7 (a) S 1 (b) S 42 7 7 0 -1"
    monkeypatch.setattr(circusd_watch, "open", lambda *_: io.BytesIO(line), raising=False)
    assert circusd_watch._parent(7) == 42


def test_a_leader_that_has_ended_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert circusd_watch._session_leader() in (os.getsid(0), os.getpid())
    monkeypatch.setattr(circusd_watch.os, "getsid", lambda _: 2**22 + 1)
    assert circusd_watch._session_leader() == os.getpid()
    monkeypatch.undo()
    monkeypatch.setattr(circusd_watch.os, "getsid", lambda _: os.getppid())
    assert circusd_watch._session_leader() == os.getppid()
