# The system has no thread or descriptor left for a host or a plugin: it fails alone and says so.

from __future__ import annotations

import errno
import threading
from typing import Any

import pytest
from members import Journal, MakeHost, member, state_is
from patience import PATIENCE

from circusplug import HostError
from circusplug._loop.plugin_loop import PluginLoop
from circusplug._plugin.worker import Worker
from circusplug._runners.runner import Hooks
from circusplug.testing import FakeCircusd


def test_a_host_in_the_background_without_a_thread_left_leaves_nothing(
    host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def start_others(thread: threading.Thread) -> None:
        if thread.name == "circusplug-arbiter":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_others)
    arbiter = host(member("a"))
    with pytest.raises(HostError, match="no thread for the host: can't start new thread"), arbiter:
        pass
    assert arbiter._started.over.is_set()


def test_a_plugin_without_a_thread_left_keeps_nothing_open(
    host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    loops: list[PluginLoop] = []
    start = threading.Thread.start

    def start_others(thread: threading.Thread) -> None:
        if thread.name == "plugin:a":
            raise RuntimeError("can't start new thread")
        start(thread)

    def make_worker(*args: Any, **options: Any) -> Worker:
        worker = Worker(*args, **options)
        loops.append(worker.loop)
        return worker

    monkeypatch.setattr(threading.Thread, "start", start_others)
    arbiter = host(member("a", **{"host.restart": "never"}))
    arbiter._hooks = Hooks(make_worker=make_worker)
    with arbiter:
        status = arbiter.wait(state_is("a", "failed"), PATIENCE)["a"]
    assert "no thread for it: can't start new thread" in (status.last_error or "")
    assert [loop.is_closed() for loop in loops] == [True]


def test_a_plugin_that_the_system_has_no_means_for_fails_alone(
    host: MakeHost,
    journal: Journal,
    fake_circusd: FakeCircusd,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make = Worker.__init__

    def scarce(worker: Worker, name: str, *args: Any, **kwargs: Any) -> None:
        if name == "bad":
            raise OSError(errno.EMFILE, "Too many open files")
        make(worker, name, *args, **kwargs)

    monkeypatch.setattr(Worker, "__init__", scarce)
    bad = member("bad", **{"host.restart_delay": 0, "host.max_restarts": 2})
    with host(member("a"), bad, member("c")) as arbiter:
        status = arbiter.wait(state_is("bad", "failed"))["bad"]
        assert status.counters.restarts == 2
        error = "cannot be started: OSError: [Errno 24] Too many open files"
        assert status.last_error == error
        fake_circusd.wait_subscribed(2)
        fake_circusd.publish("web", "spawn")
        journal.wait("a", "spawn")
        journal.wait("c", "spawn")


def test_a_loop_that_cannot_be_made_leaves_nothing_to_complain_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_descriptors() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("socket.socketpair", no_descriptors)
    with pytest.raises(OSError, match="Too many"):
        Worker("a")
