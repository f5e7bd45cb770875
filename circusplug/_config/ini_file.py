# circus.ini to HostConfig: what its sections mean to the host. Every problem is collected
# first and raised at once, so that a file is corrected in one go. Lines and values are
# `ini_syntax`'s business, included files `ini_includes`'s, circusd's sections `ini_for_circusd`'s.

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from typing import Any

from .._errors import ConfigError, SpecError
from .._logs import LEVELS
from .host_options import OPTIONS, needs_process
from .ini_for_circusd import OWN_SECTION, env_patterns
from .ini_includes import CIRCUS_SECTION, Ini, read_ini
from .ini_lookalikes import misspelt_sections, unprefixed
from .ini_syntax import STRAY_NAME, expand, unquote
from .specs import PLUGIN_PREFIX, HostConfig, PluginSpec
from .values import did_you_mean, to_bool

#: What the section runs that stands for a whole host, in a file for circusd.
HOST_USE = "circusplug.Host"

#: What it may say besides defaults for the plugins' ``host.`` options; fields of `HostConfig`.
OWN_OPTIONS = (
    "stop_timeout", "switch_interval", "exit_when_done", "circusd_timeout", "python_path",
    "log_format", "control", "control_pubsub", "door",
)  # fmt: skip

_CIRCUS_KEYS = (
    "endpoint", "pubsub_endpoint", "check_delay", "ssh_server", "loglevel", "logoutput"
)  # fmt: skip
_MAY_BE_EMPTY = frozenset({"ssh_server", "loglevel", "logoutput"})
_logger = logging.getLogger("circusplug")


def load(path: str | os.PathLike[str], environ: Mapping[str, str] | None = None) -> HostConfig:
    """Read a circus.ini, with the files it includes, as circusd would.

    Args:
        path: The main file.
        environ: What ``$(circus.env.NAME)`` is taken from; by default the process's own.

    Raises:
        ConfigError: There is no such file, or something in it is wrong; holds every problem.
    """
    ini = read_ini(path, environ)
    config = build(ini)
    log_warnings(ini)
    return config


def log_warnings(ini: Ini) -> None:
    """Log what was found in a file that is read, and is hardly meant."""
    for line in ini.sections.warnings:
        _logger.warning("%s", line)


@dataclass
class Findings:
    """What a look at a circus.ini finds.

    Attributes:
        plugins: Those that are valid.
        problems: What is wrong, a line each.
        warnings: What is hardly meant, a line each.
        host: The valid values for the host itself.
        ini: The file as it was read; None if that failed.
    """

    plugins: list[PluginSpec] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    host: HostConfig = field(default_factory=HostConfig)
    ini: Ini | None = None


def examine(path: str | os.PathLike[str], environ: Mapping[str, str] | None = None) -> Findings:
    """Read a circus.ini as `load` does, for a look at it; raises nothing."""
    try:
        ini = read_ini(path, environ)
    except ConfigError as error:
        return Findings(problems=list(error.problems))
    found = _Builder(ini).examine()
    found.problems += misspelt_sections(ini)
    return found


def build(ini: Ini) -> HostConfig:
    """Make the host's configuration of what was read.

    Raises:
        ConfigError: Something in it is wrong; holds every problem.
    """
    return _Builder(ini).build()


