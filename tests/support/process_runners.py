# Runners of isolated plugins whose processes are not there: tests say what they would say.

from __future__ import annotations

from typing import Any

from circusplug import HostConfig, HostOptions, PluginSpec
from circusplug._isolated.pipes import Pipes
from circusplug._isolated.process_runner import ProcessRunner
from circusplug._plugin.status import Counters
from circusplug._runners.runner import Notice, Surroundings
from circusplug._wire.endpoints import Link


def new_runner(
    told: list[Notice], counters: Counters | None = None, **options: Any
) -> ProcessRunner:
    host = HostOptions(**options)
    spec = PluginSpec("one", "troublemakers.Talker", isolate=True, host=host)
    return ProcessRunner(
        spec, Surroundings(HostConfig(), Link(), told.append), counters or Counters(), Pipes()
    )
