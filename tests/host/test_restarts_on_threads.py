# When a plugin on a thread is started again, and when no more; test_restart_matrix.py has the whole
# matrix, for both runners.

from __future__ import annotations

import threading
from typing import Any

import pytest
from members import (
    Fails,
    Journal,
    MakeHost,
    NeverInitialised,
    RaisesInInit,
    StopsItself,
    counts,
    hosting,
    in_thread,
    member,
    state_is,
)
from patience import PATIENCE

from circusplug import HostError
from circusplug.testing import FakeCircusd


def test_a_plugin_that_fails_to_start_is_started_again_until_it_runs(
    host: MakeHost, journal: Journal
) -> None:
    with host(member("a", Fails, failures=2, **{"host.restart_delay": 0})) as arbiter:
        status = arbiter.wait(state_is("a", "running"), PATIENCE)["a"]
        assert status.counters.restarts == 2
        assert "not yet" in (status.last_error or "")
    assert journal.of("a") == ["init", "init", "init", "stop"]


def test_a_plugin_that_keeps_failing_is_given_up(
    host: MakeHost, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"host.restart_delay": 0, "host.max_restarts": 2}
    with host(member("a", Fails, failures=99, **options), member("b")) as arbiter:
        arbiter.wait(state_is("b", "running"), PATIENCE)
        status = arbiter.wait(state_is("a", "failed"), PATIENCE)["a"]
        assert status.counters.restarts == 2
        assert journal.of("a") == ["init"] * 3
        assert arbiter.plugins["b"].state == "running"
        assert arbiter.failure is None
    assert "a has failed for good after 3 failures" in caplog.text


def test_with_on_error_continue_a_plugin_goes_on(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd, caplog: pytest.LogCaptureFixture
) -> None:
    with host(member("a", Fails)) as arbiter:
        arbiter.wait(state_is("a", "running"), PATIENCE)
        fake_circusd.wait_subscribed(1, PATIENCE)
        for _ in range(3):
            fake_circusd.publish("web", "fail")
        fake_circusd.publish("web", "spawn")
        journal.wait("a", "spawn")
        status = arbiter.wait(counts("a", "handled", 1), PATIENCE)["a"]
        assert (status.state, status.counters.errors, status.counters.received) == ("running", 3, 4)
        assert status.last_error == "handle_recv: ZeroDivisionError: cannot handle it"
    assert "Traceback" in caplog.text


def test_with_on_error_restart_a_plugin_starts_anew_after_max_errors(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd
) -> None:
    options = {"host.on_error": "restart", "host.max_errors": 2, "host.restart_delay": 0}
    with host(member("a", Fails, **options)) as arbiter:
        arbiter.wait(state_is("a", "running"), PATIENCE)
        fake_circusd.wait_subscribed(1, PATIENCE)
        first = arbiter.instance("a")
        fake_circusd.publish("web", "fail")
        fake_circusd.publish("web", "spawn")
        journal.wait("a", "spawn")
        assert arbiter.instance("a") is first
        fake_circusd.publish("web", "fail")
        journal.wait("a", "init", 2)
        arbiter.wait(state_is("a", "running"), PATIENCE)
        assert arbiter.instance("a") is not first
        assert arbiter.plugins["a"].counters.restarts == 1
    assert journal.of("a") == ["init", "fail", "spawn", "fail", "stop", "init", "stop"]


def test_with_on_error_stop_a_plugin_is_stopped_for_good(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd
) -> None:
    with host(member("a", Fails, **{"host.on_error": "stop"}), member("b")) as arbiter:
        arbiter.wait(state_is("b", "running"), PATIENCE)
        fake_circusd.wait_subscribed(2, PATIENCE)
        fake_circusd.publish("web", "fail")
        status = arbiter.wait(state_is("a", "failed"), PATIENCE)["a"]
        assert "cannot handle it" in (status.last_error or "")
        assert arbiter.plugins["b"].state == "running"
    assert journal.of("a") == ["init", "fail", "stop"]


