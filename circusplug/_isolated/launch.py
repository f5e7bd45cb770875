# What an isolated plugin's process is told first, put together from what its host knows.
#
# Owner: whoever calls it; nothing is kept.

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from dataclasses import replace

from .._config.specs import PluginSpec
from .._runners.runner import Surroundings
from .child_output import lowest_level
from .messages import Launch
from .process_setup import describe_main, environment_for


def launch_for(
    spec: PluginSpec, around: Surroundings, state: str | None, only_check: bool
) -> Launch:
    """The first message to a plugin's process; raises what pickling its options does."""
    config = replace(around.config, plugins=())
    plugin = pickle.dumps((_named(spec), config, replace(around.link, context=None), state))
    directory = _current_directory()
    return Launch(
        spec.host,
        config.stop_timeout,
        path=[entry or directory or os.sep for entry in sys.path],
        argv=sys.argv[:],
        directory=directory,
        environment=environment_for(spec.host),
        log_level=lowest_level(spec),
        main=describe_main() if b"__main__" in plugin else {},
        plugin=plugin,
        only_check=only_check,
    )


def _named(spec: PluginSpec) -> PluginSpec:
    """The plugin with its class by name, if its module was imported anew since it was given."""
    use = spec.use
    if isinstance(use, type):
        now = getattr(sys.modules.get(use.__module__), use.__qualname__, use)
        if now is not use and isinstance(now, type):  # pickle would refuse the old one
            return replace(spec, use=spec.use_name)
    return spec


def _current_directory() -> str | None:
    with contextlib.suppress(OSError):  # somebody has removed it
        return os.getcwd()
    return None
