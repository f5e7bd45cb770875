# `circusplug record`: hosts the one plugin that writes down what circusd publishes and tells.

from __future__ import annotations

import argparse
import os
from typing import Any

from .. import _logs
from .._config.specs import HostConfig, PluginSpec
from .._errors import ConfigError, HostError
from .._host.arbiter import Arbiter
from .._plugin.load import load_plugin_class
from .process_signals import signals_of_process

_USE = "circusplug.plugins.Recorder"


def record(given: argparse.Namespace) -> int:
    """Record until the time is over or a signal comes; returns the exit status.

    Raises:
        ConfigError: The circus.ini has errors, or the recording exists.
        SpecError: An option is not valid.
        HostError: The recording cannot be written.
    """
    from .._config.ini_file import build
    from .._config.ini_includes import read_ini

    config = build(read_ini(given.file))
    if os.path.lexists(given.output):
        raise ConfigError(f"{given.output} exists; move it away, or choose another name for -o")
    options: dict[str, Any] = {
        "filename": given.output,
        "seconds": given.seconds,
        "stats": given.stats,
        "rotate_size": given.rotate,
        "keep": given.keep,
    }
    chosen = {key: value for key, value in options.items() if value is not None}
    load_plugin_class(_USE).check_config(chosen)
    spec = PluginSpec.from_options(
        {"use": _USE, "name": "record", "host.restart": "never", **chosen}
    )
    _logs.configure("info", "-")
    arbiter = Arbiter.from_config(
        HostConfig(
            (spec,),
            given.endpoint or config.endpoint,
            given.pubsub or config.pubsub_endpoint,
            check_delay=config.check_delay,
            ssh_server=config.ssh_server,
        ),
        exit_when_done=True,
    )
    with signals_of_process(arbiter) as signals, signals.host_has_it():
        arbiter.start()
    status = arbiter.plugins[spec.name]
    if status.state == "failed":
        raise HostError(f"nothing is recorded any more: {status.last_error}")
    print(f"{status.counters.handled} events are in {given.output}")
    return 0
