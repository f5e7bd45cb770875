# One bad plugin takes down itself alone: whatever it does wrong, and wherever.

from __future__ import annotations

import contextlib
import sys
import threading
import time
import types
from typing import Any

import pytest
from members import (
    ExitsInConstructor,
    ForgetsSuperInit,
    ForgetsSuperStart,
    Journal,
    MakeHost,
    Member,
    NeverInitialised,
    RaisesInAsyncInit,
    RaisesInConstructor,
    RaisesInInit,
    RaisesInStop,
    Stuck,
    give_up,
    in_thread,
    member,
    state_is,
)
from patience import PATIENCE

from circusplug import Arbiter, HostError
from circusplug.testing import FakeCircusd


@pytest.mark.parametrize(
    ("use", "error"),
    [
        ("no_such_package.plugins.Logger", "no module 'no_such_package'"),
        ("circusplug.plugins.NoSuchPlugin", "has no 'NoSuchPlugin'"),
        ("fails_at_import.Plugin", "importing fails_at_import failed: ZeroDivisionError"),
        ("exits_at_import.Plugin", "importing exits_at_import failed: SystemExit"),
        (RaisesInConstructor, "ZeroDivisionError: in the constructor"),
        (ExitsInConstructor, "sys.exit(3)"),
        (ForgetsSuperInit, "must call super().__init__(*args, **config)"),
        (RaisesInInit, "ZeroDivisionError: in handle_init"),
        (RaisesInAsyncInit, "ZeroDivisionError: in handle_init"),
        (ForgetsSuperStart, "must call super().start()"),
    ],
    ids=lambda value: value.rpartition(".")[2] if isinstance(value, str) else value.__name__,
)
def test_a_bad_plugin_fails_alone(
    use: Any,
    error: str,
    host: MakeHost,
    journal: Journal,
    fake_circusd: FakeCircusd,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "fails_at_import.py").write_text("1 / 0\n")
    (tmp_path / "exits_at_import.py").write_text("import sys\nsys.exit()\n")
    monkeypatch.syspath_prepend(tmp_path)
    bad = member("bad", use, **{"host.restart": "never"})
    with host(member("a"), bad, member("b")) as arbiter:
        status = arbiter.wait(state_is("bad", "failed"))["bad"]
        assert error in (status.last_error or "")
        assert status.thread is None
        fake_circusd.wait_subscribed(2, topic=b"watcher.")
        fake_circusd.publish("web", "spawn")
        journal.wait("a", "spawn")
        journal.wait("b", "spawn")
    assert error in caplog.text
    assert journal.names("stop") == ["b", "a"]
    assert [each.state for each in arbiter.plugins.values()] == ["stopped", "failed", "stopped"]


