# Changes to a host that runs: from any thread, and from the file at SIGHUP.

from __future__ import annotations

import importlib
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
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

from circusplug import (
    Arbiter,
    ConfigError,
    HostConfig,
    HostError,
    PluginSpec,
    SpecError,
)
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


def test_a_plugin_that_changes_the_configuration_on_its_own_thread_does_not_wait(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd
) -> None:
    done: list[list[str]] = []

    def act() -> None:
        config = arbiter.config
        spec = PluginSpec("b", Member, {"name": "b", "journal": journal})
        done.append(arbiter.reconfigure(replace(config, plugins=(*config.plugins, spec))))

    with host(member("a", Acts, act=act)) as arbiter:
        fake_circusd.wait_subscribed(1)
        fake_circusd.publish("web", "spawn")
        journal.wait("b", "init")
        journal.wait("a", "spawn")
    assert done == [[]]


def test_the_way_to_circusd_is_moved_once_at_a_time(
    host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked: list[bool] = []
    with host(member("a")) as arbiter:
        engine = arbiter._started
        moved = engine._factory.moved

        def watched(config: HostConfig) -> Any:
            locked.append(engine._moving.locked())
            return moved(config)

        monkeypatch.setattr(engine._factory, "moved", watched)
        with FakeCircusd() as elsewhere:
            arbiter.reconfigure(replace(arbiter.config, pubsub_endpoint=elsewhere.pubsub_endpoint))
            elsewhere.wait_subscribed()
        assert not engine._moving.locked()
    assert locked == [True]


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


def test_reconfigure_touches_only_what_differs(host: MakeHost, journal: Journal) -> None:
    with host(member("a"), member("b", colour="red"), member("c")) as arbiter:
        before = {name: arbiter.instance(name) for name in "abc"}
        a, b, _ = arbiter.config.plugins
        changed = replace(b, config={**b.config, "colour": "blue"})
        new = PluginSpec("d", Member, {"name": "d", "journal": journal})
        done = arbiter.reconfigure(replace(arbiter.config, plugins=(new, changed, a)))
        assert done == ["removed c", "changed b", "added d"]
        assert list(arbiter.plugins) == ["d", "b", "a"]
        arbiter.wait(state_is("b", "running"))
        arbiter.wait(state_is("d", "running"))
        assert arbiter.instance("a") is before["a"]
        assert arbiter.instance("b").config["colour"] == "blue"
        assert arbiter.reconfigure(arbiter.config) == []
    assert sorted(journal.names("stop")[:2]) == ["b", "c"]


def test_reconfigure_tries_a_plugin_again_that_had_failed_for_good(
    host: MakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    late = {"use": "comes_late.Late", "name": "late", "host.max_restarts": 0}
    with host(late) as arbiter:
        arbiter.wait(state_is("late", "failed"))
        (tmp_path / "comes_late.py").write_text(
            "from circusplug import CircusPlugin\n"
            "class Late(CircusPlugin):\n"
            "    def handle_recv(self, data): pass\n"
        )
        importlib.invalidate_caches()
        assert arbiter.reconfigure(arbiter.config) == ["tried late again"]
        arbiter.wait(state_is("late", "running"))


def test_reconfigure_to_another_circusd_moves_every_plugin(
    host: MakeHost, journal: Journal
) -> None:
    with FakeCircusd() as elsewhere, host(member("a"), member("b", active=False)) as arbiter:
        done = arbiter.reconfigure(
            replace(
                arbiter.config,
                endpoint=elsewhere.endpoint,
                pubsub_endpoint=elsewhere.pubsub_endpoint,
            )
        )
        assert done == ["changed a", "changed b"]
        elsewhere.wait_subscribed()
        elsewhere.publish("web", "spawn")
        journal.wait("a", "spawn")
        assert arbiter.instance("a").endpoint == elsewhere.endpoint


def test_reconfigure_leaves_plugins_alone_when_only_the_hosts_own_options_differ(
    host: MakeHost, journal: Journal
) -> None:
    with host(member("a")) as arbiter:
        config = replace(arbiter.config, stop_timeout=3.0, loglevel="debug", logoutput="-")
        assert arbiter.reconfigure(config) == []
        assert arbiter.config.stop_timeout == 3.0
        assert journal.of("a") == ["init"]


class Source:
    """A configuration that a host reads again."""

    def __init__(self, config: HostConfig) -> None:
        self.config: HostConfig | Exception = config

    def __call__(self) -> HostConfig:
        if isinstance(self.config, Exception):
            raise self.config
        return self.config


@pytest.fixture
def source(fake_circusd: FakeCircusd, journal: Journal, unhurried: None) -> Source:
    spec = PluginSpec("a", Member, {"name": "a", "journal": journal})
    return Source(HostConfig((spec,), fake_circusd.endpoint, fake_circusd.pubsub_endpoint))


def test_reload_reads_the_configuration_again_and_an_error_keeps_everything(
    source: Source, journal: Journal
) -> None:
    assert isinstance(source.config, HostConfig)
    with Arbiter.from_config(source.config, reload=source) as arbiter:
        good = source.config
        spec = PluginSpec("b", Member, {"name": "b", "journal": journal})
        source.config = replace(good, plugins=(*good.plugins, spec))
        assert arbiter.reload() == ["added b"]
        source.config = ConfigError("circus.ini: [plugin:a]: 'use' is missing")
        with pytest.raises(ConfigError, match="missing"):
            arbiter.reload()
        assert [status.state for status in arbiter.plugins.values()] == ["running", "running"]
        assert journal.of("a") == ["init"]


def test_a_host_that_was_not_made_from_a_file_cannot_reload(host: MakeHost) -> None:
    with host(member("a")) as arbiter, pytest.raises(HostError, match="configuration file"):
        arbiter.reload()


def test_sighup_reloads(source: Source, journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(source.config, HostConfig)
    good = source.config
    arbiter = Arbiter.from_config(good, reload=source)
    before = [signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)]

    def act() -> None:
        try:
            journal.wait("a", "init")
            source.config = ConfigError("circus.ini: broken")
            os.kill(os.getpid(), signal.SIGHUP)
            arbiter.wait(lambda _: "broken" in caplog.text, PATIENCE)
            spec = PluginSpec("b", Member, {"name": "b", "journal": journal})
            source.config = replace(good, plugins=(*good.plugins, spec))
            os.kill(os.getpid(), signal.SIGHUP)
            journal.wait("b", "init")
        finally:
            arbiter.stop()

    actor = threading.Thread(target=act)
    actor.start()
    arbiter.start()
    actor.join(PATIENCE)
    assert journal.names("stop") == ["b", "a"]
    assert [signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)] == before
