# Restarts a watcher, or one of its processes, that uses too much or too little. What a process uses
# is measured in _processes.py, what is too much is decided in _limits.py.
#
# Owner: the plugin's thread.

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from circusplug import CallError, SpecError
from circusplug.options import Names, Signal, declare, option

from ._limits import LimitOptions, Patience
from ._observer import Observer, ObserverOptions
from ._processes import Meter, Usage, processes_of
from ._restarts import PATIENCE, RestartOptions, Restarts
from ._watchers import Patterns

_GROUP = "_resource_watcher"
#: Stands for a watcher as a whole, where a process has its number.
_ALL = 0


@dataclass(frozen=True)
class ResourceWatcherOptions(LimitOptions, RestartOptions, ObserverOptions):
    """What `ResourceWatcher` can be told."""

    watcher: Names = option("", meaning="names of watchers, with * and ?", example="web")
    service: Names = option("", meaning="an old name of 'watcher'")
    measure: Literal["process", "watcher"] = option(
        "process", meaning="whether a limit is for each process or for all of a watcher together"
    )
    act: Literal["watcher", "process"] = option(
        "watcher",
        meaning="whether the whole watcher is restarted, or the one process is killed, which "
        "circusd replaces",
    )
    memory: Literal["rss", "pss"] = option(
        "rss", meaning="pss counts memory that processes share in part only; takes longer"
    )
    with_children: bool = option(
        False, meaning="whether a process's figures include those of all that it has started"
    )
    process_children: bool = option(
        False, meaning="whether the children of processes are looked at as well, each for itself"
    )
    child_signal: Signal = option("TERM", meaning="what a child gets that passes a limit")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.watcher or self.service):
            raise SpecError("'watcher' is missing; give the names of watchers", key="watcher")
        if self.measure == "watcher" and self.act == "process":
            raise SpecError(
                "'act' = process takes 'measure' = process: of all together none is the one",
                key="act",
            )


class ResourceWatcher(Observer):
    """Restarts watchers whose processes use too much, or too little, of the machine.

    Every `loop_rate` it looks at CPU, memory and what else has a limit. What passes one for more
    than `max_count` looks in a row, or for `over_for`, is restarted, and the count begins anew,
    as it does when somebody else starts the watcher. A process or a figure that is not there passes
    no limit.

    Where circusd runs on this machine and psutil is installed, processes are measured here: circusd
    tells of no open files and threads, and says 0 of the CPU of children. statsd gets counts as
    ``_resource_watcher.WATCHER.over_cpu``, and ``.restarting``. While circusd does not answer,
    nothing is restarted and all counts stay.
    """

    name = "resource_watcher"
    options = declare(ResourceWatcherOptions)
    topics = ("watcher.",)

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        options = self.options
        self._patterns = Patterns(options.watcher or options.service)
        self._meter = Meter.of_plugin(self, options.memory == "pss")
        self._patience = Patience(options.max_count, options.over_for)
        self._restarts = Restarts(self, options)

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        watcher, action, _ = self.split_data(data)
        self._restarts.observe(watcher, action)
        if action == "start":
            self._patience.begin(watcher)

    async def look(self) -> None:
        present: set[tuple[str, int]] = set()
        try:
            infos = await self._infos()
        except CallError as error:
            self.logger.warning("no figures this time: %s", error)
            return
        for name, info in infos.items():
            await self._look_at(name, list(processes_of(info)), present)
        self._patience.keep(present)
        self._meter.forget_gone()

    async def _infos(self) -> dict[str, Any]:
        """What circusd tells of the watchers' processes, by name."""
        if not self._patterns.plain:
            found = (await self.call_async("stats")).get("infos")
            found = found if isinstance(found, dict) else {}
            return {name: info for name, info in found.items() if self._patterns.match(name)}
        infos, failure = {}, None
        for name in self._patterns.texts:
            try:
                infos[name] = (await self.call_async("stats", name=name)).get("info")
            except CallError as error:
                failure = error
                self.count("error", name, _GROUP)
        if failure is not None and not infos:
            raise failure
        return infos

    async def _look_at(
        self, name: str, processes: list[Mapping[str, Any]], present: set[tuple[str, int]]
    ) -> None:
        options = self.options
        of = self._meter.family_of if options.with_children else self._meter.of
        usages = [of(process) for process in processes]
        usages = [one for one in usages if one.age is None or one.age >= options.grace]
        if options.act == "process":
            for usage in usages:
                if why := self._judge(name, usage.pid, [usage], present):
                    await self._restarts.restart(
                        name, f"process {usage.pid}: {why}", "kill", pid=usage.pid
                    )
        else:
            together = options.measure == "watcher" and usages
            if together:
                usages = [usages[0].plus(usages[1:])]
            if (why := self._judge(name, _ALL, usages, present)) and await self._restarts.restart(
                name, why
            ):
                self.count("restarting", name, _GROUP)
        if options.process_children:
            for process in processes:
                await self._look_at_children(name, process, present)

    async def _look_at_children(
        self, name: str, process: Mapping[str, Any], present: set[tuple[str, int]]
    ) -> None:
        for child in self._meter.children_of(process):
            why = self._judge(name, child.pid, [child], present)
            if not why:
                continue
            signum = self.options.child_signal
            self.logger.warning("%s: child %d: %s; signal %d", name, child.pid, why, signum)
            props = {"name": name, "pid": process["pid"], "childpid": child.pid, "signum": signum}
            try:
                await self.call_async("signal", patience=PATIENCE, **props)
            except CallError as error:
                self.logger.error("%s: %s", name, error)

    def _judge(
        self, name: str, pid: int, usages: list[Usage], present: set[tuple[str, int]]
    ) -> str:
        """Why somebody has to go; empty: he may stay."""
        present.add((name, pid))
        passed = dict(self.options.passed(_extreme(max, usages), _extreme(min, usages)))
        for what in passed:
            self.count(what, name, _GROUP)
        enough = self._patience.look((name, pid), set(passed), self._restarts.clock())
        return ", ".join(text for what, text in passed.items() if what in enough)


def _extreme(pick: Callable[[list[float]], float], usages: list[Usage]) -> Usage:
    """The most, or the least, that one of several processes uses, of each."""

    def of(name: str) -> float | None:
        known = [value for one in usages if (value := getattr(one, name)) is not None]
        return pick(known) if known else None

    names = ("cpu", "memory", "memory_percent", "files", "threads", "age")
    return Usage(_ALL, **{name: of(name) for name in names})
