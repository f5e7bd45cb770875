# The commands that change something: each changes the watchers, which publish what follows, and
# returns what circusd replies. The reply is sent before the work is done; only a command sent with
# `waiting` learns its outcome.
#
# Owner: the serving thread.

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from circusplug._control.language import (
    SERVER_ERROR,
    Answer,
    Handler,
    Properties,
    RefusedError,
    error_reply,
)
from circusplug._errors import COMMAND_ERROR
from circusplug._wire.commands import Reply

from ._fleet import Fleet
from ._model import DEFAULT_OPTIONS, Watcher
from ._steps import Pending, run

Steps = Coroutine[Pending[Any], None, Any]

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


def incr(fleet: Fleet, properties: Properties) -> Answer:
    return _scale(fleet, properties, "watcher_incr", properties.get("nb", 1))


def decr(fleet: Fleet, properties: Properties) -> Answer:
    return _scale(fleet, properties, "watcher_decr", -properties.get("nb", 1))


def start(fleet: Fleet, properties: Properties) -> Answer:
    watchers = _chosen(fleet, properties)
    if not _is_single(properties, watchers):
        return _do(fleet, properties, "arbiter_start_watchers", fleet.start(watchers))
    (watcher,) = watchers
    return _do(fleet, properties, "watcher_start", _started(watcher), "info")


def stop(fleet: Fleet, properties: Properties) -> Answer:
    watchers = _chosen(fleet, properties)
    if not _is_single(properties, watchers):
        return _do(fleet, properties, "arbiter_stop_watchers", fleet.stop(watchers))
    return _do(fleet, properties, "watcher_stop", watchers[0].stop(), "info")


def restart(fleet: Fleet, properties: Properties) -> Answer:
    watchers = _chosen(fleet, properties)
    if "name" not in properties:
        return _do(fleet, properties, "arbiter_restart", fleet.quit(again=True))
    if not _is_single(properties, watchers):
        return _do(fleet, properties, "arbiter_restart", fleet.restart(watchers))
    (watcher,) = watchers
    info = _difference(watcher, watcher.restart)
    return _do(fleet, properties, "watcher_restart", info, "info")


def reload(fleet: Fleet, properties: Properties) -> Answer:
    graceful, sequential = properties.get("graceful", True), properties.get("sequential", False)
    if "name" not in properties:
        return _do(fleet, properties, "arbiter_reload", fleet.reload(graceful, sequential))
    watcher = fleet.find(properties["name"])
    info = _difference(watcher, lambda: watcher.reload(graceful, sequential))
    return _do(fleet, properties, "watcher_reload", info, "info")


def set_(fleet: Fleet, properties: Properties) -> Answer:
    options = _checked_options(properties["options"])
    watcher = fleet.find(properties["name"])
    return _do(fleet, properties, "watcher_do_action", watcher.set(options))


def kill(fleet: Fleet, properties: Properties) -> Answer:
    try:
        watcher = fleet.find(properties["name"])
    except RefusedError:
        # circusd looks for the watcher only after it has answered.
        if properties.get("waiting"):
            raise RefusedError("server error", SERVER_ERROR) from None
        return {}
    signum, pid = properties.get("signum"), properties.get("pid")
    kill = watcher.kill(
        _signal_number(signum) if signum else None,
        int(pid) if pid else None,
        properties.get("graceful_timeout"),
    )
    return _answer(run(kill), properties)


def signal_(fleet: Fleet, properties: Properties) -> Answer:
    signum, pid = _signal_number(properties["signum"]), properties.get("pid")
    watcher = fleet.find(properties["name"])
    to_a_child = properties.get("childpid") or properties.get("children")
    for process in watcher.alive:
        if signum in _DEADLY and not to_a_child and pid in (None, process.pid):
            watcher.signal(process, signum)
    return {}


def add(fleet: Fleet, properties: Properties) -> Answer:
    options = dict(_checked_options(properties.get("options", {})))
    options.update(cmd=properties["cmd"], args=properties.get("args"))
    watcher = fleet.exclusively("arbiter_add_watcher", _added(fleet, properties, options)).result()
    if not properties.get("start"):
        return {}
    return _do(fleet, properties, "watcher_start", _started(watcher))


def rm(fleet: Fleet, properties: Properties) -> Answer:
    watcher = fleet.find(properties["name"])
    removal = _removed(fleet, watcher, bool(properties.get("nostop")))
    return _do(fleet, properties, "arbiter_rm_watcher", removal)


def reloadconfig(fleet: Fleet, properties: Properties) -> Answer:
    return _do(fleet, properties, "arbiter_reload_config", fleet.start(()))


def quit_(fleet: Fleet, properties: Properties) -> Answer:
    return _do(fleet, properties, "arbiter_stop", fleet.quit())


def _scale(fleet: Fleet, properties: Properties, name: str, difference: int) -> Answer:
    watcher = fleet.find(properties["name"])
    if watcher.options["singleton"]:
        return {"numprocesses": watcher.numprocesses, "singleton": True}
    scaled = watcher.scale(watcher.numprocesses + difference)
    return _do(fleet, properties, name, scaled, "numprocesses")


def _do(
    fleet: Fleet,
    properties: Properties,
    name: str,
    steps: Steps,
    key: str = "",
) -> Answer:
    """Have an exclusive command done; its outcome is told to who waits, under *key*."""
    return _answer(fleet.exclusively(name, steps), properties, key)


def _answer(done: Pending[Any], properties: Properties, key: str = "") -> Answer:
    """The answer to a command that may take its time."""
    if done.done():
        done.result()  # raises what the command has tripped over
    return run(_outcome(done, key)) if properties.get("waiting") else {}


async def _outcome(done: Pending[Any], key: str) -> Reply:
    try:
        outcome = await done
    except Exception:  # noqa: BLE001 - it goes into the log of circusd, and no further
        return error_reply("server error", SERVER_ERROR)
    return {"status": "ok", **({key: outcome} if key else outcome or {})}


def _chosen(fleet: Fleet, properties: Properties) -> list[Watcher]:
    if "name" not in properties:
        return fleet.by_priority()
    return fleet.matching(properties["name"], properties.get("match", "glob"))


def _is_single(properties: Properties, watchers: list[Watcher]) -> bool:
    """Whether one watcher was asked for, by a pattern perhaps: it gets a fuller reply."""
    return "name" in properties and len(watchers) == 1


async def _difference(watcher: Watcher, steps: Callable[[], Steps]) -> Reply:
    """Do something and return which processes it stopped, started and kept."""
    before = set(watcher.pids)
    await steps()
    after = set(watcher.pids)
    return {
        "stopped": sorted(before - after),
        "started": sorted(after - before),
        "kept": sorted(after & before),
    }


async def _started(watcher: Watcher) -> Reply:
    info = await _difference(watcher, watcher.start)
    del info["stopped"]
    return info


async def _added(fleet: Fleet, properties: Properties, options: Mapping[str, Any]) -> Watcher:
    watcher = fleet.add(properties["name"], options)
    watcher.emit("add")
    return watcher


async def _removed(fleet: Fleet, watcher: Watcher, nostop: bool) -> None:
    del fleet.watchers[watcher.name.lower()]
    watcher.emit("remove")
    if not nostop:
        await watcher.stop()


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
