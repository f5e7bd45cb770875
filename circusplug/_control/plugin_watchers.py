# A host's plugins as circusd's commands see them: each is a watcher named plugin:NAME with one
# process. Which commands there are, and what they answer.
#
# Owner: the thread that serves the control endpoint.

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Protocol

from .._config.specs import PLUGIN_PREFIX, HostConfig, PluginSpec
from .._config.values import did_you_mean
from .._errors import COMMAND_ERROR
from .._plugin.status import PluginStatus
from .._secrets import masked
from .._wire.commands import Reply
from .figures import Figures
from .language import Answer, Handler, Properties, RefusedError, matching, shortened

#: circusd's word for a plugin's state.
_WORDS = {
    "running": "active",
    "stalled": "active",
    "starting": "starting",
    "waiting": "starting",
    "backoff": "starting",
    "stopping": "stopping",
}


class Steered(Protocol):
    """A host, as far as it is steered from outside; called on the serving thread."""

    @property
    def config(self) -> HostConfig:
        """What it hosts."""

    def statuses(self, fresh: bool) -> Mapping[str, PluginStatus]:
        """What each plugin is doing, in the order of start.

        Args:
            fresh: Whether isolated plugins are asked for their counters, which may take a moment.
        """

    def stack(self, name: str) -> str:
        """What a plugin's thread or process is at, or why that cannot be told."""

    def change(self, what: str, names: Iterable[str]) -> Future[None]:
        """Have plugins changed: ``start``, ``stop`` or ``restart`` them.

        Raises:
            HostError: Too much is under way.
        """

    def reload(self) -> Future[None]:
        """Have the configuration read again, as for SIGHUP."""

    def quit(self) -> Future[None]:
        """Have the host stop."""


class PluginWatchers:
    """The plugins of a host as watchers.

    Args:
        host: The host.
        endpoint: Where it takes commands.
        pubsub_endpoint: Where it publishes its own events; empty if it does not.
    """

    def __init__(self, host: Steered, endpoint: str, pubsub_endpoint: str) -> None:
        self.host = host
        self.figures = Figures()
        self._ends = {"endpoint": endpoint, "pubsub_endpoint": pubsub_endpoint}

    @property
    def global_options(self) -> dict[str, Any]:
        """What ``globaloptions`` tells."""
        config = self.host.config
        return {
            **self._ends,
            "check_delay": config.check_delay,
            "circusd_endpoint": config.endpoint,
            "circusd_pubsub_endpoint": config.pubsub_endpoint,
            "config": config.source,
            "multicast_endpoint": "",
            "pid": os.getpid(),
            "stats_endpoint": "",
        }

    @property
    def specs(self) -> dict[str, PluginSpec]:
        """The plugins by their names as watchers."""
        return {PLUGIN_PREFIX + spec.name: spec for spec in self.host.config.plugins}

    def find(self, properties: Properties) -> PluginSpec:
        """The plugin that is named, in any case.

        Raises:
            RefusedError: There is none.
        """
        return self.specs[self._only(properties["name"], "simple")[0]]

    def chosen(self, properties: Properties) -> list[str]:
        """The names in the host of the plugins that are meant; all if none is named.

        Raises:
            RefusedError: There is none.
        """
        specs = self.specs
        if "name" not in properties:
            return [spec.name for spec in specs.values()]
        names = self._only(properties["name"], properties.get("match", "glob"))
        return [specs[name].name for name in names]

    def _only(self, wanted: Any, match: Any) -> list[str]:
        names = list(self.specs)
        found = matching(names, wanted, match)
        if not found:
            hint = did_you_mean(wanted, names)
            raise RefusedError(f"program {shortened(wanted)} not found{hint}")
        return found

    def status(self, name: str, fresh: bool = False) -> PluginStatus:
        """A plugin's status."""
        return self.host.statuses(fresh)[name]

    def info(self, status: PluginStatus) -> dict[str, Any]:
        """The processes of a plugin, of which there is one or none, and all that is known of it."""
        if status.pid is None:
            return {}
        native = status.thread.native_id if status.thread is not None else None
        figures = self.figures.of(status.pid, native, status.use)
        started = {} if status.started is None else {"started": status.started}
        return {str(status.pid): {**figures, **started, "wid": 1, **details(status)}}


