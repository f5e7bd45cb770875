# A managed plugin with lives and a clock of the test's own.

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import pytest
from fake_runners import FakeRunner

from circusplug import Counters, HostOptions, PluginSpec
from circusplug._host import managed_plugin
from circusplug._host.managed_plugin import ManagedPlugin, Services
from circusplug._host.restart_policy import RestartPolicy
from circusplug._runners.runner import Kind

SINCE_1970 = 1e9


class Bench:
    """A plugin, its lives, and what its host was told of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.queue: list[ManagedPlugin] = []
        self.lives: list[FakeRunner] = []
        self.states: list[str] = []
        self.left_behind: list[Any] = []
        self.gave_up: list[str] = []
        self.stop_timeout = 10.0
        self.timer: float | None = None
        self.stalls_told = 0
        self.broken: Exception | None = None
        clock = SimpleNamespace(monotonic=lambda: self.now, time=lambda: self.now + SINCE_1970)
        monkeypatch.setattr(managed_plugin, "time", clock)
        policy = functools.partial(RestartPolicy, clock=lambda: self.now, draw=lambda: 1.0)
        monkeypatch.setattr(managed_plugin, "RestartPolicy", policy)

    def make(self, isolate: bool = False, active: bool = True, **options: Any) -> ManagedPlugin:
        services = Services(
            enqueue=self.queue.append,
            make_runner=self._make_runner,
            changed=self._changed,
            left_behind=self.left_behind.append,
            gave_up=lambda _, why: self.gave_up.append(why),
            stop_timeout=lambda: self.stop_timeout,
        )
        spec = PluginSpec("a", "m.A", {"active": active}, isolate, HostOptions(**options))
        self.plugin = ManagedPlugin(spec, services)
        return self.plugin

    def run(self, *args: Any, **options: Any) -> tuple[ManagedPlugin, FakeRunner]:
        """One that runs."""
        plugin = self.make(*args, **options)
        plugin.start()
        return plugin, self.come_up()

    def launch(self) -> FakeRunner:
        self.queue.pop(0).launch()
        return self.lives[-1]

    def come_up(self) -> FakeRunner:
        life = self.launch()
        self.tell(life, Kind.RUNNING)
        life.running = True
        return life

    def tell(self, life: FakeRunner, kind: Kind, error: str | None = None, **more: bool) -> None:
        self.plugin.handle(life.notice(kind, error, **more))

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.plugin.run_timers(self.now)

    def _make_runner(self, spec: PluginSpec, counters: Counters, state: Any) -> FakeRunner:
        if self.broken is not None:
            raise self.broken
        self.lives.append(FakeRunner(spec, counters, state))
        return self.lives[-1]

    def _changed(self, plugin: ManagedPlugin) -> None:
        # The host looks again when it was told to, and not before.
        self.timer, self.stalls_told = plugin.next_timer(), plugin.counters.stalls
        if self.states[-1:] != [plugin.state]:
            self.states.append(plugin.state)
