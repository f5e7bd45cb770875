# The commands that change something: each changes the watchers, which publish what follows,
# and returns what circusd replies. Where a reply is sent before the work is done, only a
# command sent with `waiting` learns its outcome.

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from typing import Any

from circusplug._control.language import (
    SERVER_ERROR,
    Handler,
    Properties,
    RefusedError,
)
from circusplug._errors import COMMAND_ERROR
from circusplug._wire.commands import Reply

from ._fleet import Fleet
from ._model import DEFAULT_OPTIONS, Watcher

_UNSETTABLE = frozenset(
    ("executable", "on_demand", "priority", "shell_args", "use_sockets", "stderr_stream_conf")
) | {"stdout_stream_conf"}
_SETTABLE = (frozenset(DEFAULT_OPTIONS) - _UNSETTABLE) | frozenset(
    ("retry_in", "stdout_stream", "stderr_stream", "hooks")
)
_SETTABLE_PREFIXES = ("stdout_stream.", "stderr_stream.", "hooks.", "rlimit_")
_INTEGERS = frozenset(("numprocesses", "max_retry", "max_age", "max_age_variance", "stop_signal"))
#: The signals that the made-up processes die of.
_DEADLY = frozenset((signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGQUIT))


def incr(fleet: Fleet, properties: Properties) -> Reply:
    return _scale(fleet, properties, properties.get("nb", 1))


def decr(fleet: Fleet, properties: Properties) -> Reply:
    return _scale(fleet, properties, -properties.get("nb", 1))


def start(fleet: Fleet, properties: Properties) -> Reply:
    watchers = _chosen(fleet, properties)
    if not _is_single(properties, watchers):
        fleet.start(watchers)
        return {}
    (watcher,) = watchers
    info = _difference(watcher, watcher.start)
    del info["stopped"]
    return _if_waiting(properties, info=info)


def stop(fleet: Fleet, properties: Properties) -> Reply:
    watchers = _chosen(fleet, properties)
    fleet.stop(watchers)
    return _if_waiting(properties, info=None) if _is_single(properties, watchers) else {}


def restart(fleet: Fleet, properties: Properties) -> Reply:
    watchers = _chosen(fleet, properties)
    if not _is_single(properties, watchers):
        fleet.stop(watchers)
        fleet.start(watchers)
        return {}
    (watcher,) = watchers
    info = _difference(watcher, lambda: watcher.reload(graceful=False))
    return _if_waiting(properties, info=info)


def reload(fleet: Fleet, properties: Properties) -> Reply:
    graceful, sequential = properties.get("graceful", True), properties.get("sequential", False)
    if "name" not in properties:
        for watcher in fleet.by_priority():
            watcher.reload(graceful, sequential)
        return {}
    watcher = fleet.find(properties["name"])
    info = _difference(watcher, lambda: watcher.reload(graceful, sequential))
    return _if_waiting(properties, info=info)


def set_(fleet: Fleet, properties: Properties) -> Reply:
    options = _checked_options(properties["options"])
    fleet.find(properties["name"]).set(options)
    return {}


def kill(fleet: Fleet, properties: Properties) -> Reply:
    try:
        watcher = fleet.find(properties["name"])
    except RefusedError:
        # circusd looks for the watcher only after it has answered.
        if properties.get("waiting"):
            raise RefusedError("server error", SERVER_ERROR) from None
        return {}
    signum = properties.get("signum") or watcher.options["stop_signal"]
    pid = properties.get("pid")
    watcher.kill(_signal_number(signum), int(pid) if pid else None)
    return {}


def signal_(fleet: Fleet, properties: Properties) -> Reply:
    signum = _signal_number(properties["signum"])
    watcher = fleet.find(properties["name"])
    to_a_child = properties.get("childpid") or properties.get("children")
    if signum in _DEADLY and not to_a_child:
        watcher.exit(-signum, properties.get("pid"))
    return {}


def add(fleet: Fleet, properties: Properties) -> Reply:
    options = dict(_checked_options(properties.get("options", {})))
    options.update(cmd=properties["cmd"], args=properties.get("args"))
    watcher = fleet.add(properties["name"], options)
    watcher.emit("add")
    if not properties.get("start"):
        return {}
    info = _difference(watcher, watcher.start)
    del info["stopped"]
    return _if_waiting(properties, **info)


def rm(fleet: Fleet, properties: Properties) -> Reply:
    watcher = fleet.find(properties["name"])
    del fleet.watchers[watcher.name.lower()]
    watcher.emit("remove")
    if not properties.get("nostop"):
        watcher.stop()
    return {}


def reloadconfig(_fleet: Fleet, _properties: Properties) -> Reply:
    return {}


def quit_(fleet: Fleet, _properties: Properties) -> Reply:
    fleet.stop(fleet.by_priority())
    return {}


def _scale(fleet: Fleet, properties: Properties, difference: int) -> Reply:
    watcher = fleet.find(properties["name"])
    if watcher.options["singleton"]:
        return {"numprocesses": watcher.numprocesses, "singleton": True}
    numprocesses = watcher.scale(watcher.numprocesses + difference)
    return _if_waiting(properties, numprocesses=numprocesses)


def _chosen(fleet: Fleet, properties: Properties) -> list[Watcher]:
    if "name" not in properties:
        return fleet.by_priority()
    return fleet.matching(properties["name"], properties.get("match", "glob"))


def _is_single(properties: Properties, watchers: list[Watcher]) -> bool:
    """Whether one watcher was asked for, by a pattern perhaps: it gets a fuller reply."""
    return "name" in properties and len(watchers) == 1


def _if_waiting(properties: Properties, **outcome: Any) -> Reply:
    return outcome if properties.get("waiting") else {}


def _difference(watcher: Watcher, action: Callable[[], None]) -> Reply:
    """Do *action* and return which processes it stopped, started and kept."""
    before = set(watcher.pids)
    action()
    after = set(watcher.pids)
    return {
        "stopped": sorted(before - after),
        "started": sorted(after - before),
        "kept": sorted(after & before),
    }


def _signal_number(signum: Any) -> int:
    if isinstance(signum, int):
        return signum
    name = str(signum).upper()
    if name.isdigit():
        return int(name)
    try:
        return int(signal.Signals[name if name.startswith("SIG") else f"SIG{name}"])
    except KeyError:
        raise RefusedError(f"command: no signal {signum!r}", COMMAND_ERROR) from None


def _checked_options(options: Any) -> Mapping[str, Any]:
    if not isinstance(options, Mapping):
        raise RefusedError("'options' property should be an object")
    for key, value in options.items():
        if key not in _SETTABLE and not key.startswith(_SETTABLE_PREFIXES):
            raise RefusedError(f"unknown key {key!r}")
        if key in _INTEGERS and not isinstance(value, int):
            raise RefusedError(f"{key!r} isn't an integer")
    return options


ORDERS: Mapping[str, Handler[Fleet]] = {
    "add": (add, ("name", "cmd")),
    "decr": (decr, ("name",)),
    "incr": (incr, ("name",)),
    "kill": (kill, ("name",)),
    "quit": (quit_, ()),
    "reload": (reload, ()),
    "reloadconfig": (reloadconfig, ()),
    "restart": (restart, ()),
    "rm": (rm, ("name",)),
    "set": (set_, ("name", "options")),
    "signal": (signal_, ("name", "signum")),
    "start": (start, ()),
    "stop": (stop, ()),
}
