# The forkserver fails to fork, hangs or dies: isolated plugins stop, and start on a new one.

from __future__ import annotations

import errno
import os
import signal
import socket

import psutil
import pytest
from command import assert_ends
from hosts import all_run
from patience import PATIENCE
from scene import forkserver, scene
from stopped import stopped
from troublemakers import Talker

from circusplug import Arbiter
from circusplug._isolated import forkserver as forkserver_module
from circusplug._isolated.forkserver import FORKSERVER
from circusplug._isolated.forkserver_main import ANSWER, DESCRIPTORS, FAILED, REQUEST, ForkServer
from circusplug.testing import FakeCircusd

pytestmark = pytest.mark.usefixtures("unhurried_end")


def test_a_fork_that_fails_is_told_and_the_forkserver_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> int:
        raise BlockingIOError(errno.EAGAIN, "no processes left")

    monkeypatch.setattr(os, "fork", fail)
    ours, requests = socket.socketpair()
    answers, far = socket.socketpair()
    with ours, requests, answers, far, open(os.devnull) as nothing:
        fds = [far.fileno(), *[nothing.fileno()] * (DESCRIPTORS - 1)]
        socket.send_fds(ours, [REQUEST.pack(1.0)], fds)
        ForkServer(requests)._take_request()
        assert ANSWER.unpack(answers.recv(ANSWER.size)) == (FAILED, errno.EAGAIN)


def test_a_process_that_cannot_be_forked_is_its_plugins_failure_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(fds: list[int], grace: float) -> None:
        with socket.socket(fileno=os.dup(fds[0])) as far:
            far.send(ANSWER.pack(FAILED, errno.EAGAIN))

    with scene() as stage:
        monkeypatch.setattr(FORKSERVER, "request", refuse)
        late = {"use": Talker, "name": "late", "isolate": True, "host.restart": "never"}
        stage.arbiter.add_plugin({**late, "active": False})
        stage.arbiter.start_plugin("late")
        after = stage.arbiter.wait(lambda now: now["late"].state == "failed", PATIENCE)
        assert "its process cannot be started: BlockingIOError" in str(after["late"].last_error)
        stage.assert_siblings_work()


def test_when_the_forkserver_dies_its_plugins_stop_and_start_on_a_new_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = ["one", "two", "three"]
    with FakeCircusd() as circusd:
        plugins = [
            {"use": Talker, "name": name, "isolate": True, "host.restart_delay": 0.01}
            for name in names
        ]
        plugins.append({"use": Talker, "name": "thread"})
        with Arbiter(plugins, circusd.endpoint, circusd.pubsub_endpoint) as arbiter:
            arbiter.wait(all_run, PATIENCE)
            old = forkserver()
            os.kill(old, signal.SIGKILL)
            after = arbiter.wait(
                lambda now: all(
                    now[name].counters.restarts == 1 and now[name].state == "running"
                    for name in names
                ),
                PATIENCE,
            )
            for name in names:
                circusd.wait_command("say", what="stop", plugin=name, timeout=PATIENCE)
                assert after[name].last_error == "the forkserver died"
                assert psutil.Process(after[name].pid).ppid() == forkserver() != old
            circusd.wait_subscribed(4, PATIENCE)
            circusd.publish("web", "spawn")
            arbiter.wait(
                lambda now: all(status.counters.handled == 1 for status in now.values()), PATIENCE
            )
            assert after["thread"].counters.restarts == 0


def test_a_forkserver_that_dies_over_a_request_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spawn = forkserver_module._spawn
    spawned = []

    def spawn_dying(fd: int) -> int:
        spawned.append(spawn(fd))
        if len(spawned) == 1:
            os.kill(spawned[0], signal.SIGKILL)
        return spawned[-1]

    monkeypatch.setattr(forkserver_module, "_spawn", spawn_dying)
    if FORKSERVER.pid is not None:
        os.kill(FORKSERVER.pid, signal.SIGKILL)
        os.waitid(os.P_PID, FORKSERVER.pid, os.WEXITED | os.WNOWAIT)
    with FakeCircusd() as circusd:
        plugin = {"use": Talker, "name": "one", "isolate": True, "host.restart": "never"}
        with Arbiter([plugin], circusd.endpoint, circusd.pubsub_endpoint) as arbiter:
            arbiter.wait(lambda now: now["one"].state == "running", PATIENCE)
            assert spawned[0] != forkserver() == spawned[-1]


def test_a_request_that_a_dying_forkserver_took_is_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = FORKSERVER.request
    asked = []

    def ask_dying(fds: list[int], grace: float) -> None:
        asked.append(forkserver())
        if len(asked) > 1:
            request(fds, grace)
            return
        with stopped(asked[0]):
            request(fds, grace)
            os.kill(asked[0], signal.SIGKILL)

    with FakeCircusd() as circusd, Arbiter(
        [], circusd.endpoint, circusd.pubsub_endpoint
    ) as arbiter:  # fmt: skip
        FORKSERVER.start()
        monkeypatch.setattr(FORKSERVER, "request", ask_dying)
        one = {"use": Talker, "name": "one", "isolate": True, "host.restart": "never"}
        arbiter.add_plugin({**one, "active": False})
        arbiter.start_plugin("one")
        arbiter.wait(lambda now: now["one"].state == "running", PATIENCE)
        assert len(asked) == 2
        assert forkserver() != asked[0]


def test_a_frozen_plugin_of_a_dead_forkserver_is_killed_and_replaced(soon_forced: None) -> None:
    with scene(**{"host.graceful_timeout": 0.1}) as stage:
        process = stage.process
        stage.make("freeze")
        stage.wait(lambda status: process.status() == psutil.STATUS_STOPPED)
        os.kill(forkserver(), signal.SIGKILL)
        stage.wait_replaced()
        assert_ends(process.pid)
        stage.arbiter.wait(lambda now: now["process"].state == "running", PATIENCE)


def test_a_forkserver_that_hangs_keeps_nobody_waiting_and_what_it_starts_late_is_ended(
    soon_forced: None,
) -> None:
    late = {"use": Talker, "name": "late", "isolate": True, "host.restart": "never"}
    with scene() as stage:
        with stopped(forkserver()):
            stage.arbiter.add_plugin({**late, "host.start_timeout": 0.2, "active": False})
            stage.arbiter.start_plugin("late")
            after = stage.arbiter.wait(lambda now: now["late"].state == "failed", PATIENCE)
            assert after["late"].last_error == "not initialised after 0.2 s"
            stage.assert_siblings_work()
        stage.make("kill")
        stage.wait_replaced()
