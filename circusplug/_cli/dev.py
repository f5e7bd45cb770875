# `circusplug dev`: hosts a plugin while it is being written, shows all that it does, and loads it
# anew when a file is saved.
#
# Owner: the main thread; the thread that watches files only says that one was saved.

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._config.specs import HostConfig, PluginSpec
from .._errors import CircusPlugError, ConfigError, SpecError
from .._plugin.load import load_plugin_class, short_name
from .._plugin.plugin_path import find_plugins_beside
from .dev_keys import Keys, typed_keys
from .workshop import read_option

if TYPE_CHECKING:
    from ..plugins._watched_files import FileWatch
    from ..testing._replayed import Deed
    from ..testing._workbench import Workbench

KEYS = """\
keys: e  publish an event        a  let a minute pass, A an hour    r  load the code anew
      f  lose replies, or not    x  circusd dies, or comes back     q  end, as Ctrl-C"""
#: How the watchers live if nobody says so: the first one crashes now and then.
_LIVES = "{name} crashes with 1 every 20 s"
_NAMES = ("web", "worker")
#: How often it is looked at what has happened, in seconds.
_TICK = 0.05


def dev(given: argparse.Namespace) -> int:
    """Host the plugin until somebody ends it; returns the exit status.

    Raises:
        CircusPlugError: The plugin, the file or the script is wrong.
    """
    from ..testing import _workbench

    if bool(given.endpoint) != bool(given.pubsub):
        raise ConfigError("a running circusd has two endpoints; give --endpoint and --pubsub")
    if given.fleet and given.endpoint:
        raise ConfigError("--fleet is for the fake circusd; leave it out, or --endpoint")
    target = _Target(given.target, given.plugin, dict(map(read_option, given.option)))
    spec = target.read()
    if given.endpoint:
        bench = _workbench.at_circusd(spec, given.endpoint, given.pubsub, _show)
    else:
        script = Path(given.fleet) if given.fleet else target.lives()
        bench = _workbench.at_fake_circusd(spec, script, _show)
    saved = threading.Event()
    with bench as at, _ended_by_signal() as over, typed_keys() as keys, _watching(target, saved):
        print(f"{spec.name} is {at.status.state}\n{KEYS}")
        while not over.is_set():
            at.tick()
            if saved.is_set():
                saved.clear()
                _load_anew(at, target)
            for line in keys.read(_TICK):
                if _act(at, target, keys, line):
                    return 0
    return 0


class _Target:
    """What is hosted.

    Args:
        target: A file, or a plugin's `use`.
        name: Which plugin of the file; None: its only one.
        options: Options that were given besides.
    """

    def __init__(self, target: str, name: str | None, options: dict[str, Any]) -> None:
        self.path = Path(target) if target.endswith(".ini") or Path(target).is_file() else None
        self._use = target
        self._name = name
        self._options = options
        self._watchers: list[str] = []
        self._module = ""  # the plugin's, once it was read

    def read(self) -> PluginSpec:
        """Read it, and make sure that the plugin can be loaded."""
        spec = self._from_file() if self.path is not None else self._from_use()
        if spec.isolate:
            raise SpecError("'isolate': a plugin is written on a thread; leave it out here")
        plugin_class = load_plugin_class(spec.use, spec.place)
        plugin_class.check_config(spec.config)
        self._module = plugin_class.__module__
        return spec

    def lives(self) -> str:
        """The script of the watchers' lives."""
        names = self._watchers or [*_NAMES]
        return "\n".join(
            [*(f"{name} has 2 processes" for name in names), _LIVES.format(name=names[0])]
        )

    def places(self) -> set[Path]:
        """The directories whose files matter: the plugin's package, and where the file is."""
        found = {self.path.resolve().parent} if self.path is not None else set()
        module = sys.modules.get(self._module.partition(".")[0])
        file = getattr(module, "__file__", None)
        return found | ({Path(file).resolve().parent} if file else set())

    def _from_use(self) -> PluginSpec:
        if self._name is not None:
            raise SpecError("--plugin is for a file with several plugins")
        name = short_name(load_plugin_class(self._use))
        options = {"host.restart": "never", "name": name, **self._options, "use": self._use}
        return PluginSpec.from_options(options)

    def _from_file(self) -> PluginSpec:
        from .._config.ini_file import build
        from .._config.ini_includes import read_ini

        ini = read_ini(str(self.path))
        config: HostConfig = build(ini)
        find_plugins_beside(str(self.path), config.python_path)
        found = {spec.name: spec for spec in config.plugins if spec.active}
        if not found:
            raise ConfigError(f"{self.path}: no [plugin:NAME] section that is active")
        name = self._name or next(iter(found))
        if name not in found or (self._name is None and len(found) > 1):
            raise ConfigError(
                f"{self.path}: has the plugins {', '.join(found)}; give --plugin NAME"
            )
        spec = found[name]
        self._watchers = [
            section.partition(":")[2]
            for section in ini.sections.store
            if section.startswith("watcher:")
        ]
        given = PluginSpec.from_options(
            {"use": spec.use, "name": spec.name, **spec.config, **self._options}
        )
        return replace(spec, config=given.config, host=replace(spec.host, restart="never"))


