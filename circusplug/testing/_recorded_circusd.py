# The circusd of a recording: it tells what was so at the moment when it is asked, and does nothing
# of what it is told to do, since what followed is in the recording.
#
# Owner: the serving thread of the fake circusd; `coming` is filled by the thread that replays.

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from circusplug._control.language import Handler, Properties, answer
from circusplug._wire.commands import Reply
from circusplug._wire.watcher_names import to_res_name

from ._fleet import Fleet
from ._model import DEFAULT_OPTIONS, Watcher
from ._orders import ORDERS
from ._process import Process
from ._queries import QUERIES
from ._recording import Event, Figures, Options, Record
from ._script import Command, Script


class RecordedFleet(Fleet):
    """Watchers of whom nobody but the recording knows what becomes."""

    def manage(self) -> None:
        """Do nothing: no process is started in the place of another."""


class RecordedCircusd(Script):
    """Answers commands from a recording.

    Args:
        elapsed: Tells the moment, as that of a record.

    Attributes:
        coming: The records that may lie in the future, in their order.
    """

    def __init__(self, elapsed: Callable[[], float]) -> None:
        super().__init__()
        self.coming: deque[Record] = deque()
        self.global_options: Mapping[str, Any] = {}
        self._dstats: Mapping[str, Any] = {}
        self._figures_at = 0.0
        self._elapsed = elapsed
        told: Handler[Fleet] = (lambda _fleet, _properties: {"info": dict(self._dstats)}, ())
        orders: dict[str, Handler[Fleet]] = {
            name: (_accept, required) for name, (_, required) in ORDERS.items()
        }
        orders["add"] = (_accept_new, ORDERS["add"][1])
        self._handlers: Mapping[str, Handler[Fleet]] = {**QUERIES, **orders, "dstats": told}

    def answer(self, fleet: Fleet, command: Command, properties: Any) -> Reply:
        """See `Script`."""
        self.catch_up(fleet)
        if command.command.lower() == "stats":
            self._take_nearer(fleet)
        outcome = answer(self._handlers, fleet, command.command, properties)
        assert isinstance(outcome, dict)
        return outcome

    def catch_up(self, fleet: Fleet) -> None:
        """Take in what has happened by now."""
        now = self._elapsed()
        while self.coming and self.coming[0].at <= now:
            record = self.coming.popleft()
            if isinstance(record, Event):
                _take_event(fleet, record)
            elif isinstance(record, Options):
                self.global_options = {**self.global_options, **record.globaloptions}
                for name, options in record.options.items():
                    _watcher(fleet, name).options = {**DEFAULT_OPTIONS, **options}
            elif isinstance(record, Figures):
                self._dstats = record.dstats or self._dstats
                self._figures_at = record.at
                _take_figures(fleet, record)

    def _take_nearer(self, fleet: Fleet) -> None:
        """Take the figures of now from the record that is nearest to it, be it to come."""
        following = next((one for one in self.coming if isinstance(one, Figures)), None)
        now = self._elapsed()
        if following is not None and following.at - now < now - self._figures_at:
            for watcher in fleet.watchers.values():
                infos = following.stats.get(watcher.name, {})
                for process in watcher.processes:
                    if isinstance(info := infos.get(str(process.pid)), dict):
                        watcher.figures[process.pid] = _without_age(info)


def _accept(fleet: Fleet, properties: Properties) -> Reply:
    """Do nothing, and answer as if it were done."""
    if "name" not in properties:
        return {}
    watchers = fleet.matching(properties["name"], properties.get("match", "simple"))
    return {"numprocesses": watchers[0].numprocesses + properties.get("nb", 1)}


def _accept_new(_fleet: Fleet, _properties: Properties) -> Reply:
    """The same of a command about a watcher that need not be there."""
    return {}


def _watcher(fleet: Fleet, name: str) -> Watcher:
    """The watcher of that real name, made if need be, in place of one known from events only."""
    found = fleet.watchers.get(name.lower())
    if found is None:
        known = fleet.watchers.pop(to_res_name(name), None)
        found = fleet.add(name, {})
        if known is not None:
            found.status, found.processes = known.status, known.processes
    found.name = name
    return found


def _take_event(fleet: Fleet, event: Event) -> None:
    parts = event.topic.decode("utf-8", "replace").split(".")
    if len(parts) < 3:
        return
    name, action = ".".join(parts[1:-1]), parts[-1]
    watcher = fleet.watchers.get(name) or next(
        (one for one in fleet.watchers.values() if to_res_name(one.name) == name), None
    )
    if action == "remove":
        if watcher is not None:
            del fleet.watchers[watcher.name.lower()]
        return
    watcher = watcher or _watcher(fleet, name)
    pid, started = _pid_and_time(event)
    if action == "start":
        watcher.status = "active"
    elif action == "stop":
        watcher.status, watcher.processes = "stopped", []
    elif action == "spawn":
        wid = max((process.wid for process in watcher.processes), default=0) + 1
        watcher.processes = [*watcher.processes, Process(pid, wid, started)]
        watcher.status = "active"
    elif action in ("reap", "kill"):  # circusd tells of no reap after some kills
        watcher.processes = [one for one in watcher.processes if one.pid != pid]
        watcher.figures.pop(pid, None)


def _pid_and_time(event: Event) -> tuple[int, float]:
    try:
        payload = json.loads(event.payload)
        return int(payload.get("process_pid") or 0), float(payload.get("time") or 0.0)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return 0, 0.0


def _take_figures(fleet: Fleet, figures: Figures) -> None:
    for gone in set(fleet.watchers) - {name.lower() for name in figures.status}:
        del fleet.watchers[gone]
    for name, status in figures.status.items():
        watcher = _watcher(fleet, name)
        watcher.status = status
        watcher.processes, watcher.figures = [], {}
        for pid, info in figures.stats.get(name, {}).items():
            if isinstance(info, dict) and pid.isdecimal():
                started = info.get("started") or info.get("create_time")
                watcher.processes.append(
                    Process(int(pid), int(info.get("wid") or 0), float(started or 0.0))
                )
                watcher.figures[int(pid)] = _without_age(info)


def _without_age(info: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a process that do not go on by themselves."""
    return {key: value for key, value in info.items() if key != "age"}