@pytest.mark.leaves_thread("its handle_init does not return before the host has gone on")
def test_a_plugin_whose_handle_init_does_not_return_keeps_nobody_from_running(
    host: MakeHost,
    journal: Journal,
    fake_circusd: FakeCircusd,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("circusplug._host.managed_plugin.READY_WAIT", 0.05)
    options = {"host.restart": "never", "host.start_timeout": 600.0}
    bad = member("bad", NeverInitialised, **options)
    with host(member("a"), bad, member("b")) as arbiter:
        journal.wait("bad", "init")
        give_up(arbiter, "bad")
        status = arbiter.plugins["bad"]
        assert (status.state, status.last_error) == ("failed", "not initialised after 600 s")
        fake_circusd.wait_subscribed(3)  # the bad one has subscribed, too
        fake_circusd.publish("web", "spawn")
        journal.wait("a", "spawn")
        journal.wait("b", "spawn")
    assert 'self.config["release"].wait' in caplog.text  # the stack says where it hangs


@pytest.mark.parametrize("fails", [False, True], ids=["initialised", "failed"])
def test_a_plugin_that_comes_through_after_it_was_given_up_cleans_up_after_itself(
    host: MakeHost,
    journal: Journal,
    release: threading.Event,
    fake_circusd: FakeCircusd,
    fails: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Late(NeverInitialised):
        def handle_init(self) -> None:
            super().handle_init()
            if fails:
                raise ZeroDivisionError

        def handle_recv(self, data: tuple[bytes, bytes]) -> None:
            self.note("received")

        def stop(self) -> None:
            super().stop()
            self.note("stopped")

        def handle_stop(self) -> None:
            self.note(f"stop, and finds {self.call('list')['watchers']}")

    monkeypatch.setattr("circusplug._host.managed_plugin.READY_WAIT", 0.05)
    with host(member("late", Late, **{"host.restart": "never"})) as arbiter:
        journal.wait("late", "init")
        give_up(arbiter, "late")
        assert arbiter.plugins["late"].state == "failed"
        fake_circusd.publish("web", "spawn")
        release.set()
        journal.wait("late", "stopped")
        thread = journal.thread("late", "stopped")
        thread.join(PATIENCE)
    assert journal.of("late") == ["init", *([] if fails else ["stop, and finds []"]), "stopped"]
    assert thread.name == "plugin:late"


def test_a_slow_start_keeps_the_next_plugin_waiting_for_a_while_only(
    host: MakeHost, journal: Journal, release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug._host.managed_plugin.READY_WAIT", 0.05)
    with host(member("slow", NeverInitialised), member("b")) as arbiter:
        plugins = arbiter.wait(state_is("b", "running"))
        assert plugins["slow"].state == "starting"
        release.set()
        arbiter.wait(state_is("slow", "running"))
    assert journal.of("slow") == ["init", "stop"]


def test_what_handle_stop_raises_is_logged_and_the_others_stop_all_the_same(
    host: MakeHost, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    with host(member("a"), member("bad", RaisesInStop), member("c")) as arbiter:
        pass
    assert journal.names("stop") == ["c", "bad", "a"]
    status = arbiter.plugins["bad"]
    assert (status.state, status.counters.errors) == ("stopped", 1)
    assert status.last_error == "handle_stop: ZeroDivisionError: in handle_stop"
    assert "bad: handle_stop failed" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.leaves_thread("a plugin blocks beyond its grace time, and is left behind")
def test_a_stuck_plugin_is_left_behind_and_every_handle_stop_runs(
    host: MakeHost,
    journal: Journal,
    fake_circusd: FakeCircusd,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stuck = member("stuck", Stuck, **{"host.graceful_timeout": 0.05})
    with host(member("a"), stuck, member("c")) as arbiter:
        fake_circusd.wait_subscribed(3)
        fake_circusd.publish("web", "block")
        for name in ("a", "stuck", "c"):
            journal.wait(name, "block")
    assert journal.names("stop") == ["c", "stuck", "a"]
    states = [status.state for status in arbiter.plugins.values()]
    assert states == ["stopped", "abandoned", "stopped"]
    assert "stuck is still busy" in caplog.text
    assert "in block" in caplog.text  # the stack


@pytest.mark.leaves_thread("the start() of a plugin does not return, and its thread is left behind")
def test_a_plugin_that_has_stopped_but_whose_thread_does_not_end_is_left_behind(
    host: MakeHost, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    class Stays(Member):
        def start(self) -> None:
            super().start()
            self.stay()

        def stay(self) -> None:
            self.config["release"].wait(PATIENCE)

    with host(member("a", Stays), stop_timeout=0.3) as arbiter:
        pass
    assert journal.of("a") == ["init", "stop"]
    assert arbiter.plugins["a"].state == "abandoned"
    assert "a has stopped, but its thread does not end" in caplog.text
    assert "in stay" in caplog.text


@pytest.mark.leaves_thread("a plugin asks for its stop, and then blocks beyond its grace time")
def test_a_plugin_that_asks_for_its_stop_and_gets_stuck_counts_as_abandoned(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd
) -> None:
    class StopsAndBlocks(Stuck):
        def block(self) -> None:
            self.stop()
            super().block()

    with host(member("a", StopsAndBlocks, **{"host.graceful_timeout": 0.05})) as arbiter:
        fake_circusd.wait_subscribed()
        fake_circusd.publish("web", "block")
        journal.wait("a", "stop")
        arbiter.wait(state_is("a", "abandoned"))
        in_thread(lambda: arbiter.stop_plugin("a"))
        assert arbiter.plugins["a"].state == "abandoned"


class Clock:
    """A supervisor's clock, which the waits for plugins that are stuck put forward."""

    passed = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.passed


class InVain(threading.Event):
    """Stands for the end of a stuck plugin's parking: to wait for it takes no time of ours.

    Meanwhile `other` happens, if it is given.
    """

    def __init__(self, clock: Clock, other: threading.Event | None = None) -> None:
        super().__init__()
        self._clock = clock
        self._other = other

    def wait(self, timeout: float | None = None) -> bool:
        assert self._other is None or self._other.wait(PATIENCE)
        self._clock.passed += timeout or 0.0
        return False


@pytest.mark.leaves_thread("two plugins block beyond the deadline of the host")
def test_all_stuck_plugins_share_one_deadline(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("circusplug._host.stop_all.time", clock)
    monkeypatch.setattr("circusplug._plugin.plugin_thread._SHORT_WAIT", PATIENCE)
    # Either's own grace time is longer than the host has.
    stuck = {"host.graceful_timeout": 600.0}
    plugins = [member("a"), member("b", Stuck, **stuck), member("c", Stuck, **stuck), member("d")]
    with host(*plugins, stop_timeout=PATIENCE) as arbiter:
        fake_circusd.wait_subscribed(4)
        fake_circusd.publish("web", "block")
        journal.wait("b", "block")
        journal.wait("c", "block")
        plugins_of = arbiter._started.supervisor._plugins
        a, b, c = (plugins_of[name].runner._worker for name in "abc")  # type: ignore[union-attr]
        b.parked, c.parked = InVain(clock, a.parked), InVain(clock)
    assert journal.names("stop") == ["d", "c", "b", "a"]
    assert [each.state for each in arbiter.plugins.values()] == [
        "stopped",
        "abandoned",
        "abandoned",
        "stopped",
    ]
    assert clock.passed < 600.0


@pytest.mark.leaves_thread("a plugin is left behind, and comes back to an end of its own")
def test_a_plugin_that_was_left_behind_ends_when_its_handler_returns(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd, release: threading.Event
) -> None:
    done = threading.Event()

    class Talks(Stuck):
        """Has another thread call circusd after the host has given it up."""

        def handle_stop(self) -> None:
            self.talker = threading.Thread(target=self.talk)
            self.talker.start()
            super().handle_stop()

        def talk(self) -> None:
            with contextlib.suppress(Exception):
                self.call("list", timeout=0.1)
            done.set()

    with host(member("a", Talks, **{"host.graceful_timeout": 0.05})) as arbiter:
        fake_circusd.wait_subscribed()
        thread = arbiter.plugins["a"].thread
        fake_circusd.publish("web", "block")
        journal.wait("a", "block")
    assert done.wait(PATIENCE)
    release.set()
    assert thread is not None
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_host_that_cannot_open_its_link_leaves_nothing_behind_and_can_be_stopped(
    fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(*arguments: object, **options: object) -> object:
        raise HostError("no tunnel today")

    module = types.ModuleType("circusplug._wire.ssh_tunnel")
    module.Tunnel = make  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "circusplug._wire.ssh_tunnel", module)
    endpoints = fake_circusd.endpoint, fake_circusd.pubsub_endpoint
    arbiter = Arbiter([], *endpoints, ssh_server="example.org")
    with pytest.raises(HostError, match="no tunnel today"):
        arbiter.start()
    in_thread(arbiter.stop)
    assert arbiter.plugins == {}