def details(status: PluginStatus) -> dict[str, Any]:
    """What a host knows of a plugin beyond what circusd knows of a process."""
    age = None if status.started is None else max(0.0, time.time() - status.started)
    counters = dataclasses.asdict(status.counters)
    del counters["lag_counts"]  # whose bounds would have to be known
    return {
        "use": status.use,
        "state": status.state,
        "isolated": status.isolated,
        "uptime": age,
        "connected": status.connected,
        "last_error": status.last_error,
        **counters,
        "lag_buckets": status.counters.lag_buckets,
    }


def status_word(state: str) -> str:
    """circusd's word for a plugin's state."""
    return _WORDS.get(state, "stopped")


# The commands.


def _list(watchers: PluginWatchers, properties: Properties) -> Reply:
    if "name" in properties:
        pid = watchers.status(watchers.find(properties).name).pid
        return {"pids": [] if pid is None else [pid]}
    return {"watchers": sorted(name.lower() for name in watchers.specs)}


def _status(watchers: PluginWatchers, properties: Properties) -> Reply:
    if "name" in properties:
        return {"status": status_word(watchers.status(watchers.find(properties).name).state)}
    statuses = watchers.host.statuses(False)
    return {
        "statuses": {
            PLUGIN_PREFIX + name: status_word(status.state) for name, status in statuses.items()
        }
    }


def _stats(watchers: PluginWatchers, properties: Properties) -> Reply:
    if "name" not in properties:
        statuses = watchers.host.statuses(True)
        infos = {PLUGIN_PREFIX + name: watchers.info(item) for name, item in statuses.items()}
        return {"infos": infos}
    infos = watchers.info(watchers.status(watchers.find(properties).name, True))
    if "process" not in properties:
        return {"name": properties["name"], "info": infos}
    pid = properties["process"]
    if str(pid) not in infos:
        raise RefusedError(f"process {pid!r} not found in {properties['name']!r}")
    return {"process": pid, "info": infos[str(pid)]}


def _dstats(watchers: PluginWatchers, _properties: Properties) -> Reply:
    return {"info": watchers.figures.of(os.getpid(), None, "circusplug")}


def _details(watchers: PluginWatchers, _properties: Properties) -> Reply:
    """Everything at once, for `circusplug status`; circusd has no such command."""
    found = {}
    for name, status in watchers.host.statuses(True).items():
        processes = list(watchers.info(status).values())
        found[name] = {"pid": status.pid, **(processes[0] if processes else details(status))}
    return {"plugins": found, "options": watchers.global_options}


def _stack(watchers: PluginWatchers, properties: Properties) -> Reply:
    names = watchers.chosen(properties)
    return {"stacks": {name: watchers.host.stack(name) for name in names}}


def _options_of(spec: PluginSpec) -> dict[str, Any]:
    options = {
        **spec.config,
        **{f"host.{key}": value for key, value in spec.host.to_dict().items()},
        "use": spec.use_name,
        "isolate": spec.isolate,
        "numprocesses": 1,
        "singleton": True,
    }
    # A program may have given options that JSON cannot say.
    said: dict[str, Any] = json.loads(json.dumps(masked(options), default=str))
    return dict(sorted(said.items()))


def _options(watchers: PluginWatchers, properties: Properties) -> Reply:
    return {"options": _options_of(watchers.find(properties))}


def _get(watchers: PluginWatchers, properties: Properties) -> Reply:
    found = _options_of(watchers.find(properties))
    for key in properties["keys"]:
        if key not in found:
            raise RefusedError(f"{key!r} option not found{did_you_mean(key, found)}")
    return {"options": {key: found[key] for key in properties["keys"]}}


def _globaloptions(watchers: PluginWatchers, properties: Properties) -> Reply:
    found, wanted = watchers.global_options, properties.get("option")
    if not wanted:
        return {"options": found}
    if wanted not in found:
        raise RefusedError(f"{wanted!r} not an existing option")
    return {"options": {wanted: found[wanted]}}


def _numprocesses(watchers: PluginWatchers, properties: Properties) -> Reply:
    if "name" in properties:
        status = watchers.status(watchers.find(properties).name)
        return {"numprocesses": int(status.pid is not None), "watcher_name": properties["name"]}
    statuses = watchers.host.statuses(False).values()
    return {"numprocesses": sum(status.pid is not None for status in statuses)}


