# A plugin is data until it runs: frozen, validated descriptions of plugins and of the host.

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from .._errors import SpecError
from .._wire.commands import DEFAULT_CHECK_DELAY, DEFAULT_ENDPOINT, DEFAULT_PUBSUB_ENDPOINT
from .control import AUTO, control_endpoint
from .host_options import (
    CIRCUS_OPTIONS,
    CIRCUS_PROCESS_OPTIONS,
    HostOptions,
    parse_host_options,
    plain_fields,
    refuse_isolated_only,
    restore,
)
from .values import (
    choice,
    endpoint,
    number,
    positive_seconds,
    search_path,
    seconds,
    to_bool,
)

#: The prefix of a plugin's section and of its name in circusd.
PLUGIN_PREFIX = "plugin:"


@dataclass(frozen=True)
class PluginSpec:
    """One plugin, before it runs.

    Attributes:
        name: Unique in the host; without the ``plugin:`` of its section.
        use: Dotted name of the class, or the class itself.
        config: What the plugin receives as keyword arguments.
        isolate: Whether it gets a process of its own.
        host: The host's options for it.
        where: Where it comes from, for messages.
    """

    name: str
    use: str | type
    config: Mapping[str, Any] = field(default_factory=dict, hash=False)
    isolate: bool = False
    host: HostOptions = field(default_factory=HostOptions)
    where: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "config", MappingProxyType(dict(self.config)))
        if not str(self.name).strip():
            raise SpecError("a plugin needs a name", where=self.where, key="name")
        if isinstance(self.use, str):
            if not self.use.strip():
                raise SpecError(
                    "'use' is missing; give the dotted name of a plugin class",
                    where=self.place,
                    key="use",
                )
        elif not isinstance(self.use, type):
            raise SpecError(
                f"'use' must be a dotted name or a class, not {self.use!r}",
                where=self.place,
                key="use",
            )
        try:
            to_bool(self.config.get("active", True))
        except ValueError as error:
            raise SpecError(f"'active': {error}", where=self.place, key="active") from None

    def __reduce__(self) -> tuple[Any, ...]:
        return restore, (PluginSpec, plain_fields(self))

    @property
    def active(self) -> bool:
        """False if the section says ``active = false``: it is accepted, and not started."""
        return to_bool(self.config.get("active", True))

    @property
    def place(self) -> str:
        """Where to look for it, for messages."""
        return self.where or f"plugin {self.name!r}"

    @property
    def use_name(self) -> str:
        """The class as a dotted name, whichever way it was given."""
        if isinstance(self.use, str):
            return self.use
        return f"{self.use.__module__}.{self.use.__qualname__}"

    @classmethod
    def from_options(
        cls, options: Mapping[str, Any], *, name: str | None = None, where: str = ""
    ) -> PluginSpec:
        """Sort a flat mapping of options into the host's and the plugin's.

        Args:
            options: ``use``, ``isolate``, ``host.*`` and anything the plugin wants.
            name: The plugin's name; by default ``options["name"]``, then the dotted name.
            where: For messages, e.g. ``circus.ini: [plugin:logger]``.

        Raises:
            SpecError: An option is missing, unknown or has a value that does not fit.
        """
        config = dict(options)
        use = config.pop("use", "")
        given = name if name is not None else config.get("name")
        label = (
            str(given) if given else (use if isinstance(use, str) else _dotted(use) or repr(use))
        )
        label = label.removeprefix(PLUGIN_PREFIX)
        place = where or f"plugin {label!r}"
        if not use or (isinstance(use, str) and not use.strip()):
            raise SpecError(
                "'use' is missing; give the dotted name of a plugin class", where=place, key="use"
            )
        isolate_value = config.pop("isolate", False)
        try:
            isolate = to_bool(isolate_value)
        except ValueError as error:
            raise SpecError(f"'isolate': {error}", where=place, key="isolate") from None
        prefixed = {key[5:]: config.pop(key) for key in list(config) if key.startswith("host.")}
        unprefixed = {
            key: config[key] for key in config if key in CIRCUS_OPTIONS or key.startswith("rlimit_")
        }
        host = parse_host_options({**(unprefixed if isolate else {}), **prefixed}, prefixed, place)
        if not isolate:
            refuse_isolated_only(prefixed, place)
            _refuse_what_circus_would_do(config, place)
        return cls(label, use, config, isolate, host, where)


#: A plugin as a program gives it.
PluginLike = Mapping[str, Any] | PluginSpec | type


