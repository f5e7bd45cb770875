# A host that runs gets another configuration: by `reconfigure`, or from its file at SIGHUP.

from __future__ import annotations

import importlib
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from members import Acts, Journal, MakeHost, Member, member, state_is
from patience import PATIENCE

from circusplug import Arbiter, ConfigError, HostConfig, HostError, PluginSpec
from circusplug.testing import FakeCircusd


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
