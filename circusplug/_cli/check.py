# `circusplug check`: what a configuration file means, and all that is wrong with it.

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator

from .._config.ini_file import HOST_USE, Findings, examine
from .._config.ini_includes import CIRCUS_SECTION
from .._config.ini_syntax import expand, unquote
from .._config.specs import PluginSpec
from .._plugin.plugin_path import find_plugins_beside
from .._secrets import masked
from .check_circusd import circusd_problem
from .check_import import import_problems


def check(path: str, *, as_json: bool, imports: bool) -> int:
    """Print what each plugin would receive, and every problem; returns the exit status.

    Args:
        path: The configuration file.
        as_json: Print one JSON object instead of text.
        imports: Whether to import the plugins, and to ask Circus's parser.
    """
    found = _examined(path)
    for spec in [spec for spec in found.plugins if spec.use == HOST_USE and spec.active]:
        inner = _hosted(spec)
        found.plugins += inner.plugins
        found.problems += inner.problems
        found.warnings += inner.warnings
    if imports:
        if found.ini is not None and not found.ini.sections.problems:
            found.problems += filter(None, [circusd_problem(found.ini, found.problems)])
        watchers = list(_watchers_say(found))
        lines = [line for spec in found.plugins for line in import_problems(spec, watchers)]
        found.problems += dict.fromkeys(lines)  # two plugins may have one class
    if as_json:
        _print_json(found)
    else:
        _print(path, found)
    return 1 if found.problems else 0


def _examined(path: str) -> Findings:
    found = examine(path)
    find_plugins_beside(path, found.host.python_path)
    if found.ini is not None and (problem := _log_problem(found.host.logoutput)):
        found.problems.append(f"{found.ini.place(CIRCUS_SECTION, 'logoutput')}: {problem}")
    return found


def _hosted(spec: PluginSpec) -> Findings:
    """What is in the file that a host under circusd reads, and what is wrong with it."""
    path = spec.config.get("config")
    if not path:
        problem = "'config' is missing; give the file with the plugins' sections"
        return Findings(problems=[f"{spec.place}: {problem}"])
    path = os.path.expanduser(path)
    if not os.path.isfile(path):
        return Findings(problems=[f"{spec.place}: 'config': {path}: no such file"])
    return _examined(path)


def _watchers_say(found: Findings) -> Iterator[tuple[str, str, str]]:
    """Place, key and value of what may be an option of a plugin's in a watcher's section."""
    if found.ini is None:
        return
    known = found.ini.variables()
    for section in found.ini.sections.store:
        if section.startswith("watcher:"):
            for key, value in found.ini.sections.own(section).items():
                yield found.ini.place(section, key), key, unquote(expand(value, known))


def _log_problem(output: str) -> str:
    """Why a log cannot be written, as far as can be seen without making the file; or nothing."""
    if output in ("", "-", "stdout") or output.startswith("syslog://"):
        return ""
    file = os.path.abspath(os.path.expanduser(output))
    directory = os.path.dirname(file)
    if os.path.isdir(file):
        reason = "Is a directory"
    elif not os.path.isdir(directory):
        reason = f"there is no directory {directory}"
    elif not os.access(file if os.path.exists(file) else directory, os.W_OK):
        reason = "Permission denied"
    else:
        return ""
    return f"'logoutput': cannot log to {output!r}: {reason}"


def _print_json(found: Findings) -> None:
    plugins = {
        spec.name: {
            "use": spec.use_name,
            "config": masked(spec.config),
            "isolate": spec.isolate,
            "host": masked(spec.host.to_dict()),
        }
        for spec in found.plugins  # a host before its file's, one of which may have its name
    }
    report = {"plugins": plugins, "problems": found.problems, "warnings": found.warnings}
    print(json.dumps(report, indent=2))


def _print(path: str, found: Findings) -> None:
    for spec in found.plugins:
        how = "in a process of its own" if spec.isolate else "on a thread"
        print(f"[plugin:{spec.name}] {spec.use_name}, {how if spec.active else 'not active'}")
        for key, value in masked(spec.config).items():
            print(f"    {key} = {value!r}")
        for key, value in masked(spec.host.to_dict()).items():
            print(f"    host.{key} = {value!r}")
    if not found.problems:
        plugins = _counted(len(found.plugins), "plugin")
        warned = f", {_counted(len(found.warnings), 'warning')}" if found.warnings else ""
        print(f"{path}: {plugins}, no problem{warned}")
    for line in [*(f"warning: {warning}" for warning in found.warnings), *found.problems]:
        print(line, file=sys.stderr)


def _counted(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
