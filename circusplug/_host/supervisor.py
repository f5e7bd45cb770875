# Keeps a host's plugins in the state that was asked for. It knows them all and hands to each what
# concerns it (managed_plugin.py); nothing here waits, but for `finish_stop` of one whose
# `handle_stop` runs.
#
# Owner: everything is called on the supervising thread, but `statuses`, `instance`, `config` and
# `owns_current_thread`, which read under `_lock`; the supervising thread changes `_plugins`
# under it.

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any

from .._config.specs import PLUGIN_PREFIX, HostConfig, PluginSpec
from .._errors import HostError
from .._logs import logger
from .._plugin.plugin_thread import PARK_WAIT
from .._plugin.status import Counters, PluginStatus
from .._runners.runner import Notice, Runner, Surroundings
from .._runners.stall_watch import StallWatch
from .._wire.endpoints import Link
from .config_difference import Difference, difference
from .managed_plugin import ManagedPlugin, Services
from .resources import raise_descriptor_limit
from .start_queue import StartQueue
from .stop_all import stop_all
from .systemd_notify import SystemdNotify
from .timers import Timers

#: How long all isolated plugins together may take to tell their counters, in seconds.
_REFRESH_WAIT = 0.25

MakeRunner = Callable[[PluginSpec, Surroundings, Counters, Any], Runner]


