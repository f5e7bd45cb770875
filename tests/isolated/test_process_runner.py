# The runner of an isolated plugin, told by hand what its process says.

from __future__ import annotations

from circusplug import HostConfig, PluginSpec
from circusplug._isolated import messages
from circusplug._isolated.pipes import Pipes
from circusplug._isolated.process_runner import ProcessRunner
from circusplug._runners.runner import Kind, Notice, Surroundings
from circusplug._status import Counters
from circusplug._wire.endpoints import Link


def new_runner(told: list[Notice]) -> ProcessRunner:
    spec = PluginSpec("one", "troublemakers.Talker", isolate=True)
    return ProcessRunner(spec, Surroundings(HostConfig(), Link(), told.append), Counters(), Pipes())


def test_one_that_does_not_answer_is_busy_since_it_was_asked_the_first_time() -> None:
    runner = new_runner([])
    runner.heard(messages.Begun())
    assert runner.busy_since == 0.0
    runner.refresh()
    since = runner.busy_since
    assert since > 0.0
    runner.refresh()
    assert runner.busy_since == since


def test_what_happens_once_is_told_to_the_supervisor_once() -> None:
    told: list[Notice] = []
    reports = [messages.Running(), messages.TooManyErrors("x"), messages.Stalled("x")]
    runner = new_runner(told)
    for report in reports * 3:
        runner.heard(report)
    assert [notice.kind for notice in told] == [Kind.RUNNING, Kind.TOO_MANY_ERRORS, Kind.STALLED]
