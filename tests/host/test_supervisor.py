# What the supervisor does with its plugins, with lives of the test's own.

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from fake_runners import FakeRunner

from circusplug import Counters, HostConfig, HostError, HostOptions, PluginSpec
from circusplug._host import supervisor as supervisor_module
from circusplug._host.supervisor import Supervisor
from circusplug._host.systemd_notify import SystemdNotify
from circusplug._runners.runner import Kind, Surroundings
from circusplug._wire.endpoints import Link

LINK = Link("tcp://127.0.0.1:1", "tcp://127.0.0.1:2")


def spec(name: str, active: bool = True, isolate: bool = False, **options: Any) -> PluginSpec:
    return PluginSpec(name, "m.A", {"active": active}, isolate, HostOptions(**options))


class Bench:
    def __init__(self, *specs: PluginSpec, **config: Any) -> None:
        self.lives: dict[str, list[FakeRunner]] = {}
        self.arounds: list[Surroundings] = []
        self.changed: list[str | None] = []
        self.wakes = 0
        self.order: list[str] = []
        self.systemd = SystemdNotify()
        self.config = HostConfig(specs, **config)
        self.host = Supervisor(
            self.config,
            Surroundings(self.config, LINK, lambda _: None),
            self._make,  # type: ignore[arg-type]
            self._wake,
            lambda plugin: self.changed.append(plugin and plugin.spec.name),
            self.systemd,
        )

    def _make(
        self, spec: PluginSpec, around: Surroundings, counters: Counters, state: Any
    ) -> FakeRunner:
        life = FakeRunner(spec, counters, state)
        self.arounds.append(around)
        self.lives.setdefault(spec.name, []).append(life)
        self.order.append(spec.name)
        return life

    def _wake(self) -> None:
        self.wakes += 1

    def life(self, name: str) -> FakeRunner:
        return self.lives[name][-1]

    def tell(self, name: str, kind: Kind, error: str | None = None) -> None:
        self.host.handle(self.life(name).notice(kind, error))

    def come_up(self) -> Bench:
        """Start all and let them come to run."""
        self.host.start_all()
        self.host.run_timers()
        return self.run_all()

    def run_all(self) -> Bench:
        while waiting := [name for name, life in self.lives.items() if not life[-1].running]:
            for name in waiting:
                self.tell(name, Kind.RUNNING)
                self.life(name).running = True
            self.host.run_timers()
        return self

    def states(self) -> dict[str, str]:
        return {name: status.state for name, status in self.host.statuses(False).items()}


def test_only_active_ones_are_started_in_order() -> None:
    bench = Bench(spec("a"), spec("b", active=False), spec("c"))
    assert [plugin.spec.name for plugin in bench.host.start_all()] == ["a", "b", "c"]
    bench.come_up()
    assert bench.order == ["a", "c"]
    assert bench.states() == {"a": "running", "b": "inactive", "c": "running"}
    assert bench.host.alive == {"a", "c"}


def test_a_name_is_found_with_its_prefix_too() -> None:
    bench = Bench(spec("a"), spec("plugin:b")).come_up()
    for name in ("a", "plugin:a", "plugin:b"):
        assert bench.host.spec(name).name == (name if name.endswith("b") else "a")
    with pytest.raises(HostError, match=r"no plugin named 'b'; there are: a, plugin:b$"):
        bench.host.spec("b")
    with pytest.raises(HostError, match=r"there are: none$"):
        Bench().host.spec("b")