class _Builder:
    """Collects the configuration and its problems, section by section."""

    def __init__(self, ini: Ini) -> None:
        self._ini = ini
        self._known = ini.variables()
        self._problems = list(ini.sections.problems)
        self._values: dict[str, Any] = {}
        self._defaults: dict[str, str] = {}
        self._env_sections = [
            (env, [item for item in patterns if item.startswith(PLUGIN_PREFIX)])
            for env in ini.sections.store
            if (patterns := env_patterns(env))
        ]

    def build(self) -> HostConfig:
        found = self.examine()
        if found.problems:
            raise ConfigError(*found.problems)
        for line in misspelt_sections(self._ini):  # which Circus reads, and we do, too
            self._ini.sections.warn(line)
        return replace(found.host, plugins=tuple(found.plugins))

    def examine(self) -> Findings:
        self._read_circus()
        self._read_own()
        made = [self._plugin(section) for section in plugin_sections(self._ini)]
        specs = [spec for spec in made if spec is not None]
        try:
            HostConfig(tuple(specs), source=self._ini.path)
        except SpecError as error:  # two of the same name
            self._problems.append(str(error))
        host = HostConfig(**self._values, source=self._ini.path)
        return Findings(specs, self._problems, self._ini.sections.warnings, host, self._ini)

    def _complain(self, section: str, key: str | None, message: str) -> None:
        self._problems.append(f"{self._ini.place(section, key or '')}: {message}")

    def _warn(self, section: str, key: str, message: str) -> None:
        self._ini.sections.warn(f"{self._ini.place(section, key)}: {message}")

    def _read_circus(self) -> None:
        for key in _CIRCUS_KEYS:
            raw = self._ini.circus_option(key)
            value = expand(raw or "", self._known)
            if raw is None or (not value and key in _MAY_BE_EMPTY):
                continue
            if key == "loglevel":
                value = value.lower()
                if value not in LEVELS:
                    # circusd takes what it does not know for "info".
                    self._warn(CIRCUS_SECTION, key, f"{key!r}: {value!r} is none; taking 'info'")
                    continue
            self._keep_value(CIRCUS_SECTION, key, value)

    def _keep_value(self, section: str, key: str, value: str) -> None:
        fields: dict[str, Any] = {key: value}
        try:
            HostConfig(**fields)
            self._values[key] = value
        except SpecError as error:
            self._complain(section, key, error.message)

    def _read_own(self) -> None:
        for key, raw in self._ini.sections.own(OWN_SECTION).items():
            key, value = key.strip(), unquote(expand(raw, self._known))
            if key.startswith("host."):
                self._defaults[key] = value
            elif key in OWN_OPTIONS:
                self._keep_value(OWN_SECTION, key, value)
            else:
                names = [*OWN_OPTIONS, *(f"host.{name}" for name in OPTIONS)]
                listed = f" (there are {', '.join(OWN_OPTIONS)}, host.*)"
                guess = did_you_mean(key, names) or listed
                self._complain(OWN_SECTION, key, f"'{key}' is no option here{guess}")
        # An isolated plugin may have any of them.
        trial = {"use": OWN_SECTION, "isolate": "true", **self._defaults}
        for error in _make_spec(trial, OWN_SECTION, "")[1]:
            self._defaults.pop(error.key or "", None)
            self._complain(OWN_SECTION, error.key, error.message)

    def _plugin(self, section: str) -> PluginSpec | None:
        sections = self._ini.sections
        own = plugin_options(sections.options(section), self._known)
        isolated = _is_isolated(own)
        for key, message in unprefixed(sections.own(section), isolated):
            self._warn(section, key, message)
        options = {
            **_fitting(self._defaults, own, isolated),
            **self._environment(section, isolated),
            **own,
            "name": section,
        }
        header = sections.line(section)
        where = f"{header.file if header else self._ini.path}: [{section}]"
        spec, errors = _make_spec(options, section.removeprefix(PLUGIN_PREFIX), where)
        for error in errors:
            # A missing 'use' may well be on the line that could not be read.
            if error.key != "use" or not sections.is_damaged(section):
                self._complain(section, error.key, error.message)
        return spec

    def _environment(self, section: str, isolated: bool) -> dict[str, str]:
        """What ``[env:plugin:NAME]`` sections give a plugin, as options of the host's."""
        found: dict[str, str] = {}
        for env, patterns in self._env_sections:
            variables = self._ini.sections.own(env).items()
            if not variables or not any(fnmatch(section, pattern) for pattern in patterns):
                continue
            if isolated:
                found.update({f"host.env.{key}": value for key, value in variables})
            else:
                self._complain(
                    env,
                    None,
                    f"an environment of its own needs a process of its own; add 'isolate "
                    f"= true' to [{section}]",
                )
        return found


def plugin_sections(ini: Ini) -> list[str]:
    """The plugin sections in the order of their start; Circus skips those without options."""
    return [
        section
        for section in sorted(ini.sections.store)
        if section.startswith(PLUGIN_PREFIX) and ini.sections.options(section).keys() - {STRAY_NAME}
    ]


def plugin_options(options: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """What a plugin section says, as the plugin is to get it.

    Args:
        options: The section's options, not expanded.
        known: The variables to expand.
    """
    config = {}
    # Sorted as on the command line that Circus makes of it, where the last of equal keys wins.
    for key, value in sorted(options.items()):
        if key != STRAY_NAME:
            value = unquote(expand(value, known))
            config[key.strip()] = _as_number(value) if key == "priority" else value
    return config


def _as_number(value: str) -> str:
    # Circus turns this one into a number and back.
    try:
        return str(int(value))
    except ValueError:
        return value


def _is_isolated(options: Mapping[str, str]) -> bool:
    try:
        return to_bool(options.get("isolate", False))
    except ValueError:  # which is a problem of its own
        return True


def _fitting(
    defaults: Mapping[str, str], options: Mapping[str, str], isolated: bool
) -> dict[str, str]:
    """Those of the file's defaults that fit a plugin and that it does not set itself."""
    fitting = {}
    for key, value in defaults.items():
        name = key.removeprefix("host.")
        only_isolated = needs_process(name, value)
        # Without the prefix, an option that is Circus's own counts for isolated plugins.
        says_itself = (
            isolated and name in options and name in OPTIONS and OPTIONS[name].metadata["circus"]
        )
        if (isolated or not only_isolated) and not says_itself:
            fitting[key] = value
    return fitting


def _make_spec(
    options: dict[str, str], name: str, where: str
) -> tuple[PluginSpec | None, list[SpecError]]:
    """Make a plugin's specification; the first error does not hide the next ones."""
    errors: list[SpecError] = []
    while True:
        made = _try_spec(options, name, where)
        if isinstance(made, PluginSpec):
            return (None if errors else made), errors
        if made.key in [error.key for error in errors]:
            return None, errors
        errors.append(made)
        if made.key == "use":
            options["use"] = "missing"
        elif made.key == "isolate":
            options["isolate"] = "true"
        elif made.key is None or options.pop(made.key, None) is None:
            return None, errors


def _try_spec(options: dict[str, str], name: str, where: str) -> PluginSpec | SpecError:
    try:
        return PluginSpec.from_options(options, name=name, where=where)
    except SpecError as error:
        return error
