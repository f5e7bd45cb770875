# The runner of an isolated plugin, told by hand what its process says.

from __future__ import annotations

from circusplug import HostConfig, PluginSpec
from circusplug._isolated import messages
from circusplug._isolated.pipes import Pipes
from circusplug._isolated.process_runner import ProcessRunner
from circusplug._runners.runner import Kind, Notice, Surroundings
from circusplug._status import Counters
from circusplug._wire.endpoints import Link


def test_what_happens_once_is_told_to_the_supervisor_once() -> None:
    told: list[Notice] = []
    spec = PluginSpec("one", "troublemakers.Talker", isolate=True)
    around = Surroundings(HostConfig(), Link(), told.append)
    reports = [messages.Running(), messages.TooManyErrors("x"), messages.Stalled("x")]
    runner = ProcessRunner(spec, around, Counters(), Pipes())
    for report in reports * 3:
        runner.heard(report)
    assert [notice.kind for notice in told] == [Kind.RUNNING, Kind.TOO_MANY_ERRORS, Kind.STALLED]