class Supervisor:
    """Runs the plugins of one host.

    Args:
        config: What to host.
        around: What each runner gets.
        make_runner: Makes a runner.
        wake: Has `begin_watch` called on the supervising thread soon; from any thread.
        changed: Told of each plugin whose state has changed, on the supervising thread; of None
            if which there are has.
        systemd: Told of the plugins' states.

    Attributes:
        failure: Why the host shall stop: a critical plugin has failed for good; or None.
        config: What the host runs, with the changes made since.
    """

    def __init__(
        self,
        config: HostConfig,
        around: Surroundings,
        make_runner: MakeRunner,
        wake: Callable[[], object],
        changed: Callable[[ManagedPlugin | None], object],
        systemd: SystemdNotify,
    ) -> None:
        self.config = config
        self.failure: str | None = None
        self.watch = StallWatch(wake)
        self._around = replace(around, activity=self.watch.activity)
        self._make_runner = make_runner
        self._tell_changed = changed
        self._systemd = systemd
        self._queue = StartQueue()
        self._timers: Timers[ManagedPlugin] = Timers()
        self._left_behind: list[Runner] = []
        self._lock = threading.Lock()
        self._services = Services(
            self._queue.add,
            lambda spec, *more: self._make_runner(spec, self._around, *more),
            self._plugin_changed,
            self._leave_behind,
            self._gave_up,
            lambda: self.config.stop_timeout,
        )
        self._plugins = {spec.name: ManagedPlugin(spec, self._services) for spec in config.plugins}

    # Reading, from any thread.

    def statuses(self, fresh: bool = True) -> dict[str, PluginStatus]:
        """What each plugin is doing, by name, in the order of their start.

        Args:
            fresh: Whether processes are asked for their counters, which takes a moment.
        """
        with self._lock:
            plugins = list(self._plugins.values())
        runners = [plugin.runner for plugin in plugins]  # one may be gone a moment later
        asked = [runner.refresh() for runner in runners if fresh and runner is not None]
        deadline = time.monotonic() + _REFRESH_WAIT
        for answered in asked:
            if answered is not None:
                answered.wait(max(0.0, deadline - time.monotonic()))
        return {plugin.spec.name: plugin.status(self.watch.is_stalled) for plugin in plugins}

    def spec(self, name: str) -> PluginSpec:
        """What a plugin is started by."""
        return self._plugin(name).spec

    @property
    def alive(self) -> set[str]:
        """The names of the plugins that run or will run, and are not about to stop."""
        with self._lock:
            return {name for name, plugin in self._plugins.items() if plugin.is_alive}

    def stack(self, name: str) -> str:
        """What a plugin's thread is at; empty if it does not run, or that cannot be told."""
        runner = self._plugin(name).runner
        if runner is None:
            return ""
        if runner.running and not runner.busy_since:
            return "  (it waits for something to do)"
        return runner.stack()

    def instance(self, name: str) -> object | None:
        """The plugin object, if it lives in this process."""
        runner = self._plugin(name).runner
        return runner.instance if runner is not None else None

    @property
    def owns_current_thread(self) -> bool:
        """Whether the caller runs on a plugin's thread."""
        with self._lock:
            runners = [plugin.runner for plugin in self._plugins.values()]
        here = threading.current_thread()
        return any(runner is not None and runner.thread is here for runner in runners)

    # What happens meanwhile.

    def next_timer(self) -> float | None:
        """When `run_timers` is due, in seconds of `time.monotonic`; None: never."""
        times = (
            self.watch.next_look,
            self._queue.next_timer(),
            self._timers.next(),
            self._systemd.next_timer(),
        )
        return min((moment for moment in times if moment is not None), default=None)

    def run_timers(self) -> None:
        """Do what is due: starts, restarts, stalls, what takes too long."""
        now = time.monotonic()
        for plugin in self._timers.take_due(now):
            plugin.run_timers(now)
        self._queue.advance()
        look = self.watch.next_look
        for runner, seconds in self.watch.look(self._on_threads()):
            stalled = self._plugin_of(runner)
            if stalled is not None:
                stalled.stalls(seconds, runner.stack())
        if self.watch.next_look != look:  # the end of a stall is told by nobody else
            self._systemd.changed()
        self._systemd.run_timers(self._states)

    def begin_watch(self) -> None:
        """Watch for stalls from now on; what to do after `wake`."""
        self.watch.begin(self._on_threads())

    def handle(self, notice: Notice) -> None:
        """Take in what a runner said."""
        plugin = self._plugin_of(notice.runner)
        if plugin is not None:
            plugin.handle(notice)

    @property
    def all_over(self) -> bool:
        """Whether no plugin runs, and none will by itself."""
        return all(plugin.is_over for plugin in self._plugins.values())

    @property
    def all_ended(self) -> bool:
        """Whether no plugin runs any more, nor any thread that was left behind."""
        stopped = all(plugin.runner is None for plugin in self._plugins.values())
        return stopped and all(runner.thread is None for runner in self._left_behind)

    # Orders. Each returns the plugins that it concerns, which settle later.

    def start_all(self) -> list[ManagedPlugin]:
        """Start every active plugin."""
        plugins = list(self._plugins.values())
        for plugin in plugins:
            if plugin.spec.active:
                plugin.start()
        return plugins

    def stop_all(self) -> None:
        """Stop all plugins in reverse order of their start; returns when they are stopped."""
        limit = max(self.config.stop_timeout, PARK_WAIT)
        stop_all(self._plugins.values(), time.monotonic() + limit)

    def start_plugin(self, name: str, sharing: Collection[str] = ()) -> list[ManagedPlugin]:
        """Start a plugin that does not run, and restart others; its failures are forgotten."""
        plugin = self._plugin(name)
        plugin.start()
        return [plugin, *self._restart(sharing)]

    def stop_plugin(self, name: str) -> list[ManagedPlugin]:
        """Stop a plugin, or the attempts to restart it."""
        plugin = self._plugin(name)
        plugin.stop()
        return [plugin]

    def restart_plugin(self, name: str, sharing: Collection[str] = ()) -> list[ManagedPlugin]:
        """Stop a plugin if it runs and start a new instance; restart others if they run."""
        plugin = self._plugin(name)
        plugin.restart()
        return [plugin, *self._restart(sharing)]  # it is about to stop, so it is not among them

    def _restart(self, names: Iterable[str]) -> list[ManagedPlugin]:
        """Restart those of some plugins that have not ended meanwhile."""
        wanted = set(names)
        everyone = self._plugins.values()
        running = [item for item in everyone if item.spec.name in wanted and item.is_alive]
        for plugin in reversed(running):
            plugin.restart()
        return running

    def add_plugin(self, spec: PluginSpec) -> list[ManagedPlugin]:
        """Add a plugin, after all others in the order of start, and start it if active."""
        if any(spec.name == known.name for known in self.config.plugins):
            raise HostError(f"there is a plugin named {spec.name!r} already")
        self._configured([*self.config.plugins, spec])
        return [self._add(spec)]

    def remove_plugin(self, name: str) -> list[ManagedPlugin]:
        """Stop a plugin and forget it."""
        plugin = self._plugin(name)
        self._configured(spec for spec in self.config.plugins if spec is not plugin.spec)
        plugin.stop(then=lambda: self._forget(plugin))
        return [plugin]

    def reconfigure(
        self, config: HostConfig, link: Link | None, edited: Collection[str] = ()
    ) -> tuple[Difference, list[ManagedPlugin]]:
        """Bring the plugins to what `config` says, touching only those that differ.

        Args:
            config: The new configuration; if circusd is elsewhere now, all plugins differ.
            link: What to connect to in that case; None: what it was.
            edited: Names of plugins that have to start again as their code was edited.
        """
        failed = {name for name, item in self._plugins.items() if item.state == "failed"}
        todo = difference(self.config, config, failed, edited)
        self.config = config
        self._around = replace(self._around, config=config, link=link or self._around.link)
        concerned = []
        for name in todo.removed:
            plugin = self._plugins[name]
            plugin.stop(then=functools.partial(self._forget, plugin))
            concerned.append(plugin)
        for spec in todo.changed:
            plugin = self._plugins[spec.name]
            plugin.restart(spec)
            concerned.append(plugin)
        concerned += [self._add(spec) for spec in todo.added]
        concerned += [plugin for name in todo.again for plugin in self.start_plugin(name)]
        concerned += self._restart(todo.edited)
        for plugin in self._plugins.values():
            if plugin.runner is not None:
                plugin.runner.log_level_changed()  # the file may say another
        self._sort()
        return todo, concerned

    def _add(self, spec: PluginSpec) -> ManagedPlugin:
        leaving = self._plugins.get(spec.name)
        if leaving is not None:  # it was removed, and has not stopped yet
            leaving.stop(then=functools.partial(leaving.become, spec))
            return leaving
        plugin = ManagedPlugin(spec, self._services)
        with self._lock:
            self._plugins[spec.name] = plugin
        raise_descriptor_limit(len(self._plugins))
        self._changed(None)
        if spec.active:
            plugin.start()
        return plugin

    def _plugin_changed(self, plugin: ManagedPlugin) -> None:
        self._timers.set(plugin, plugin.next_timer())
        self._changed(plugin)

    def _forget(self, plugin: ManagedPlugin) -> None:
        self._timers.set(plugin, None)
        with self._lock:
            del self._plugins[plugin.spec.name]
        self._changed(None)

    def _configured(self, specs: Iterable[PluginSpec]) -> None:
        self.config = replace(self.config, plugins=tuple(specs))

    def _sort(self) -> None:
        """Bring the plugins into the order of the configuration; those on their way out first."""
        order = {spec.name: number for number, spec in enumerate(self.config.plugins)}
        with self._lock:
            names = sorted(self._plugins, key=lambda name: order.get(name, -1))
            self._plugins = {name: self._plugins[name] for name in names}

    # Helpers.

    def _changed(self, plugin: ManagedPlugin | None) -> None:
        self._tell_changed(plugin)
        self._systemd.changed()

    def _states(self) -> list[str]:
        """Each plugin's state; one that stalls in a process of its own counts as running."""
        stalled = {runner for runner in self._on_threads() if self.watch.is_stalled(runner)}
        return [
            "stalled" if item.state == "running" and item.runner in stalled else item.state
            for item in self._plugins.values()
        ]

    def _on_threads(self) -> Iterator[Runner]:
        """The runners to be watched from here; a process watches its own."""
        for plugin in self._plugins.values():
            if plugin.runner is not None and not plugin.spec.isolate:
                yield plugin.runner

    def _plugin_of(self, runner: Runner) -> ManagedPlugin | None:
        return next((item for item in self._plugins.values() if item.runner is runner), None)

    def _plugin(self, name: str) -> ManagedPlugin:
        with self._lock:
            found = self._plugins.get(name) or self._plugins.get(name.removeprefix(PLUGIN_PREFIX))
            known = ", ".join(self._plugins)
        if found is None:
            raise HostError(f"there is no plugin named {name!r}; there are: {known or 'none'}")
        return found

    def _gave_up(self, plugin: ManagedPlugin, error: str) -> None:
        if plugin.spec.host.critical and self.failure is None:
            self.failure = f"{plugin.spec.name} is critical and has failed for good: {error}"
        states = {item.state for item in self._plugins.values() if item.spec.active}
        if states == {"failed"}:
            logger.error("every plugin has failed for good; none runs here any more")

    def _leave_behind(self, runner: Runner) -> None:
        """Remember a thread that does not end; those that have ended meanwhile are forgotten."""
        self._left_behind = [
            each for each in (*self._left_behind, runner) if each.thread is not None
        ]