def _numwatchers(watchers: PluginWatchers, _properties: Properties) -> Reply:
    return {"numwatchers": len(watchers.specs)}


def _listsockets(_watchers: PluginWatchers, _properties: Properties) -> Reply:
    return {"sockets": []}


def _changing(what: str) -> Callable[[PluginWatchers, Properties], Answer]:
    def change(watchers: PluginWatchers, properties: Properties) -> Answer:
        names = watchers.chosen(properties)
        return _when(properties, watchers.host.change(what, names))

    return change


def _reloadconfig(watchers: PluginWatchers, properties: Properties) -> Answer:
    return _when(properties, watchers.host.reload())


def _quit(watchers: PluginWatchers, properties: Properties) -> Answer:
    return _when(properties, watchers.host.quit())


def _signal(watchers: PluginWatchers, properties: Properties) -> Reply:
    return _send(watchers, properties, signal_number(properties["signum"]))


def _kill(watchers: PluginWatchers, properties: Properties) -> Reply:
    return _send(watchers, properties, signal_number(properties.get("signum") or "TERM"))


def _send(watchers: PluginWatchers, properties: Properties, number: int) -> Reply:
    spec = watchers.find(properties)
    if not spec.isolate:
        raise RefusedError(
            f"{PLUGIN_PREFIX}{spec.name} runs on a thread of the host, which a signal would "
            "reach as a whole; 'stop' or 'restart' it, or isolate it",
            COMMAND_ERROR,
        )
    pid, wanted = watchers.status(spec.name).pid, properties.get("pid")
    if pid is None or wanted not in (None, pid, str(pid)):
        raise RefusedError(f"process {wanted!r} not found in {properties['name']!r}")
    try:
        os.kill(pid, number)
    except OSError as error:
        raise RefusedError(f"command: {error.strerror}", COMMAND_ERROR) from None
    return {}


def signal_number(value: Any) -> int:
    """A signal's number, by its number or name.

    Raises:
        RefusedError: There is none.
    """
    name = str(value).upper()
    if name.isdigit() and int(name) in {int(known) for known in signal.valid_signals()}:
        return int(name)
    known = getattr(signal, name if name.startswith("SIG") else f"SIG{name}", None)
    if not isinstance(known, signal.Signals):
        raise RefusedError("signal invalid")
    return int(known)


def _when(properties: Properties, done: Future[None]) -> Answer:
    """The answer of a command that takes time: who is not `waiting` hears at once."""
    if not properties.get("waiting"):
        return {}  # what goes wrong is in the host's log
    reply: Future[Reply] = Future()

    def tell(_: Future[None]) -> None:
        error = done.exception()
        if error is None:
            reply.set_result({"status": "ok"})
        else:
            reply.set_exception(error)

    done.add_done_callback(tell)
    return reply


def _senseless(what: str) -> Callable[[PluginWatchers, Properties], Reply]:
    def refuse(_watchers: PluginWatchers, _properties: Properties) -> Reply:
        raise RefusedError(what, COMMAND_ERROR)

    return refuse


_ONE = "a plugin has one process or thread; write another section for a second one"
_EDIT = "a plugin's options are in its section of the file; edit that, then 'reloadconfig'"

COMMANDS: Mapping[str, Handler[PluginWatchers]] = {
    "add": (_senseless(_EDIT), ()),
    "decr": (_senseless(_ONE), ()),
    "details": (_details, ()),
    "dstats": (_dstats, ()),
    "get": (_get, ("name", "keys")),
    "globaloptions": (_globaloptions, ()),
    "incr": (_senseless(_ONE), ()),
    "kill": (_kill, ("name",)),
    "list": (_list, ()),
    "listsockets": (_listsockets, ()),
    "numprocesses": (_numprocesses, ()),
    "numwatchers": (_numwatchers, ()),
    "options": (_options, ("name",)),
    "quit": (_quit, ()),
    "reload": (_changing("restart"), ()),
    "reloadconfig": (_reloadconfig, ()),
    "restart": (_changing("restart"), ()),
    "rm": (_senseless(_EDIT), ()),
    "set": (_senseless(_EDIT), ()),
    "signal": (_signal, ("name", "signum")),
    "stack": (_stack, ()),
    "start": (_changing("start"), ()),
    "stats": (_stats, ()),
    "status": (_status, ()),
    "stop": (_changing("stop"), ()),
}
