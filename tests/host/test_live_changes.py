# Changes to the plugins of a host that runs, from any thread.

from __future__ import annotations

import threading
from typing import Any

import pytest
from members import (
    Acts,
    Fails,
    Journal,
    MakeHost,
    Member,
    NeverInitialised,
    hosting,
    in_thread,
    member,
    slow_to_load,
    state_is,
)
from patience import PATIENCE

from circusplug import Arbiter, HostError, SpecError
from circusplug._host import engine as _engine
from circusplug.testing import FakeCircusd


@pytest.mark.parametrize("background", [True, False], ids=["background", "blocking"])
def test_plugins_are_stopped_started_and_restarted_from_another_thread(
    background: bool, host: MakeHost, journal: Journal
) -> None:
    arbiter = host(member("a"), member("b"))
    with arbiter if background else hosting(arbiter):
        journal.wait("a", "init")
        journal.wait("b", "init")
        arbiter.stop_plugin("a")
        assert arbiter.plugins["a"].state == "stopped"
        assert journal.of("a") == ["init", "stop"]
        arbiter.stop_plugin("a")
        arbiter.start_plugin("a")
        arbiter.wait(state_is("a", "running"))
        arbiter.start_plugin("a")
        first = arbiter.instance("a")
        arbiter.restart_plugin("a")
        arbiter.wait(state_is("a", "running"))
        assert arbiter.instance("a") is not first
        assert journal.of("a") == ["init", "stop", "init", "stop", "init"]
        assert journal.of("b") == ["init"]
        assert arbiter.plugins["a"].counters.restarts == 0


def test_plugins_are_added_and_removed_while_the_host_runs(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd
) -> None:
    with host(member("a")) as arbiter:
        assert arbiter.add_plugin(member("b", journal=journal)) == "b"
        assert arbiter.add_plugin(member("c", journal=journal, active=False)) == "c"
        arbiter.wait(state_is("b", "running"))
        with pytest.raises(HostError, match="'b' already"):
            arbiter.add_plugin(member("b", journal=journal))
        with pytest.raises(SpecError, match=r"did you mean 'host\.restart'"):
            arbiter.add_plugin(member("d", **{"host.restrat": "never"}))
        fake_circusd.wait_subscribed(2)
        fake_circusd.publish("web", "spawn")
        journal.wait("b", "spawn")
        assert [spec.name for spec in arbiter.config.plugins] == ["a", "b", "c"]
        idle = {"use": "no.such.Class", "name": "idle", "active": False}
        assert arbiter.add_plugin(idle) == "idle"  # it is not to be started
        for name in ("a", "c", "idle"):
            arbiter.remove_plugin(name)
        assert list(arbiter.plugins) == ["b"]
        with pytest.raises(HostError, match="no plugin named 'a'"):
            arbiter.start_plugin("a")
    assert journal.names("stop") == ["a", "b"]


def test_plugins_that_are_added_have_descriptors(
    host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int] = []
    for module in ("supervisor", "resources"):
        monkeypatch.setattr(f"circusplug._host.{module}.raise_descriptor_limit", limits.append)
    with host(member("a"), member("b")) as arbiter:
        for name in ("c", "d"):
            arbiter.add_plugin({**member(name), "active": False})
    assert limits == [2, 3, 4]


def test_stopping_a_plugin_that_waits_for_its_restart_ends_the_attempts(
    host: MakeHost, journal: Journal
) -> None:
    options = {"host.restart_delay": 10**6, "host.restart_delay_max": 10**9}
    with host(member("a", Fails, failures=1, **options)) as arbiter:
        arbiter.wait(state_is("a", "backoff"))
        arbiter.stop_plugin("a")
        assert arbiter.plugins["a"].state == "stopped"
        arbiter.start_plugin("a")
        arbiter.wait(state_is("a", "running"))
        assert journal.of("a") == ["init", "init"]


def test_a_plugin_that_was_given_up_can_be_started_by_hand(
    host: MakeHost, journal: Journal
) -> None:
    options = {"host.restart_delay": 0, "host.max_restarts": 1}
    with host(member("a", Fails, failures=3, **options)) as arbiter:
        arbiter.wait(state_is("a", "failed"))
        arbiter.start_plugin("a")  # its failures are forgotten: one more, and then it runs
        arbiter.wait(state_is("a", "running"))
    assert journal.of("a") == ["init"] * 4 + ["stop"]


def test_an_inactive_plugin_can_be_started_by_hand(host: MakeHost, journal: Journal) -> None:
    with host(member("a", active="false")) as arbiter:
        arbiter.start_plugin("a")
        arbiter.wait(state_is("a", "running"))
    assert journal.of("a") == ["init", "stop"]


