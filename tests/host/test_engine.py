# One run of a host: what its way to circusd tells it, and when its plugins count as ready.

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from members import (
    Journal,
    MakeHost,
    hosting,
    in_thread,
    member,
    slow_to_load,
    state_is,
)
from patience import PATIENCE, wait_while

from circusplug import Arbiter, HostError
from circusplug._host.runner_factory import RunnerFactory

Told = dict[str, Callable[..., object]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """How a host is told of its circusd; that there is a way to it is left to the test."""
    found: Told = {}
    open_ = RunnerFactory.open

    def open_quietly(self: RunnerFactory, on_up: Any, on_failed: Any, on_quit: Any) -> object:
        found.update(up=on_up, failed=on_failed, quit=on_quit)
        return open_(self, lambda: None, on_failed, on_quit)

    monkeypatch.setattr(RunnerFactory, "open", open_quietly)
    return found


def is_set_up(arbiter: Arbiter) -> None:
    """Wait until a host looks after its plugins; one that has ended refuses."""
    arbiter.wait(lambda _: arbiter._started.is_set_up, PATIENCE)
    arbiter._started.order(lambda _: (None, ()))


def test_a_circusd_that_is_told_to_quit_ends_the_host_without_an_error(
    host: MakeHost, journal: Journal, told: Told
) -> None:
    arbiter = host(member("a"))
    with hosting(arbiter) as raised:
        is_set_up(arbiter)
        told["up"]()
        journal.wait("a", "init")
        told["quit"]()
        journal.wait("a", "stop")
    assert (raised, arbiter.failure) == ([], None)


def test_a_circusd_that_fails_ends_the_host_with_its_reason(
    host: MakeHost, journal: Journal, told: Told
) -> None:
    arbiter = host(member("a"))
    with hosting(arbiter) as raised:
        is_set_up(arbiter)
        told["failed"]("circusd crashed")
        arbiter._started.over.wait(PATIENCE)
    assert [str(error) for error in raised] == ["circusd crashed"]
    assert journal.of("a") == []


def test_a_circusd_that_does_not_come_up_is_told_to_who_waits_for_the_host(
    host: MakeHost, journal: Journal, told: Told
) -> None:
    arbiter = host(member("a"))

    def fail() -> None:
        wait_while(lambda: arbiter._engine is None)
        is_set_up(arbiter)
        told["failed"]("no ssh tunnel")

    failing = threading.Thread(target=fail)
    failing.start()
    with pytest.raises(HostError, match=r"^no ssh tunnel$"), arbiter:
        pass
    failing.join(PATIENCE)
    assert arbiter._started.over.is_set()
    assert journal.of("a") == []


def test_orders_are_taken_from_the_time_on_when_there_are_plugins(host: MakeHost) -> None:
    arbiter = host(member("a"))
    engine = arbiter._make_engine()
    for change in (arbiter.stop_plugin, arbiter.start_plugin):
        with pytest.raises(HostError, match="has not been started"):
            in_thread(lambda change=change: change("a"))
    engine.run_aside()
    arbiter.stop_plugin("a")
    arbiter.stop()


def test_plugins_that_wait_for_the_way_to_circusd_are_not_done(
    host: MakeHost, journal: Journal, told: Told
) -> None:
    arbiter = host(member("a"), exit_when_done=True)
    with hosting(arbiter) as raised:
        is_set_up(arbiter)
        assert arbiter.plugins["a"].state == "stopped"
        told["up"]()
        arbiter.wait(state_is("a", "running"), PATIENCE)
        is_set_up(arbiter)
        arbiter.stop_plugin("a")
        arbiter._started.over.wait(PATIENCE)
    assert raised == []
    assert journal.of("a") == ["init", "stop"]


def test_all_listen_only_when_each_has_come_to_its_constructor(
    host: MakeHost, journal: Journal, release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug._host.managed_plugin.READY_WAIT", 0.05)
    with host(slow_to_load(journal, release)) as arbiter:  # which goes on without it
        journal.wait("slow", "load")
        listening = arbiter._started._factory.listening
        assert not listening.done()
        release.set()
        assert listening.result(PATIENCE) is None
