# One plugin's way from state to state: how it stops, what follows, and what is handed over, with
# lives and a clock of the test's own.

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fake_runners import FakeRunner
from plugin_bench import Bench

from circusplug import HostOptions
from circusplug._host.managed_plugin import PARK_WAIT, ManagedPlugin
from circusplug._runners.runner import Kind


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


@pytest.mark.parametrize(
    ("graceful_timeout", "stop_timeout", "limit"), [(30, 10, 30), (3, 10, 10), (0, 0, PARK_WAIT)]
)
def test_a_stop_alone_has_the_longer_of_two_times(
    bench: Bench, graceful_timeout: float, stop_timeout: float, limit: float
) -> None:
    bench.stop_timeout = stop_timeout
    plugin, life = bench.run(graceful_timeout=graceful_timeout)
    plugin.stop()
    assert life.deadlines == [bench.now + limit]
    bench.tell(life, Kind.PARKED)
    assert life.deadlines == [bench.now + limit] * 2


@pytest.mark.parametrize(
    ("isolate", "graceful_timeout", "due"),
    [(False, 3.0, 3.0), (False, 0.0, PARK_WAIT), (True, 3.0, 9.0), (True, 30.0, 29.0)],
)
def test_a_stop_is_ended_when_the_event_in_hand_has_had_its_time(
    bench: Bench, isolate: bool, graceful_timeout: float, due: float
) -> None:
    plugin, life = bench.run(isolate, graceful_timeout=graceful_timeout)
    plugin.stop()
    assert bench.timer == bench.now + due
    bench.pass_time(due - 0.01)
    assert life.asked == ["start", "begin_stop"]
    bench.pass_time(0.01)
    assert life.asked == ["start", "begin_stop", "finish_stop"]
    assert (plugin.state, bench.timer) == ("stopped", None)


@pytest.mark.parametrize("kind", [Kind.PARKED, Kind.ENDED])
def test_while_it_stops_only_the_end_of_that_counts(bench: Bench, kind: Kind) -> None:
    plugin, life = bench.run(on_error="restart")
    plugin.stop()
    for other in (Kind.RUNNING, Kind.WAITING, Kind.STOP_ASKED, Kind.TOO_MANY_ERRORS, Kind.BEGUN):
        bench.tell(life, other)
        assert plugin.state == "stopping"
    assert life.asked == ["start", "begin_stop"]
    bench.tell(life, kind)
    assert plugin.state == "stopped"
    assert plugin.is_over


@pytest.mark.parametrize("waits", ["for its turn", "for its restart"])
def test_one_that_waits_is_stopped_at_once(bench: Bench, waits: str) -> None:
    plugin = bench.make(restart_delay=8.0)
    plugin.start()
    if waits == "for its restart":
        bench.tell(bench.come_up(), Kind.ENDED, "it died")
    plugin.stop()
    assert (plugin.state, plugin.is_over, bench.timer) == ("stopped", True, None)
    plugin.start()
    assert plugin.state == "starting"


def test_a_start_that_is_to_stop_has_only_the_time_of_that(bench: Bench) -> None:
    plugin = bench.make(start_timeout=1.0, graceful_timeout=3.0)
    plugin.start()
    life = bench.launch()
    plugin.stop()
    assert bench.timer == bench.now + 3.0
    bench.tell(life, Kind.PARKED)
    assert (plugin.state, bench.timer) == ("stopped", None)


def test_a_start_while_it_stops_follows_the_stop(bench: Bench) -> None:
    plugin, life = bench.run()
    plugin.start()
    assert bench.queue == []  # it runs
    plugin.stop()
    plugin.start()
    assert bench.queue == []
    bench.tell(life, Kind.PARKED)
    assert bench.queue == [plugin]
    plugin.start()
    assert bench.queue == [plugin]  # it waits for its turn already
    # "stopped" is not told of in between: it goes on.
    assert bench.states[-2:] == ["stopping", "starting"]


def test_of_several_orders_during_a_stop_the_last_counts(bench: Bench) -> None:
    plugin, life = bench.run()
    plugin.restart()
    plugin.stop()
    assert life.asked == ["start", "begin_stop"]
    bench.tell(life, Kind.PARKED)
    assert (plugin.state, bench.queue) == ("stopped", [])


def test_a_start_by_hand_forgets_the_failures(bench: Bench) -> None:
    plugin, life = bench.run(max_restarts=1, restart_delay=0.0)
    bench.tell(life, Kind.ENDED, "it died")
    bench.pass_time(0.0)
    bench.tell(bench.come_up(), Kind.ENDED, "it died")
    assert plugin.state == "failed"
    plugin.start()
    bench.tell(bench.come_up(), Kind.ENDED, "it died")
    assert plugin.state == "backoff"