def test_a_plugin_can_change_its_host_from_its_own_thread(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd
) -> None:
    def act() -> None:
        arbiter.stop_plugin("b")
        arbiter.add_plugin(member("c", journal=journal))
        arbiter.restart_plugin("a")

    arbiter = host(member("a", Acts, act=act), member("b"))
    with arbiter:
        fake_circusd.wait_subscribed(2)
        fake_circusd.publish("web", "spawn")
        journal.wait("b", "stop")
        journal.wait("c", "init")
        journal.wait("a", "init", 2)
        assert journal.of("a") == ["init", "spawn", "stop", "init"]


def test_handle_stop_may_change_the_host_while_only_its_plugin_stops(
    host: MakeHost, journal: Journal
) -> None:
    class Replaced(Member):
        def handle_stop(self) -> None:
            super().handle_stop()
            arbiter.start_plugin("b")

    arbiter = host(member("a", Replaced), member("b", active=False))
    # On the thread of `start`, which is the one that handle_stop runs on.
    with hosting(arbiter):
        journal.wait("a", "init")
        arbiter.stop_plugin("a")
        arbiter.wait(state_is("b", "running"))
    assert journal.names("stop") == ["a", "b"]


@pytest.mark.parametrize("background", [True, False], ids=["background", "blocking"])
def test_while_the_host_stops_nothing_can_be_started(
    background: bool, host: MakeHost, journal: Journal
) -> None:
    class Stubborn(Member):
        def handle_stop(self) -> None:
            super().handle_stop()
            for change in (arbiter.start_plugin, arbiter.restart_plugin):
                try:
                    change("b")
                except HostError as error:
                    self.note(str(error))

    arbiter = host(member("a", Stubborn), member("b"))
    with arbiter if background else hosting(arbiter):
        journal.wait("a", "init")
        journal.wait("b", "init")
    assert journal.of("a") == ["init", "stop", *["the host has stopped"] * 2]
    assert journal.of("b") == ["init", "stop"]
    with pytest.raises(HostError, match="stopped"):
        arbiter.start_plugin("b")


class Orders:
    """Tells of the orders, stops included, that are put into a host's mailbox."""

    def __init__(self, arbiter: Arbiter, monkeypatch: pytest.MonkeyPatch) -> None:
        mailbox = arbiter._started._mailbox
        self._put, self._given = mailbox.put, threading.Semaphore(0)
        monkeypatch.setattr(mailbox, "put", self._note)

    def _note(self, item: Any) -> None:
        self._put(item)
        # What a plugin's thread has to say may come at any time.
        if isinstance(item, _engine.Order) or item is _engine._Signal.STOP:
            self._given.release()

    def wait(self, count: int = 1) -> None:
        for _ in range(count):
            assert self._given.acquire(timeout=PATIENCE)


def test_handle_stop_can_wait_for_a_thread_that_gives_the_host_orders(
    host: MakeHost, journal: Journal, release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Helped(Member):
        def handle_init(self) -> None:
            self.helper = threading.Thread(target=self.help)
            super().handle_init()

        def help(self) -> None:
            try:
                arbiter.start_plugin("slow")
            except HostError as error:
                self.note(str(error))

        def handle_stop(self) -> None:
            super().handle_stop()
            self.helper.join(PATIENCE)
            self.note("joined" if not self.helper.is_alive() else "still waiting")

    arbiter = host(member("a", Helped))
    with arbiter:
        helper = arbiter.instance("a").helper
        slow = member("slow", NeverInitialised, journal=journal, release=release)
        slow["active"] = False
        arbiter.add_plugin(slow)
        orders = Orders(arbiter, monkeypatch)
        helper.start()
        orders.wait()
        stopper = threading.Thread(target=arbiter.stop)
        stopper.start()
        orders.wait()
        release.set()
        stopper.join(PATIENCE)
        assert not stopper.is_alive()
    assert sorted(journal.of("a")[1:-1]) == ["stop", "the host has stopped"]
    assert journal.of("a")[-1] == "joined"


def test_a_plugin_that_is_removed_before_its_turn_is_not_started(
    host: MakeHost, journal: Journal, release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug._host.start_queue.IMPORT_WAIT", PATIENCE)
    arbiter = host(slow_to_load(journal, release), member("b"), member("c"))
    with hosting(arbiter):
        journal.wait("slow", "load")
        callers = [
            threading.Thread(target=arbiter.remove_plugin, args=("b",)),
            threading.Thread(target=arbiter.stop_plugin, args=("c",)),
        ]
        orders = Orders(arbiter, monkeypatch)
        for caller in callers:
            caller.start()
        orders.wait(len(callers))
        release.set()
        for caller in callers:
            caller.join(PATIENCE)
        arbiter.wait(state_is("slow", "running"))
        in_thread(lambda: arbiter.stop_plugin("slow"))  # everything before it has been done
        assert list(arbiter.plugins) == ["slow", "c"]
        assert arbiter.plugins["c"].state == "stopped"
    assert journal.names("init") == ["slow"]