# What is shown


def _show(deed: Deed) -> None:
    print(deed)
    for line in deed.facts.get("traceback", "").splitlines():
        print(f"{'':13}{line}")


def _tell(text: object) -> None:
    for line in str(text).splitlines():
        print(f"{'':13}{line}")


# What is done


def _load_anew(at: Workbench, target: _Target) -> None:
    try:
        spec = target.read() if target.path is not None else None
        if spec is not None and spec != at.arbiter.config.plugins[0]:
            at.change(spec)
        else:
            at.load_anew()
    except CircusPlugError as error:
        _tell(f"not loaded, the old life goes on: {error}")
    else:
        _tell(f"loaded anew: {at.name} is {at.status.state}")


def _act(at: Workbench, target: _Target, keys: Keys, line: str) -> bool:
    """Do what a key, or a line, says; returns whether that is to end."""
    key, rest = line[:1], line[1:].strip()
    try:
        if key in ("q", "\x04"):
            return True
        if key == "e":
            _publish(at, rest or keys.ask("event, as WATCHER ACTION [KEY=VALUE ...]: "))
        elif key in ("a", "A"):
            seconds = float(rest) if rest else 60.0 if key == "a" else 3600.0
            at.advance(seconds)
            at.tick()
            _tell(f"{seconds:g} s have passed")
        elif key == "f":
            _tell(at.lose_replies())
        elif key == "x":
            _tell(at.stop_circusd())
        elif key == "r":
            _load_anew(at, target)
        elif key.strip():
            _tell(KEYS)
    except (CircusPlugError, ValueError, AssertionError) as error:
        _tell(error)
    return False


def _publish(at: Workbench, text: str) -> None:
    words = text.split()
    if len(words) < 2 or not all("=" in word for word in words[2:]):
        raise ValueError(f"{text!r} is no WATCHER ACTION [KEY=VALUE ...]")
    payload = {}
    for word in words[2:]:
        name, _, value = word.partition("=")
        payload[name] = value
        with contextlib.suppress(ValueError):
            payload[name] = json.loads(value)
    at.publish(words[0], words[1], payload)


# Signals, files


@contextlib.contextmanager
def _ended_by_signal() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set."""
    over = threading.Event()
    before = {
        signum: signal.signal(signum, lambda *_: over.set())
        for signum in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield over
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextlib.contextmanager
def _watching(target: _Target, saved: threading.Event) -> Iterator[None]:
    """Set *saved* whenever a file of the plugin's was saved."""
    if importlib.util.find_spec("watchfiles") is None:
        _tell("files are not watched, type r: pip install 'circusplug[watch]' for that")
        yield
        return
    from ..plugins._watched_files import FileWatch, places_of

    def told(changed: set[Path]) -> None:
        if any(path.suffix == ".py" or path == file for path in changed):
            saved.set()

    file = target.path.resolve() if target.path is not None else None
    watch: FileWatch = FileWatch(places_of(target.places()), told)
    try:
        yield
    finally:
        watch.stop()