def test_a_thread_that_does_not_end_is_left_behind_until_the_next_start(bench: Bench) -> None:
    plugin, life = bench.run()
    life.ends = False
    plugin.stop()
    bench.tell(life, Kind.PARKED)
    assert bench.left_behind == [life]
    assert plugin.state == "abandoned"
    plugin.stop()
    assert plugin.state == "abandoned"
    plugin.start()
    bench.come_up()
    plugin.restart()
    bench.lives[-1].ends = False
    bench.tell(bench.lives[-1], Kind.PARKED)
    assert bench.states[-3:] == ["stopping", "abandoned", "starting"]


def test_one_that_asks_for_its_stop_and_is_left_behind_stays_abandoned(bench: Bench) -> None:
    plugin, life = bench.run()
    life.ends = False
    bench.tell(life, Kind.STOP_ASKED)
    bench.tell(life, Kind.PARKED)
    assert plugin.state == "abandoned"


def test_an_inactive_one_is_inactive_again_after_its_stop(bench: Bench) -> None:
    plugin = bench.make(active=False)
    assert plugin.state == "inactive"
    plugin.start()
    life = bench.come_up()
    plugin.stop()
    bench.tell(life, Kind.PARKED)
    assert plugin.state == "inactive"
    plugin.start()
    life = bench.come_up()
    life.ends = False
    plugin.stop()
    bench.tell(life, Kind.PARKED)
    assert plugin.state == "abandoned"  # which is the news


def test_what_it_becomes_is_started_if_it_is_active(bench: Bench) -> None:
    plugin, life = bench.run(max_restarts=0)
    inactive = replace(plugin.spec, config={"active": False})
    plugin.restart(inactive)
    bench.tell(life, Kind.PARKED)
    assert (plugin.spec, plugin.state, bench.queue) == (inactive, "inactive", [])
    lenient = replace(plugin.spec, config={}, host=HostOptions(max_restarts=1, restart_delay=0.0))
    plugin.restart(lenient)
    assert (plugin.spec, plugin.state, bench.queue) == (lenient, "starting", [plugin])
    bench.tell(bench.come_up(), Kind.ENDED, "it died")
    assert plugin.state == "backoff"


def handed_over(bench: Bench, plugin: ManagedPlugin, life: FakeRunner) -> Any:
    """Let a life end that has saved something; returns what the next one is given."""
    assert life.hands_over
    life.saved = "saved"
    bench.tell(life, Kind.PARKED)
    return bench.launch().state


def test_a_restart_hands_over_what_a_life_has_saved(bench: Bench) -> None:
    plugin, life = bench.run()
    plugin.restart()
    assert handed_over(bench, plugin, life) == "saved"
    bench.tell(bench.lives[-1], Kind.ENDED, "it died")
    bench.pass_time(100.0)
    assert bench.launch().state is None  # what it was given may be why


def test_what_was_handed_over_once_is_not_handed_over_again(bench: Bench) -> None:
    plugin, life = bench.run()
    plugin.restart()
    handed_over(bench, plugin, life)
    bench.tell(bench.lives[-1], Kind.RUNNING)
    plugin.restart()
    bench.tell(bench.lives[-1], Kind.PARKED)  # and it has saved nothing
    assert bench.launch().state is None


def test_one_that_ran_for_long_has_its_failures_forgotten(bench: Bench) -> None:
    plugin, life = bench.run(max_restarts=1, restart_delay=0.0, restart_reset=60.0)
    for _ in range(5):
        bench.now += 60.0
        bench.tell(life, Kind.ENDED, "it died")
        bench.pass_time(0.0)
        life = bench.come_up()
    assert plugin.state == "running"


def test_one_that_waits_to_be_tried_again_is_stopped_at_once(bench: Bench) -> None:
    plugin = bench.make()
    plugin.start()
    bench.tell(bench.launch(), Kind.ENDED, "circusd was away", retry=True)
    assert (plugin.state, plugin.status(lambda _: False).started) == ("starting", None)
    plugin.stop()
    assert plugin.state == "stopped"


def test_what_was_handed_over_waits_for_circusd_with_the_plugin(bench: Bench) -> None:
    plugin, life = bench.run()
    plugin.restart()
    handed_over(bench, plugin, life)
    bench.tell(bench.lives[-1], Kind.WAITING)
    bench.tell(bench.lives[-1], Kind.ENDED, "circusd was away", retry=True)
    assert bench.launch().state == "saved"
    assert plugin.counters.restarts == 0


@pytest.mark.parametrize(
    "change", [{"use": "m.B"}, {"isolate": True}, {"config": {"colour": "red"}}], ids=str
)
def test_another_class_gets_nothing_from_the_one_before(
    bench: Bench, change: dict[str, Any]
) -> None:
    plugin, life = bench.run()
    plugin.restart(replace(plugin.spec, **change))
    assert handed_over(bench, plugin, life) == ("saved" if "config" in change else None)


def test_a_stop_hands_nothing_over_whatever_was_asked_before(bench: Bench) -> None:
    plugin, life = bench.run()
    plugin.restart()
    plugin.stop()
    plugin.restart()
    life.saved = "saved"
    bench.tell(life, Kind.PARKED)
    assert bench.launch().state is None
