# `handle_stop` of the plugins of a host: each one runs, once, on the thread it should, whatever
# another's raises or does, and all share one time.

from __future__ import annotations

import asyncio
import os
import threading
import time
from dataclasses import replace

import pytest
from members import Journal, MakeHost, Member, Stuck, hosting, in_thread, member, state_is
from patience import PATIENCE
from supervision import order, runner_of

from circusplug._host.supervisor import Supervisor
from circusplug.testing import FakeCircusd


class Odd(BaseException):
    pass


class Raises(Member):
    """Raises its option `error` in `handle_stop`."""

    def handle_stop(self) -> None:
        super().handle_stop()
        raise self.config["error"]


@pytest.mark.parametrize("background", [True, False], ids=["background", "blocking"])
@pytest.mark.parametrize(
    "error", [asyncio.CancelledError(), GeneratorExit(), Odd("odd"), SystemExit(3)], ids=repr
)
def test_whatever_a_handle_stop_raises_the_others_stop_all_the_same(
    host: MakeHost, journal: Journal, error: BaseException, background: bool
) -> None:
    arbiter = host(member("a"), member("bad", Raises, error=error), member("c"))
    with arbiter if background else hosting(arbiter):
        for name in ("a", "bad", "c"):
            journal.wait(name, "init")
    assert journal.names("stop") == ["c", "bad", "a"]
    assert {status.state for status in arbiter.plugins.values()} == {"stopped"}
    assert str(arbiter.plugins["bad"].last_error).startswith("handle_stop: ")


def test_a_restart_after_a_handle_stop_that_was_cancelled_comes(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd
) -> None:
    class Cancelled(Raises):
        def handle_recv(self, data: tuple[bytes, bytes]) -> None:
            raise ZeroDivisionError

    options = {"host.on_error": "restart", "host.restart_delay": 0}
    bad = member("bad", Cancelled, error=asyncio.CancelledError(), **options)
    with host(bad):
        fake_circusd.wait_subscribed()
        fake_circusd.publish("web", "spawn")
        journal.wait("bad", "init", 2)


def test_ctrl_c_in_one_handle_stop_does_not_cost_the_others_theirs(
    host: MakeHost, journal: Journal
) -> None:
    arbiter = host(member("a"), member("b", Raises, error=KeyboardInterrupt()), member("c"))
    with pytest.raises(KeyboardInterrupt), arbiter:
        pass
    assert journal.names("stop") == ["c", "b", "a"]
    arbiter.stop()
    assert {status.state for status in arbiter.plugins.values()} == {"stopped"}


def test_a_handle_stop_may_stop_its_host(host: MakeHost, journal: Journal) -> None:
    class Thorough(Member):
        def handle_stop(self) -> None:
            arbiter.stop()
            super().handle_stop()

    arbiter = host(member("a", Thorough))
    with arbiter:
        pass
    assert journal.names("stop") == ["a"]


def test_handle_stop_is_the_hosts_even_if_another_thread_stops_the_plugin(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd
) -> None:
    class Leaves(Member):
        def handle_recv(self, data: tuple[bytes, bytes]) -> None:
            self.loop.stop()

    with host(member("a", Leaves)) as arbiter:

        def while_parked(supervisor: Supervisor) -> None:
            runner = runner_of(supervisor, "a")
            fake_circusd.publish("web", "spawn")
            assert runner._worker is not None
            assert runner._worker.parked.wait(PATIENCE)
            in_thread(arbiter.instance("a").stop)
            assert journal.names("stop") == []

        fake_circusd.wait_subscribed()
        in_thread(lambda: order(arbiter, while_parked))
        arbiter.wait(state_is("a", "stopped"))
        assert journal.thread("a", "stop").name == "circusplug-arbiter"


@pytest.mark.parametrize("graceful_timeout", [0, 5], ids=["plugin", "host"])
def test_a_plugin_that_waits_for_events_is_stopped_without_any_grace(
    host: MakeHost,
    journal: Journal,
    graceful_timeout: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What a plugin always gets, be its grace what it may; more of it on a busy machine.
    monkeypatch.setattr("circusplug._plugin.plugin_thread.PARK_WAIT", PATIENCE)
    plugins = [member(name, **{"host.graceful_timeout": graceful_timeout}) for name in "abc"]
    with host(*plugins, stop_timeout=0.0 if graceful_timeout else 10.0) as arbiter:
        pass
    assert journal.names("stop") == ["c", "b", "a"]
    assert {status.state for status in arbiter.plugins.values()} == {"stopped"}


def test_a_plugin_that_stops_its_loop_while_it_parks_is_stopped_cleanly(
    host: MakeHost, journal: Journal
) -> None:
    class Undone(Member):
        def handle_init(self) -> None:
            super().handle_init()
            self.task = self.loop.create_task(self.wait())

        async def wait(self) -> None:
            try:
                await asyncio.sleep(PATIENCE)
            finally:
                self.loop.stop()

    with host(member("a", Undone)) as arbiter:
        pass
    status = arbiter.plugins["a"]
    assert (status.state, status.last_error) == ("stopped", None)
    assert journal.of("a") == ["init", "stop"]


def test_orders_given_in_a_handle_stop_are_carried_out_after_it(
    host: MakeHost, journal: Journal
) -> None:
    class Renews(Member):
        def handle_stop(self) -> None:
            if self.journal.count("a", "init") == 1:
                arbiter.restart_plugin("a")
                arbiter.add_plugin({"use": Member, "name": "late", "journal": self.journal})
            super().handle_stop()

    with host(member("a", Renews)) as arbiter:
        arbiter.stop_plugin("a")
        journal.wait("late", "init")
        assert journal.of("a") == ["init", "stop", "init"]
    assert journal.names("stop") == ["a", "late", "a"]


def test_a_new_stop_timeout_holds_for_handle_stop_too(host: MakeHost) -> None:
    with host(member("a"), stop_timeout=1.0) as arbiter:
        arbiter.reconfigure(replace(arbiter.config, stop_timeout=30.0))
        assert arbiter._started._guard.seconds == 30.0


def test_all_handle_stops_of_a_host_that_stops_share_its_stop_timeout(host: MakeHost) -> None:
    with host(member("a"), stop_timeout=1e6) as arbiter:
        arbiter.reconfigure(replace(arbiter.config, stop_timeout=1e9))
        guard, before = arbiter._started._guard, time.monotonic()
        assert guard._deadline is None
    assert guard._deadline is not None
    assert before + 1e9 <= guard._deadline <= time.monotonic() + 1e9


@pytest.mark.leaves_thread("a plugin blocks beyond its grace time, and is left behind")
def test_the_thread_that_is_left_behind_may_not_run_handle_stop_again(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd, release: threading.Event
) -> None:
    class Late(Stuck):
        def block(self) -> None:
            super().block()
            self.stop()
            self.note("back")

    with host(member("a", Late, **{"host.graceful_timeout": 0.05})) as arbiter:
        fake_circusd.wait_subscribed()
        fake_circusd.publish("web", "block")
        journal.wait("a", "block")
    os.fstat(arbiter._started._mailbox.wakeup_fd)  # where that thread may still write
    release.set()
    journal.wait("a", "back")
    assert journal.of("a") == ["init", "block", "stop", "back"]
