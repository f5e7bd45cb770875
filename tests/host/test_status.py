# What a host tells of its plugins.

from __future__ import annotations

import logging
import os
import threading
import time

import pytest
from members import Acts, Journal, MakeHost, Member, Stuck, counts, member, state_is
from patience import PATIENCE

from circusplug import HostError
from circusplug.testing import FakeCircusd


def test_before_the_start_plugins_tells_what_there_will_be(host: MakeHost) -> None:
    arbiter = host(member("a"), member("b", active=False, isolate=True))
    assert [(name, each.state) for name, each in arbiter.plugins.items()] == [
        ("a", "stopped"),
        ("b", "inactive"),
    ]
    assert [each.isolated for each in arbiter.plugins.values()] == [False, True]
    assert {each.use for each in arbiter.plugins.values()} == {"members.Member"}
    assert arbiter.config.plugins[0].name == "a"
    assert arbiter.failure is None
    with pytest.raises(HostError, match="not been started"):
        arbiter.instance("a")


def test_plugins_tells_state_counters_last_error_and_thread(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd
) -> None:
    def act() -> None:
        plugin = arbiter.instance("a")
        plugin.call("list")
        plugin.cast("incr", name="web")

    arbiter = host(member("a", Acts, act=act))
    before = time.time()
    with arbiter:
        fake_circusd.wait_subscribed()
        fake_circusd.publish("web", "spawn")
        status = arbiter.wait(counts("a", "handled", 1))["a"]
        counters = status.counters
        assert (counters.received, counters.handled, counters.calls) == (1, 1, 2)
        assert (counters.errors, counters.garbage, counters.reconnects) == (0, 0, 0)
        assert (status.name, status.use, status.isolated) == ("a", "members.Acts", False)
        assert (status.state, status.connected, status.last_error) == ("running", True, None)
        assert status.thread is not None
        assert status.thread.name == "plugin:a"
        assert status.pid == os.getpid()
        assert status.started is not None
        assert before <= status.started <= time.time()
    status = arbiter.plugins["a"]
    assert (status.state, status.connected, status.thread, status.pid) == (
        "stopped",
        False,
        None,
        None,
    )
    assert status.counters.received == 1


def test_the_counters_told_do_not_change_afterwards(
    host: MakeHost, fake_circusd: FakeCircusd
) -> None:
    with host(member("a")) as arbiter:
        fake_circusd.wait_subscribed()
        before = arbiter.plugins["a"].counters
        fake_circusd.publish("web", "spawn")
        arbiter.wait(counts("a", "handled", 1))
        assert before.received == 0


@pytest.mark.circusd_leaves
def test_a_plugin_that_was_disconnected_says_so_and_counts_its_reconnects(
    host: MakeHost, fake_circusd: FakeCircusd
) -> None:
    with host(member("a")) as arbiter:
        fake_circusd.wait_subscribed()
        fake_circusd.stop()
        arbiter.wait(lambda plugins: not plugins["a"].connected)
        fake_circusd.start()
        # The longer it was away, the longer until a plugin tries again: up to five seconds.
        status = arbiter.wait(counts("a", "reconnects", 1), PATIENCE)["a"]
        assert status.connected


@pytest.mark.circusd_leaves
def test_without_circusd_plugins_run_and_receive_once_it_is_there(
    host: MakeHost,
    journal: Journal,
    fake_circusd: FakeCircusd,
    caplog: pytest.LogCaptureFixture,
    absent_soon: None,
) -> None:
    fake_circusd.stop()
    with host(member("a"), member("b")) as arbiter:
        arbiter.wait(lambda _: "no circusd at" in caplog.text, PATIENCE)
        states = {status.state for status in arbiter.plugins.values()}
        assert states == {"running"}
        fake_circusd.start()
        fake_circusd.wait_subscribed(2, PATIENCE)
        fake_circusd.publish("web", "spawn")
        journal.wait("a", "spawn")
        journal.wait("b", "spawn")
        assert arbiter.plugins["a"].counters.reconnects == 0
    warnings = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert sum("no circusd at" in text for text in warnings) == 1


def test_instance_gives_the_plugin_while_it_runs(host: MakeHost) -> None:
    with host(member("a")) as arbiter:
        assert isinstance(arbiter.instance("a"), Member)
        assert arbiter.instance("plugin:a") is arbiter.instance("a")
        with pytest.raises(HostError, match=r"no plugin named 'x'; there are: a"):
            arbiter.instance("x")
    assert arbiter.instance("a") is None


def test_wait_gives_up_with_what_there_is(host: MakeHost) -> None:
    with host(member("a")) as arbiter, pytest.raises(TimeoutError, match="running"):
        arbiter.wait(state_is("a", "failed"), timeout=0.01)


def test_a_callback_that_runs_too_long_is_reported_with_its_stack(
    host: MakeHost,
    journal: Journal,
    fake_circusd: FakeCircusd,
    release: threading.Event,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with host(member("a", Stuck, **{"host.stall_timeout": 0.5})) as arbiter:
        fake_circusd.wait_subscribed()
        fake_circusd.publish("web", "block")
        # On a busy machine any callback may take that long.
        arbiter.wait(lambda _: "in block" in caplog.text)  # the stack
        status = arbiter.wait(state_is("a", "stalled"))["a"]
        assert "stalled" in (status.last_error or "")
        release.set()
        arbiter.wait(state_is("a", "running"))
    reports = [each for each in caplog.messages if "has been busy with one callback" in each]
    assert arbiter.plugins["a"].counters.stalls == len(reports)
    assert sum("in block" in each for each in reports) == 1
