# The commands that look at a running host or steer it, through its control endpoint: status,
# start, stop, restart, reload, stack, events, quit.

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import zmq

from .._config.control import AUTO, OFF
from .._config.specs import PLUGIN_PREFIX
from .._control.client import ControlClient, NotRunningError
from .._control.places import endpoints_of, is_alive, running
from .._errors import CircusPlugError, ConfigError, HostError
from .status_table import table

#: What `systemctl` returns for a service that does not run.
EXIT_NOT_RUNNING = 3

#: States that somebody should look at.
_BAD = frozenset({"failed", "abandoned", "stalled", "backoff"})
#: How often ``--watch`` looks, in seconds.
_EVERY = 2.0


class _Command(NamedTuple):
    help: str
    description: str
    names: str = ""  # how many plugins it takes, as argparse says it


_FILE = """
FILE is the configuration file that the host was started with; it may be left out if one host of
yours runs. Exit status: 0, 1 if it failed, 3 if no host runs.
"""
COMMANDS: Mapping[str, _Command] = {
    "status": _Command(
        "show what a host's plugins do",
        "Prints a line for each plugin of a running host. The exit status is 1 if one has failed, "
        "stalls or waits for its restart.",
    ),
    "start": _Command("start plugins of a host", "Starts plugins that do not run.", "+"),
    "stop": _Command("stop plugins of a host", "Stops plugins; the host goes on.", "+"),
    "restart": _Command(
        "restart plugins of a host",
        "Stops plugins and starts new instances, with the code that is there now.",
        "+",
    ),
    "reload": _Command(
        "have a host read its file again",
        "Has the host read its file again, as SIGHUP does: only what changed is touched.",
    ),
    "stack": _Command(
        "show what a host's plugins are at right now",
        "Prints the stack of each plugin's thread or process, or of those that are named.",
        "*",
    ),
    "events": _Command(
        "follow what happens to a host's plugins",
        "Prints each start, end, failure and stall of a plugin as it happens, until Ctrl-C.",
    ),
    "quit": _Command("stop a host", "Stops all plugins cleanly, and the host."),
}


