# The runner of an isolated plugin, told by hand what its process says.

from __future__ import annotations

import queue
import threading
import time
from typing import Any

import pytest
from patience import PATIENCE

from circusplug import HostConfig, PluginSpec
from circusplug._isolated import messages, process_runner
from circusplug._isolated.pipes import Pipes
from circusplug._isolated.process_runner import ProcessRunner
from circusplug._runners.runner import Kind, Notice, Surroundings
from circusplug._status import Counters
from circusplug._wire.endpoints import Link


def new_runner(told: list[Notice], counters: Counters | None = None) -> ProcessRunner:
    spec = PluginSpec("one", "troublemakers.Talker", isolate=True)
    return ProcessRunner(
        spec, Surroundings(HostConfig(), Link(), told.append), counters or Counters(), Pipes()
    )


def state(**figures: Any) -> messages.State:
    counters = dict.fromkeys(messages.COUNTED, 0)
    lags = {"lag": 0.0, "lag_sum": 0.0, "lag_counts": Counters().lag_counts}
    rest = {**lags, "busy_since": 0.0, "connected": True, "awaits_circusd": False}
    return messages.State(**{**counters, **rest, "last_error": None, **figures})


def test_one_that_does_not_answer_is_busy_since_it_was_asked_the_first_time() -> None:
    runner = new_runner([])
    runner.heard(messages.Begun())
    assert runner.busy_since == 0.0
    runner.refresh()
    since = runner.busy_since
    assert since > 0.0
    runner.refresh()
    assert runner.busy_since == since


def test_nobody_waits_for_news_of_a_process_that_has_ended() -> None:
    runner = new_runner([])
    runner.heard(messages.Begun())
    refreshed = runner.refresh()
    assert refreshed is not None
    assert not refreshed.is_set()
    runner.ended(0)
    assert refreshed.is_set()


def test_the_lags_of_earlier_lives_are_kept() -> None:
    before, life = Counters(), Counters()
    for counters, lags in ((before, (0.002, 9.0)), (life, (0.002, 0.02))):
        for seconds in lags:
            counters.note_lag(seconds)
    runner = new_runner([], before)
    told = {key: getattr(life, key) for key in ("lag", "lag_sum", "lag_counts")}
    for _ in range(2):  # the same again is no news
        runner.heard(state(**told))
        assert runner.counters.lag_counts == (0, 2, 0, 1, 0, 0, 0, 0, 1)
        assert runner.counters.lag_sum == pytest.approx(9.024)


def test_the_worst_lag_of_earlier_lives_is_kept() -> None:
    runner = new_runner([], Counters(lag=5.0, received=10))
    runner.heard(state(lag=1.0, received=2))
    assert (runner.counters.lag, runner.counters.received) == (5.0, 12)
    runner.heard(state(lag=7.0, received=3))
    assert (runner.counters.lag, runner.counters.received) == (7.0, 13)


def test_one_that_was_given_up_while_it_was_forked_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner = new_runner([])
    done: list[str] = []
    monkeypatch.setattr(runner._child, "launch", lambda *_: runner.abandon())
    monkeypatch.setattr(runner._child, "kill", lambda: done.append("killed"))
    runner._launch()
    assert done == ["killed"]


def test_a_second_stop_gives_no_more_time_than_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = new_runner([])
    orders: list[messages.Stop] = []
    monkeypatch.setattr(runner._child, "launch", lambda *_: None)
    monkeypatch.setattr(runner._child, "send", orders.append)
    monkeypatch.setattr(runner._reader, "call_at", lambda *_: None)
    runner._launch()
    now = time.monotonic()
    for seconds in (20.0, 40.0, 10.0):
        runner.begin_stop(now + seconds)
    first, second, third = (order.seconds for order in orders)
    assert second <= first
    assert third < 10.0


def test_what_happens_once_is_told_to_the_supervisor_once() -> None:
    told: list[Notice] = []
    reports = [messages.Running(), messages.TooManyErrors("x"), messages.Stalled("x")]
    runner = new_runner(told)
    for report in reports * 3:
        runner.heard(report)
    assert [notice.kind for notice in told] == [Kind.RUNNING, Kind.TOO_MANY_ERRORS, Kind.STALLED]


def test_one_that_does_not_answer_its_stop_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process_runner, "_ANSWER_WAIT", 0.0)
    told: queue.SimpleQueue[Notice] = queue.SimpleQueue()
    spec = PluginSpec("one", "troublemakers.Talker", isolate=True)
    around = Surroundings(HostConfig(), Link(), told.put)
    with Pipes() as pipes:
        runner = ProcessRunner(spec, around, Counters(), pipes)
        runner._life.stage = process_runner._Stage.ALIVE
        runner.begin_stop(time.monotonic())
        assert told.get(timeout=PATIENCE).kind is Kind.PARKED


def test_a_process_that_was_asked_to_stop_before_it_was_there_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = threading.Event()
    orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
    spec = PluginSpec("one", "troublemakers.Talker", isolate=True)
    with Pipes() as pipes:
        around = Surroundings(HostConfig(), Link(), lambda _: None)
        runner = ProcessRunner(spec, around, Counters(), pipes)
        monkeypatch.setattr(runner._child, "launch", lambda *_: asked.wait(PATIENCE))
        monkeypatch.setattr(runner._child, "send", orders.put)
        runner.start()
        runner.begin_stop(time.monotonic() + PATIENCE)
        assert orders.empty()
        asked.set()
        assert isinstance(orders.get(timeout=PATIENCE), messages.Stop)
