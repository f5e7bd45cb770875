# The commands that only ask: from the watchers to replies in circusd's form.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from circusplug._control.language import Handler, Properties, RefusedError
from circusplug._errors import COMMAND_ERROR
from circusplug._wire.commands import Reply

from ._fleet import Fleet
from ._model import DEFAULT_OPTIONS, Watcher
from ._process import process_figures


def list_(fleet: Fleet, properties: Properties) -> Reply:
    if "name" in properties:
        return {"pids": [process.pid for process in fleet.find(properties["name"]).alive]}
    return {"watchers": sorted(fleet.watchers)}


def status(fleet: Fleet, properties: Properties) -> Reply:
    if "name" in properties:
        return {"status": fleet.find(properties["name"]).status}
    return {"statuses": {watcher.name: watcher.status for watcher in fleet.watchers.values()}}


def stats(fleet: Fleet, properties: Properties) -> Reply:
    if "name" not in properties:
        return {"infos": {watcher.name: _infos(watcher) for watcher in fleet.watchers.values()}}
    name = properties["name"]
    infos = _infos(fleet.find(name))
    if "process" not in properties:
        return {"name": name, "info": infos}
    pid = properties["process"]
    if str(pid) not in infos:
        raise RefusedError(f"process {pid!r} not found in {name!r}")
    return {"process": pid, "info": infos[str(pid)]}


def dstats(fleet: Fleet, _properties: Properties) -> Reply:
    return {"info": process_figures(fleet.pid, fleet.started, "circusd", fleet.now())}


def options(fleet: Fleet, properties: Properties) -> Reply:
    found = fleet.find(properties["name"]).options
    return {"options": {key: found[key] for key in sorted(found)}}


def get(fleet: Fleet, properties: Properties) -> Reply:
    found = fleet.find(properties["name"]).options
    for key in properties["keys"]:
        if key not in found:
            raise RefusedError(f"{key!r} option not found")
        if key not in DEFAULT_OPTIONS:
            # Only `options` can read a free option; circusd trips over it here.
            reason = f"command 'get': 'Watcher' object has no attribute {key!r}"
            raise RefusedError(reason, COMMAND_ERROR)
    return {"options": {key: found[key] for key in properties["keys"]}}


def globaloptions(fleet: Fleet, properties: Properties) -> Reply:
    found, wanted = fleet.global_options(), properties.get("option")
    if not wanted:
        return {"options": dict(found)}
    if wanted not in found:
        raise RefusedError(f"{wanted!r} not an existing option")
    return {"options": {wanted: found[wanted]}}


def numprocesses(fleet: Fleet, properties: Properties) -> Reply:
    if "name" in properties:
        name = properties["name"]
        return {"numprocesses": len(fleet.find(name).processes), "watcher_name": name}
    return {"numprocesses": sum(len(w.processes) for w in fleet.watchers.values())}


def numwatchers(fleet: Fleet, _properties: Properties) -> Reply:
    return {"numwatchers": len(fleet.watchers)}


def listsockets(_fleet: Fleet, _properties: Properties) -> Reply:
    return {"sockets": []}


def _infos(watcher: Watcher) -> dict[str, Any]:
    return {str(process.pid): watcher.info(process) for process in watcher.processes}


QUERIES: Mapping[str, Handler[Fleet]] = {
    "dstats": (dstats, ()),
    "get": (get, ("name", "keys")),
    "globaloptions": (globaloptions, ()),
    "list": (list_, ()),
    "listsockets": (listsockets, ()),
    "numprocesses": (numprocesses, ()),
    "numwatchers": (numwatchers, ()),
    "options": (options, ("name",)),
    "stats": (stats, ()),
    "status": (status, ()),
}