@pytest.mark.parametrize(
    ("restart", "state", "noted"),
    [
        ("on-failure", "stopped", ["init", "spawn", "stop"]),
        ("never", "stopped", ["init", "spawn", "stop"]),
        ("always", "running", ["init", "spawn", "stop", "init"]),
    ],
)
def test_a_plugin_that_stops_itself_starts_again_only_with_restart_always(
    restart: str,
    state: str,
    noted: list[str],
    host: MakeHost,
    journal: Journal,
    fake_circusd: FakeCircusd,
) -> None:
    options = {"host.restart": restart, "host.restart_delay": 0}
    with host(member("a", StopsItself, **options)) as arbiter:
        fake_circusd.wait_subscribed(1, PATIENCE)
        fake_circusd.publish("web", "spawn")
        journal.wait("a", "stop")
        journal.wait("a", "init", noted.count("init"))
        arbiter.wait(state_is("a", state), PATIENCE)
        assert journal.of("a") == noted
        assert arbiter.plugins["a"].last_error is None


class RaisesAfter(RaisesInInit):
    """Waits for something before it raises."""

    def handle_init(self) -> None:
        self.config["after"]()
        super().handle_init()


@pytest.mark.parametrize("options", [{}, {"host.restart_delay": 0, "host.max_restarts": 1}])
def test_a_critical_plugin_that_gives_up_takes_the_host_with_it(
    options: dict[str, Any], host: MakeHost, journal: Journal
) -> None:
    rules = options or {"host.restart": "never"}
    others = ("a", "c")

    def all_run() -> None:
        for name in others:
            arbiter.wait(state_is(name, "running"), PATIENCE)

    bad = member("bad", RaisesAfter, after=all_run, **{"host.critical": True, **rules})
    arbiter = host(member("a"), bad, member("c"))
    with pytest.raises(HostError, match=r"bad is critical and has failed for good: .*handle_init"):
        arbiter.start()
    assert arbiter.failure is not None
    with pytest.raises(HostError, match=r"^the host has stopped$"):
        in_thread(lambda: arbiter.start_plugin("a"))
    assert journal.names("stop") == ["c", "a"]
    assert [each.state for each in arbiter.plugins.values()] == ["stopped", "failed", "stopped"]


def test_in_the_background_a_critical_plugin_that_gives_up_at_once_shows_as_a_failure(
    host: MakeHost,
) -> None:
    rules = {"host.critical": True, "host.restart": "never"}
    with host(member("bad", RaisesInInit, **rules), member("a")) as arbiter:
        assert str(arbiter.failure).startswith("bad is critical and has failed for good: ")
    assert [each.state for each in arbiter.plugins.values()] == ["failed", "stopped"]


def test_fail_stops_the_host_and_start_raises_the_reason(host: MakeHost, journal: Journal) -> None:
    arbiter = host(member("a"))
    with hosting(arbiter) as raised:
        journal.wait("a", "init")
        arbiter.fail("circusd is gone")
        journal.wait("a", "stop")
    assert [str(error) for error in raised] == ["circusd is gone"]
    assert isinstance(raised[0], HostError)


def test_a_plugin_waiting_for_its_restart_is_stopped_with_the_host(
    host: MakeHost, journal: Journal
) -> None:
    options = {"host.restart_delay": 10**6, "host.restart_delay_max": 10**9}
    with host(member("a", Fails, failures=99, **options)) as arbiter:
        arbiter.wait(state_is("a", "backoff"), PATIENCE)
    assert arbiter.plugins["a"].state == "stopped"
    assert journal.of("a") == ["init"]


@pytest.mark.parametrize("never", ["inf", 10**12])
def test_a_time_limit_may_be_endless(
    never: Any, host: MakeHost, journal: Journal, release: threading.Event
) -> None:
    names = ["start_timeout", "graceful_timeout", "restart_delay_max", "restart_reset"]
    options = {f"host.{name}": never for name in [*names, "stall_timeout"]}
    slow = member("slow", NeverInitialised, **options)
    arbiter = host(slow, stop_timeout=float(never))
    with hosting(arbiter) as raised:
        journal.wait("slow", "init")
        release.set()
        arbiter.wait(state_is("slow", "running"), PATIENCE)
        arbiter.restart_plugin("slow")
        arbiter.wait(state_is("slow", "running"), PATIENCE)
    assert raised == []
    assert journal.of("slow") == ["init", "stop", "init", "stop"]
