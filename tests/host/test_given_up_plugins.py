# Plugins that a host gives up, as they start or stop: which ones, and until when it keeps them.

from __future__ import annotations

import threading
from typing import Any

import pytest
from members import Journal, MakeHost, Member, NeverInitialised, Stuck, in_thread, member, state_is
from patience import PATIENCE
from supervision import order, runner_of

from circusplug._host.supervisor import Supervisor
from circusplug.testing import FakeCircusd


def test_lives_that_were_given_up_and_are_over_are_forgotten(
    host: MakeHost, journal: Journal, release: threading.Event
) -> None:
    release.set()
    with host(member("a")) as arbiter:
        for _ in range(3):
            runner = order(arbiter, lambda supervisor: runner_of(supervisor, "a"))
            arbiter.stop_plugin("a")
            order(arbiter, lambda supervisor, runner=runner: supervisor._leave_behind(runner))
            arbiter.start_plugin("a")
        assert order(arbiter, lambda supervisor: supervisor._left_behind) == []


def test_a_life_whose_thread_goes_on_after_its_stop_is_not_forgotten(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd, release: threading.Event
) -> None:
    with host(member("a", Stuck, **{"host.graceful_timeout": 0})) as arbiter:
        fake_circusd.wait_subscribed()
        fake_circusd.publish("web", "block")
        journal.wait("a", "block")
        arbiter.stop_plugin("a")
        assert not order(arbiter, lambda supervisor: supervisor.all_ended)
        release.set()
        journal.thread("a", "block").join(PATIENCE)
        assert order(arbiter, lambda supervisor: supervisor.all_ended)


def test_a_plugin_that_has_come_up_is_not_given_up_for_a_host_that_is_busy(
    host: MakeHost,
    release: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slow(NeverInitialised):
        def handle_connect(self) -> None:
            initialised.release()

    initialised = threading.Semaphore(0)
    monkeypatch.setattr("circusplug._host.managed_plugin.READY_WAIT", 0.05)
    with host(member("slow", Slow)) as arbiter:

        def overdue(supervisor: Supervisor) -> str:
            release.set()
            plugin = supervisor._plugins["slow"]
            assert initialised.acquire(timeout=PATIENCE)
            plugin._start_deadline = 0.0
            plugin.run_timers(0.0)
            return plugin.state

        assert in_thread(lambda: order(arbiter, overdue)) == "starting"
        assert arbiter.wait(state_is("slow", "running"))["slow"].counters.restarts == 0


def test_what_is_given_up_in_its_constructor_is_not_initialised(
    host: MakeHost, journal: Journal, release: threading.Event
) -> None:
    class Slow(Member):
        def __init__(self, *args: Any, **config: Any) -> None:
            super().__init__(*args, **config)
            config["release"].wait(PATIENCE)

        def stop(self) -> None:
            super().stop()
            self.note("stopped")

    slow = member("slow", Slow, **{"host.restart": "never", "host.start_timeout": 0.1})
    with host(slow) as arbiter:
        status = arbiter.wait(state_is("slow", "failed"))["slow"]
        assert status.last_error == "not initialised after 0.1 s"
        release.set()
        journal.wait("slow", "stopped")
        journal.thread("slow", "stopped").join(PATIENCE)
    assert journal.of("slow") == ["stopped"]