def make_specs(plugins: Iterable[PluginLike]) -> tuple[PluginSpec, ...]:
    """What a program hosts, in the order given.

    Raises:
        SpecError: One is not valid.
    """
    if isinstance(plugins, Mapping | str):
        raise SpecError("'plugins' is a list; write plugins=[{\"use\": ...}]")
    return tuple(make_spec(plugin) for plugin in plugins)


def make_spec(plugin: PluginLike) -> PluginSpec:
    """One plugin as a program gives it; raises as `make_specs` does."""
    if isinstance(plugin, PluginSpec):
        return plugin
    if isinstance(plugin, type):
        return PluginSpec.from_options({"use": plugin})
    if not isinstance(plugin, Mapping):
        raise SpecError(f'{plugin!r} is no plugin; write a class, or {{"use": "module.Class"}}')
    return PluginSpec.from_options(plugin)


def _refuse_what_circus_would_do(config: Mapping[str, Any], place: str) -> None:
    """Refuse options of a plugin's process, which Circus obeys and a thread cannot have."""
    for key in config:
        if key in CIRCUS_PROCESS_OPTIONS or key.startswith("rlimit_"):
            raise SpecError(
                f"'{key}' is for a process of its own, which Circus gives to each plugin; add "
                "'isolate = true', or take it out",
                where=place,
                key=key,
            )


def _dotted(use: Any) -> str:
    name = getattr(use, "__qualname__", None)
    return f"{use.__module__}.{name}" if name else ""


def _interval(value: Any) -> float | None:
    return None if value is None else positive_seconds(value)


def _control(value: Any) -> str | None:
    return None if value is None else control_endpoint(value)


_HOST_VALUES: dict[str, Callable[[Any], Any]] = {
    "endpoint": endpoint,
    "pubsub_endpoint": endpoint,
    "check_delay": number,
    "stop_timeout": seconds,
    "switch_interval": _interval,
    "exit_when_done": to_bool,
    "circusd_timeout": seconds,
    "python_path": search_path,
    "log_format": choice("text", "json"),
    "control": _control,
    "control_pubsub": control_endpoint,
    "door": to_bool,
}


@dataclass(frozen=True)
class HostConfig:
    """A host and its plugins, before anything runs.

    Attributes:
        plugins: In the order of their start.
        endpoint: Where circusd takes commands.
        pubsub_endpoint: Where circusd publishes events.
        check_delay: circusd's own check period in seconds, handed to the plugins.
        ssh_server: ``user@host:port`` to tunnel through, or None.
        loglevel: ``debug``, ``info``, ``warning``, ``error`` or ``critical``.
        logoutput: A file, ``-`` for standard error, or ``syslog://…``.
        stop_timeout: How long stopping all plugins may take, in seconds.
        switch_interval: How long a plugin that computes keeps the interpreter from the others
            at a time, in seconds; None: as it is. See `sys.setswitchinterval`.
        exit_when_done: Whether the host ends when no plugin is left that runs.
        circusd_timeout: How long a circusd that is started here may take to be ready, in seconds.
        python_path: Where else to look for plugins, after everything that is installed.
        log_format: ``text`` or ``json``.
        control: Where the host takes commands: an endpoint, ``auto`` (named after `source`) or
            ``off``; None: not said, which is ``auto`` for the commands and ``off`` for programs.
        door: Whether a host that has started circusd takes its commands in its place.
        control_pubsub: Where it publishes what happens to its plugins, likewise; ``auto`` is
            beside `control`.
        source: The file this comes from, or None.
    """

    plugins: tuple[PluginSpec, ...] = ()
    endpoint: str = DEFAULT_ENDPOINT
    pubsub_endpoint: str = DEFAULT_PUBSUB_ENDPOINT
    check_delay: float = DEFAULT_CHECK_DELAY
    ssh_server: str | None = None
    loglevel: str = "info"
    logoutput: str = "-"
    stop_timeout: float = 10.0
    switch_interval: float | None = None
    exit_when_done: bool = False
    circusd_timeout: float = 30.0
    python_path: tuple[str, ...] = ()
    log_format: str = "text"
    control: str | None = None
    control_pubsub: str = AUTO
    door: bool = True
    source: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for key, parse in _HOST_VALUES.items():
            try:
                object.__setattr__(self, key, parse(getattr(self, key)))
            except ValueError as error:
                raise SpecError(f"'{key}': {error}", where=self.source or "", key=key) from None
        object.__setattr__(self, "plugins", tuple(self.plugins))
        seen: set[str] = set()
        for spec in self.plugins:
            if spec.name in seen:
                raise SpecError(
                    f"two plugins are named {spec.name!r}; give each its own 'name'",
                    where=spec.where,
                    key="name",
                )
            seen.add(spec.name)