def add_commands(commands: Any) -> None:
    """Add the commands to the parser's."""
    for name, command in COMMANDS.items():
        parser = commands.add_parser(
            name,
            help=command.help,
            description=command.description + "\n" + _FILE,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if command.names:
            parser.add_argument("targets", nargs=command.names, metavar="[FILE] NAME")
        else:
            parser.add_argument("targets", nargs="?", metavar="FILE")
        parser.add_argument("--endpoint", help="the host's control endpoint, instead of FILE")
        if name in ("status", "events"):
            parser.add_argument("--json", action="store_true", help="print JSON")
        if name == "status":
            parser.add_argument("--watch", action="store_true", help="again and again")


def steer(given: argparse.Namespace) -> int:
    """Carry out one of the commands; returns the exit status.

    Raises:
        CircusPlugError: The host refuses, or cannot be told from others.
    """
    targets = given.targets if isinstance(given.targets, list) else [given.targets]
    file, names = _split(given.command, [target for target in targets if target is not None])
    try:
        with ControlClient(given.endpoint or _find(file)) as host:
            return _carry_out(given, host, names)
    except NotRunningError as error:
        print(f"circusplug: {error}", file=sys.stderr)
        return EXIT_NOT_RUNNING


def _split(command: str, targets: Sequence[str]) -> tuple[str | None, list[str]]:
    """The file, if there is one, and the plugins' names."""
    takes_names = bool(COMMANDS[command].names)
    if targets and (not takes_names or os.path.isfile(targets[0])):
        file, names = targets[0], list(targets[1:])
        if not os.path.isfile(file):
            raise ConfigError(f"{file}: no such file")
    else:
        file, names = None, list(targets)
    if COMMANDS[command].names == "+" and not names:
        raise HostError(f"{command}: name a plugin; 'plugin:*' is all of them")
    return file, names


def _find(file: str | None) -> str:
    if file is None:
        found = running()
        if not found:
            raise NotRunningError("no host of yours runs; start one with 'circusplug run FILE'")
        if len(found) > 1:
            raise HostError(f"several hosts run; give a file, or --endpoint: {', '.join(found)}")
        return found[0]
    control = _control_of(file)
    if control == OFF:
        raise NotRunningError(f"{file}: its host takes no commands ('control' is off)")
    places = endpoints_of(file) if control == AUTO else [control]
    for endpoint in places:
        path = endpoint.removeprefix("ipc://")
        if path == endpoint or is_alive(path):
            return endpoint
    raise NotRunningError(f"no host runs for {file}; start it with 'circusplug run {file}'")


def _control_of(file: str) -> str:
    from .._config import ini_file

    try:
        return ini_file.load(file).control or AUTO
    except ConfigError:
        return AUTO  # the host that runs has read a better one


def _carry_out(given: argparse.Namespace, host: ControlClient, names: Sequence[str]) -> int:
    command = given.command
    if command == "status":
        return _status(host, as_json=given.json, watch=given.watch)
    if command == "events":
        return _events(host, as_json=given.json)
    if command == "stack":
        return _stack(host, names)
    if command == "reload":
        host.ask("reloadconfig", waiting=True)
    elif command == "quit":
        host.ask("quit", waiting=True)
    failed = [error for name in names if (error := _refusal(host, command, name))]
    if failed:
        raise HostError("\n".join(failed))
    return 0


def _refusal(host: ControlClient, command: str, name: str) -> str:
    try:
        host.ask(command, name=_as_watcher(name), waiting=True)
    except NotRunningError:
        raise
    except CircusPlugError as error:
        return f"{name}: {error}"
    return ""


def _as_watcher(name: str) -> str:
    return name if name.startswith(PLUGIN_PREFIX) else PLUGIN_PREFIX + name


def _stack(host: ControlClient, names: Sequence[str]) -> int:
    asked: list[dict[str, str]] = [{"name": _as_watcher(name)} for name in names] or [{}]
    for properties in asked:
        for name, stack in host.ask("stack", **properties)["stacks"].items():
            print(f"{name}:\n{stack or '  (it does not run)'}")
    return 0


# Status.


def _status(host: ControlClient, *, as_json: bool, watch: bool) -> int:
    while True:
        told = host.ask("details")
        plugins = told["plugins"]
        if as_json:
            print(json.dumps({"plugins": plugins, "options": told["options"]}, indent=2))
        else:
            if watch and sys.stdout.isatty():
                print("\x1b[H\x1b[2J", end="")
            print(table(plugins))
        if not watch:
            return 1 if any(plugin["state"] in _BAD for plugin in plugins.values()) else 0
        time.sleep(_EVERY)


# Events.


def _events(host: ControlClient, *, as_json: bool) -> int:
    endpoint = host.ask("globaloptions")["options"]["pubsub_endpoint"]
    if not endpoint:
        raise HostError("this host publishes no events; set 'control_pubsub' in its file")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context, context.socket(zmq.SUB) as events:
        events.linger = 0
        events.subscribe(b"watcher.")
        with events.get_monitor_socket(zmq.EVENT_DISCONNECTED) as gone:
            events.connect(endpoint)
            for topic, data in _received(events, gone):
                _print_event(topic.decode("utf-8", "replace"), data, as_json)
            events.disable_monitor()
    print("circusplug: the host has ended", file=sys.stderr)
    return 0


def _received(events: zmq.Socket[bytes], gone: zmq.Socket[bytes]) -> Iterable[tuple[bytes, bytes]]:
    poller = zmq.Poller()
    poller.register(events, zmq.POLLIN)
    poller.register(gone, zmq.POLLIN)
    while True:
        ready = dict(poller.poll())
        if events in ready:
            topic, data = events.recv_multipart()
            yield topic, data
        elif gone in ready:
            return


def _print_event(topic: str, data: bytes, as_json: bool) -> None:
    name, _, action = topic.removeprefix("watcher.").rpartition(".")
    said = json.loads(data)
    if as_json:
        print(json.dumps({"watcher": name, "action": action, **said}))
    else:
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(said.pop("time", 0.0)))
        more = " ".join(f"{key}={value}" for key, value in said.items())
        print(f"{moment} {name} {action} {more}".rstrip())