def test_processes_are_asked_for_their_counters_and_waited_for_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(spec("a"), spec("b"), spec("c"), spec("d", active=False)).come_up()
    waits: list[float] = []

    class Answered(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            # Whoever is waited for has been asked together with the others.
            assert [bench.life(name).asked[-1] for name in "abc"] == ["refresh"] * 3
            waits.append(-1.0 if timeout is None else timeout)
            return False

    bench.host.statuses(fresh=False)
    assert bench.life("a").asked == ["start"]
    now = iter([1000.0, 1000.1, 1000.9])
    clock = SimpleNamespace(monotonic=lambda: next(now))
    monkeypatch.setattr(supervisor_module, "time", clock)
    bench.life("a").answered = bench.life("c").answered = Answered()
    assert list(bench.host.statuses()) == ["a", "b", "c", "d"]
    assert waits == [pytest.approx(0.15), 0.0]


def test_where_a_plugin_is_is_told_while_it_runs() -> None:
    bench = Bench(spec("a")).come_up()
    life = bench.life("a")
    life.instance = object()
    assert bench.host.instance("a") is life.instance
    assert bench.host.stack("a") == "  (it waits for something to do)"
    life.busy_since = 5.0
    assert bench.host.stack("a") == "  its stack"
    life.running, life.busy_since = False, 0.0
    assert bench.host.stack("a") == "  its stack"  # it is on its way up
    bench.host.stop_plugin("a")
    bench.tell("a", Kind.PARKED)
    assert (bench.host.instance("a"), bench.host.stack("a")) == (None, "")


def test_whose_thread_it_is_is_known() -> None:
    bench = Bench(spec("a"), spec("b")).come_up()
    assert not bench.host.owns_current_thread
    bench.life("b").thread = threading.current_thread()
    assert bench.host.owns_current_thread


def test_it_wakes_for_whatever_is_due_first(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(spec("a", start_timeout=50.0))
    host = bench.host
    assert host.next_timer() is None
    host.start_all()
    host.run_timers()
    start_due = host.next_timer()
    assert start_due == host._plugins["a"].launched_at + 50.0
    monkeypatch.setattr(bench.systemd, "next_timer", lambda: 4.0)
    assert host.next_timer() == 4.0
    monkeypatch.setattr(host._queue, "next_timer", lambda: 3.0)
    assert host.next_timer() == 3.0
    host.watch._next_look = 2.0
    assert host.next_timer() == 2.0


def test_what_a_life_says_that_is_over_is_left_alone() -> None:
    bench = Bench(spec("a")).come_up()
    old = bench.life("a")
    bench.host.restart_plugin("a")
    bench.tell("a", Kind.PARKED)
    bench.host.run_timers()
    bench.run_all()
    bench.host.handle(old.notice(Kind.ENDED, "it died"))
    assert bench.states() == {"a": "running"}


def test_all_is_over_when_no_plugin_will_do_anything_and_ended_when_no_thread_is_left() -> None:
    bench = Bench(spec("a"), spec("b", active=False)).come_up()
    host = bench.host
    assert (host.all_over, host.all_ended) == (False, False)
    life = bench.life("a")
    life.ends, life.thread = False, threading.current_thread()
    host.stop_plugin("a")
    bench.tell("a", Kind.PARKED)
    assert (host.all_over, host.all_ended) == (True, False)
    life.thread = None
    assert host.all_ended


def test_those_that_share_edited_code_restart_in_reverse_order_if_they_run() -> None:
    bench = Bench(*map(spec, "abcd")).come_up()
    host = bench.host
    host.stop_plugin("c")
    bench.tell("c", Kind.PARKED)
    stopped: list[str] = []
    for name in "abd":
        life = bench.life(name)
        life.begin_stop = lambda _, name=name: stopped.append(name)  # type: ignore[method-assign]
    concerned = host.restart_plugin("b", ["a", "b", "c", "d"])
    assert [plugin.spec.name for plugin in concerned] == ["b", "a", "d"]
    assert stopped == ["b", "d", "a"]
    for name in "abd":
        bench.tell(name, Kind.PARKED)
    concerned = host.start_plugin("c", ["a"])
    assert [plugin.spec.name for plugin in concerned] == ["c", "a"]


def test_a_name_is_free_as_soon_as_its_plugin_is_to_go() -> None:
    bench = Bench(spec("a"), spec("b")).come_up()
    host = bench.host
    first = bench.life("a")
    host.remove_plugin("plugin:a")
    assert [each.name for each in host.config.plugins] == ["b"]
    (plugin,) = host.add_plugin(spec("a", max_restarts=3))
    with pytest.raises(HostError, match="there is a plugin named 'a' already"):
        host.add_plugin(spec("a"))
    assert bench.states()["a"] == "stopping"
    assert [each.name for each in host.config.plugins] == ["b", "a"]
    bench.tell("a", Kind.PARKED)
    host.run_timers()
    bench.run_all()
    assert bench.life("a") is not first
    assert plugin.spec.host.max_restarts == 3
    assert bench.states() == {"a": "running", "b": "running"}


def test_one_that_was_removed_is_gone_when_it_has_stopped_with_its_timers() -> None:
    bench = Bench(spec("a"), spec("b")).come_up()
    host = bench.host
    host.remove_plugin("a")
    assert bench.states() == {"a": "stopping", "b": "running"}
    bench.changed.clear()
    bench.tell("a", Kind.PARKED)
    assert bench.states() == {"b": "running"}
    assert bench.changed[-1] is None
    assert host._timers.next() is None


def test_a_plugin_that_is_added_is_told_of_and_started_if_it_is_active() -> None:
    bench = Bench(spec("a")).come_up()
    host = bench.host
    bench.changed.clear()
    host.add_plugin(spec("b", active=False))
    assert bench.changed == [None]
    host.add_plugin(spec("c"))
    host.run_timers()
    assert bench.states() == {"a": "running", "b": "inactive", "c": "starting"}


def test_a_configuration_is_told_to_new_lives_and_the_log_level_to_all() -> None:
    bench = Bench(spec("a"), spec("b"), spec("gone")).come_up()
    host = bench.host
    elsewhere = Link("tcp://127.0.0.1:3", "tcp://127.0.0.1:4")
    plugins = (spec("new"), spec("b"), spec("a", max_restarts=1))
    config = replace(bench.config, plugins=plugins)
    bench.changed.clear()
    todo, concerned = host.reconfigure(config, elsewhere)
    assert todo.lines == ["removed gone", "changed a", "added new"]
    assert [plugin.spec.name for plugin in concerned] == ["gone", "a", "new"]
    assert host.config is config
    assert None in bench.changed
    assert [bench.life(name).asked[-1] for name in "ab"] == ["log_level_changed"] * 2
    # Those on their way out first, and then as in the configuration.
    assert list(bench.states()) == ["gone", "new", "b", "a"]
    bench.tell("a", Kind.PARKED)
    host.run_timers()
    bench.run_all()
    assert {around.link for around in bench.arounds[3:]} == {elsewhere}
    assert {around.config for around in bench.arounds[3:]} == {config}
    host.reconfigure(replace(config, stop_timeout=1.0), None)
    host.restart_plugin("b")
    bench.tell("b", Kind.PARKED)
    host.run_timers()
    assert bench.arounds[-1].link is elsewhere


def test_a_reload_tries_those_again_that_have_failed_and_restarts_edited_ones() -> None:
    bench = Bench(spec("a", restart="never"), spec("b")).come_up()
    bench.tell("a", Kind.ENDED, "it died")
    todo, concerned = bench.host.reconfigure(bench.config, None, ["a", "b"])
    assert todo.lines == ["tried a again", "restarted b with edited code"]
    assert [plugin.spec.name for plugin in concerned] == ["a", "b"]


def test_the_host_has_failed_with_the_first_critical_plugin_that_gives_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = {"a": False, "b": True, "c": True}
    specs = [spec(name, restart="never", critical=is_so) for name, is_so in names.items()]
    bench = Bench(*specs, spec("idle", active=False)).come_up()
    told = "every plugin has failed for good; none runs here any more"
    failures = []
    for name in names:
        assert told not in caplog.text
        bench.tell(name, Kind.ENDED, "it died")
        failures.append(bench.host.failure)
    assert failures == [None, *["b is critical and has failed for good: it died"] * 2]
    assert told in caplog.text


def test_only_threads_of_this_process_are_watched_for_stalls_from_here() -> None:
    bench = Bench(spec("a"), spec("b", isolate=True)).come_up()
    host = bench.host
    host.watch.activity()
    assert bench.wakes == 1
    host.begin_watch()
    assert host.watch.next_look is not None
    for name in "ab":
        bench.life(name).busy_since = 1.0  # for years
    host.watch._next_look = 0.0
    host.run_timers()
    assert [host._plugins[name].counters.stalls for name in "ab"] == [1, 0]
    assert host._plugins["a"].last_error is not None
    assert host._states() == ["stalled", "running"]
    assert bench.states() == {"a": "stalled", "b": "stalled"}
    host.stop_plugin("a")
    assert host._states() == ["stopping", "running"]
    assert bench.states()["a"] == "stopping"
