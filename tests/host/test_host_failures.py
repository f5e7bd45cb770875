# What goes wrong in the host itself, as it starts, runs and stops: its plugins stop, somebody is
# told why, and nobody waits for ever.

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from members import Journal, MakeHost, hosting, in_thread, member
from patience import PATIENCE
from supervision import order

from circusplug import Arbiter, HostConfig, HostError
from circusplug._host.orders import Order
from circusplug._host.supervisor import Supervisor
from circusplug.testing import FakeCircusd


def test_ctrl_c_while_stop_waits_leaves_a_host_that_can_be_stopped(
    host: MakeHost, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    arbiter = host(member("a"))
    arbiter.__enter__()
    with monkeypatch.context() as patch:
        patch.setattr(arbiter._started._aside, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            arbiter.stop()
    assert journal.names("stop") == []
    arbiter.stop()
    assert journal.names("stop") == ["a"]


def test_a_configuration_that_cannot_be_read_for_any_reason_changes_nothing(
    host: MakeHost,
    journal: Journal,
    fake_circusd: FakeCircusd,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def read() -> HostConfig:
        raise ValueError("a defect of the caller's")

    config = host(member("a")).config
    with Arbiter.from_config(config, reload=read) as arbiter:
        in_thread(lambda: order(arbiter, lambda _: arbiter._reloads.begin()))
        for thread in threading.enumerate():
            if thread.name == "circusplug-reload":
                thread.join(PATIENCE)
        fake_circusd.wait_subscribed()
        fake_circusd.publish("web", "spawn")
        journal.wait("a", "spawn")
    assert "not reloaded, all stays as it was" in caplog.text
    assert "ValueError: a defect of the caller's" in caplog.text


def test_a_circusd_that_is_not_there_is_told_of_once(
    host: MakeHost, tmp_path: Path, caplog: pytest.LogCaptureFixture, absent_soon: None
) -> None:
    elsewhere = {key: f"ipc://{tmp_path / key}" for key in ("endpoint", "pubsub_endpoint")}
    with host(*map(member, "abc")) as arbiter:
        arbiter.reconfigure(replace(arbiter.config, **elsewhere))
        arbiter.wait(lambda _: "no circusd at" in caplog.text, PATIENCE)
    assert caplog.text.count("no circusd at ipc://") == 1


def test_a_host_in_the_background_that_fails_stops_its_plugins_and_says_why(
    host: MakeHost,
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_: Supervisor) -> None:
        raise ZeroDivisionError("a defect of the host's")

    arbiter = host(member("a"), member("b"))
    with arbiter:
        monkeypatch.setattr(Supervisor, "run_timers", fail)
        arbiter._started._mailbox.put(None)  # type: ignore[arg-type]
        order_after = threading.Thread(target=arbiter.stop)
        journal.wait("a", "stop")
        order_after.start()
        order_after.join(PATIENCE)
    assert journal.names("stop") == ["b", "a"]
    assert arbiter.failure == "ZeroDivisionError: a defect of the host's"
    assert "the host has failed" in caplog.text


def test_a_host_that_fails_stops_its_plugins_and_raises_why(
    host: MakeHost, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Supervisor) -> None:
        raise ZeroDivisionError("a defect of the host's")

    arbiter = host(member("a"), member("b"))
    with hosting(arbiter) as raised:
        for name in "ab":
            journal.wait(name, "init")
        monkeypatch.setattr(Supervisor, "run_timers", fail)
        arbiter._started._mailbox.put(None)  # type: ignore[arg-type]
        journal.wait("a", "stop")
    assert journal.names("stop") == ["b", "a"]
    assert [type(error) for error in raised] == [ZeroDivisionError]


def test_a_host_in_the_background_that_fails_at_once_says_so_instead_of_waiting(
    host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Supervisor) -> None:
        raise ZeroDivisionError("a defect of the host's")

    told: list[str] = []

    def start() -> None:
        try:
            host(member("a")).__enter__()
        except HostError as error:
            told.append(str(error))

    monkeypatch.setattr(Supervisor, "run_timers", fail)
    starting = threading.Thread(target=start, daemon=True)
    starting.start()
    starting.join(PATIENCE)
    assert told == ["ZeroDivisionError: a defect of the host's"]


def test_who_asks_for_something_as_the_host_stops_is_told(host: MakeHost) -> None:
    told: list[str] = []

    def ask() -> None:
        try:
            arbiter.restart_plugin("a")
        except HostError as error:
            told.append(str(error))

    asking = threading.Thread(target=ask, daemon=True)

    def stop_meanwhile(_: Supervisor) -> None:
        asking.start()
        while not any(isinstance(item, Order) for item in arbiter._started._mailbox._items.copy()):
            os.sched_yield()
        arbiter.stop()

    with host(member("a")) as arbiter:
        with contextlib.suppress(HostError):
            in_thread(lambda: order(arbiter, stop_meanwhile))
        asking.join(PATIENCE)
        assert told == ["the host has stopped"]


def test_without_a_forkserver_the_host_says_why_it_does_not_start(
    host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError("AF_UNIX path too long")

    monkeypatch.setattr("circusplug._isolated.forkserver.start_forkserver", fail)
    with pytest.raises(HostError, match=r"isolated plugins come from: AF_UNIX path too long"):
        host(member("a", isolate=True)).start()
