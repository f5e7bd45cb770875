# How an ssh tunnel is opened, and what it tells of that: an ssh that stands, ends, says nothing or
# talks without end.

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from patience import PATIENCE
from ssh_stand_in import ENDS, Opening, StandIn, paths

from circusplug import HostError
from circusplug._logs import logger
from circusplug._wire.ssh_tunnel import Tunnel


def test_what_waits_for_nothing_is_called_when_the_tunnel_stands(ssh: StandIn) -> None:
    with Opening() as opening:
        assert opening.calls.get(timeout=PATIENCE) == ("up", "ssh-tunnel")
        assert paths(opening.tunnel.link())[0].exists()
        ssh.wait_started().kill()
        ssh.wait_started()
    assert opening.calls.empty()


@pytest.mark.parametrize(
    ("what", "reason"), [("refuse", "for you"), ("end", "ssh exited with status 7")]
)
def test_an_ssh_that_ends_is_told_in_its_last_words(ssh: StandIn, what: str, reason: str) -> None:
    ssh.will(what)
    with Opening() as opening:
        assert opening.calls.get(timeout=PATIENCE) == (f"failed: {reason}", "ssh-tunnel")
        with pytest.raises(HostError, match=f"no ssh tunnel through host: {reason}"):
            opening.tunnel.wait()


@pytest.fixture
def deaf() -> Iterator[None]:
    """Let what is started ignore SIGTERM."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_silent_ssh_is_given_up_and_killed(
    ssh: StandIn, monkeypatch: pytest.MonkeyPatch, deaf: None
) -> None:
    monkeypatch.setattr("circusplug._wire.ssh_tunnel.OPEN_WAIT", 0.0)
    monkeypatch.setattr("circusplug._wire.ssh_tunnel._END_WAIT", 0.1)
    ssh.will("silent")
    with Opening() as opening:
        what, _ = opening.calls.get(timeout=PATIENCE)
        assert what == "failed: not ready after 0 s"


def test_the_end_of_an_ssh_is_seen_where_nobody_hears_sigterm(ssh: StandIn, deaf: None) -> None:
    ssh.will("end")
    with Opening() as opening:
        what, _ = opening.calls.get(timeout=PATIENCE)
        assert what == "failed: ssh exited with status 7"


def test_an_ssh_that_only_talks_is_given_up_at_the_same_time(
    ssh: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = itertools.chain([0.0] * 3, itertools.repeat(1e6))  # the wait for a word, and after
    clock = SimpleNamespace(monotonic=lambda: next(moments))
    monkeypatch.setattr("circusplug._wire.ssh_tunnel.time", clock)
    monkeypatch.setattr("circusplug._wire.ssh_tunnel.OPEN_WAIT", 1000.0)
    ssh.will("talk")
    with Opening() as opening:
        assert opening.calls.get(timeout=PATIENCE)[0] == "failed: not ready after 1000 s"


def test_a_silent_ssh_after_one_that_stood_is_followed_by_another(
    ssh: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    up_again, gave_up = threading.Event(), threading.Event()
    monkeypatch.setattr(logger, "info", lambda *_: up_again.set())
    monkeypatch.setattr(
        logger, "warning", lambda *said: gave_up.set() if "not ready after 0 s" in said else None
    )
    with Opening() as opening:
        assert opening.calls.get(timeout=PATIENCE)[0] == "up"
        ssh.will("silent")
        monkeypatch.setattr("circusplug._wire.ssh_tunnel.OPEN_WAIT", 0.0)
        ssh.wait_started().kill()
        assert gave_up.wait(PATIENCE)
        ssh.will("stand")
        monkeypatch.setattr("circusplug._wire.ssh_tunnel.OPEN_WAIT", PATIENCE)
        assert up_again.wait(PATIENCE)
    assert opening.calls.empty()  # each is called once, and later nobody waits for it


def test_a_tunnel_that_has_stood_is_tried_again_as_soon_each_time(
    ssh: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    up_again = threading.Semaphore(0)
    delays: list[float] = []
    monkeypatch.setattr(logger, "info", lambda *_: up_again.release())
    monkeypatch.setattr(logger, "warning", lambda *said: delays.append(said[-1]))
    with Opening() as opening:
        opening.tunnel.wait(PATIENCE)
        for _ in range(3):
            ssh.wait_started().kill()
            assert up_again.acquire(timeout=PATIENCE)
    assert delays == [0.001] * 3


def test_the_first_word_of_how_it_went_counts() -> None:
    for first, words in (("why", "host: why$"), (None, None)):
        tunnel = Tunnel("host", *ENDS)
        tunnel._tell(first)
        tunnel.close()
        if words is None:
            tunnel.wait()
        else:
            with pytest.raises(HostError, match=words):
                tunnel.wait()


def test_an_opening_may_be_waited_for_for_some_time(ssh: StandIn) -> None:
    ssh.will("silent")
    with Opening() as opening, pytest.raises(HostError, match=r"not ready after 0\.01 s"):
        opening.tunnel.wait(0.01)


def test_what_ssh_says_without_end_is_read_and_forgotten(ssh: StandIn) -> None:
    ssh.will("chatty")
    with Opening() as opening:
        assert opening.calls.get(timeout=PATIENCE)[0] == "up"


def test_of_what_ssh_says_without_end_the_last_is_told() -> None:
    tunnel = Tunnel("host", *ENDS)
    for said, words in (
        (b"x" * 1500 + b"end", "x" * 997 + "end"),
        (b"begin" + b"x" * 1500 + b"\n \n", "begin" + "x" * 995),
        (b"circusplug-tunnel-is-up\nlast words \xff", "last words \ufffd"),
    ):
        read, write = os.pipe()
        os.write(write, said)
        os.close(write)
        with open(read, "rb") as output:
            process: Any = SimpleNamespace(stdout=output)
            assert tunnel._attend(process) == (said.startswith(b"circus"), words)
