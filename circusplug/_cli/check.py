# `circusplug check`: what a configuration file means, and all that is wrong with it.

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from .._config.ini_file import HOST_USE, examine
from .._config.specs import PluginSpec
from .._errors import PluginLoadError, SpecError, describe
from .._plugin.load import load_checked


def check(path: str, *, as_json: bool, imports: bool) -> int:
    """Print what each plugin would receive, and every problem; returns the exit status.

    Args:
        path: The configuration file.
        as_json: Print one JSON object instead of text.
        imports: Whether to import the plugins, too.
    """
    specs, problems = examine(path)
    hosted = [_hosted(spec) for spec in specs if spec.use == HOST_USE and spec.active]
    for inner, inner_problems in hosted:
        specs += inner
        problems += inner_problems
    for spec in specs if imports else ():
        problem = _import(spec)
        if problem:
            problems.append(problem)
    if as_json:
        # A host's own section gives way to a plugin of its file that has the same name.
        specs.sort(key=lambda spec: spec.use != HOST_USE)
        plugins = {spec.name: _describe(spec) for spec in specs}
        print(json.dumps({"plugins": plugins, "problems": problems}, indent=2))
    else:
        _print(path, specs, problems)
        sys.stdout.flush()
        for problem in problems:
            print(problem, file=sys.stderr)
    return 1 if problems else 0


def _hosted(spec: PluginSpec) -> tuple[list[PluginSpec], list[str]]:
    """The plugins of the file that a host under circusd reads, and what is wrong with it."""
    path = spec.config.get("config")
    if not path:
        return [], [f"{spec.place}: 'config' is missing; give the file with the plugins' sections"]
    path = os.path.expanduser(path)
    if not os.path.isfile(path):
        return [], [f"{spec.place}: 'config': {path}: no such file"]
    return examine(path)


def _import(spec: PluginSpec) -> str:
    """Import a plugin as it would be for its run; returns what is wrong, or nothing."""
    before = list(sys.path)
    sys.path[:0] = spec.host.python_path
    try:
        with _output_to_stderr():
            load_checked(spec)
    except (PluginLoadError, SpecError) as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - it is the plugin's own, and may raise anything
        return f"{spec.place}: {describe(error)}"
    finally:
        sys.path[:] = before
    return ""


@contextlib.contextmanager
def _output_to_stderr() -> Iterator[None]:
    """What a module prints when it is imported, by whatever means, is no part of our output."""
    sys.stdout.flush()
    ours = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(ours, 1)
        os.close(ours)


def _describe(spec: PluginSpec) -> dict[str, Any]:
    return {
        "use": spec.use_name,
        "config": dict(spec.config),
        "isolate": spec.isolate,
        "host": spec.host.to_dict(),
    }


def _print(path: str, specs: list[PluginSpec], problems: list[str]) -> None:
    for spec in specs:
        how = "in a process of its own" if spec.isolate else "on a thread"
        print(f"[plugin:{spec.name}] {spec.use_name}, {how if spec.active else 'not active'}")
        for key, value in spec.config.items():
            print(f"    {key} = {value!r}")
        for key, value in spec.host.to_dict().items():
            print(f"    host.{key} = {value!r}")
    if not problems:
        print(f"{path}: {len(specs) or 'no'} plugin{'' if len(specs) == 1 else 's'}, no problem")
