# The runner of an isolated plugin, told by hand what its process says.

from __future__ import annotations

import dataclasses
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from announcing import Announcing
from patience import PATIENCE
from process_runners import new_runner

from circusplug import HostConfig, PluginSpec
from circusplug._isolated import messages, process_runner
from circusplug._isolated.pipes import Pipes
from circusplug._isolated.process_runner import ProcessRunner
from circusplug._logs import set_plugin_level
from circusplug._plugin.status import Counters
from circusplug._runners.runner import Kind, Notice, Surroundings
from circusplug._wire.endpoints import Link


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


def test_a_process_that_ended_while_it_was_launched_stays_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner = new_runner([])
    monkeypatch.setattr(runner._child, "launch", lambda *_: runner.ended(1))
    runner._launch()
    assert runner._life.is_over


@pytest.mark.parametrize(("grace", "stop_timeout"), [(2.0, 30.0), (30.0, 2.0)])
def test_without_its_host_a_process_may_go_on_for_as_long_as_its_longest_stop(
    grace: float, stop_timeout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = new_runner([], graceful_timeout=grace)
    config = HostConfig(stop_timeout=stop_timeout)
    runner._around = dataclasses.replace(runner._around, config=config)
    launched: list[float] = []
    monkeypatch.setattr(runner._child, "launch", lambda _, longest: launched.append(longest))
    runner._launch()
    assert launched == [30.0 + 2 * process_runner.LAST_WAIT]


def test_the_host_lets_through_what_its_plugin_is_to_log(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = threading.Event()
    runner = new_runner([], loglevel="debug")
    monkeypatch.setattr(runner, "_launch", launched.set)
    runner.start()
    assert launched.wait(PATIENCE)
    assert logging.getLogger("circusplug.plugin.one").level == logging.DEBUG
    set_plugin_level("one", None)


def test_what_its_process_has_said_holds_until_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = new_runner([])
    monkeypatch.setattr(runner._child, "pid", 12)
    assert (runner.running, runner.connected, runner.awaits_circusd) == (False, False, False)
    assert (runner.last_error, runner.busy_since) == (None, 0.0)
    runner.heard(state(awaits_circusd=True, connected=False))
    assert (runner.connected, runner.awaits_circusd) == (False, True)
    runner.heard(state(awaits_circusd=True, last_error="an error", busy_since=7.5))
    runner.heard(messages.Running())
    assert (runner.running, runner.connected, runner.awaits_circusd) == (True, True, True)
    assert (runner.last_error, runner.busy_since, runner.pid) == ("an error", 7.5, 12)
    runner.ended(-9)
    assert (runner.running, runner.connected, runner.awaits_circusd) == (False, False, False)
    assert (runner.last_error, runner.pid) == ("its process was killed by SIGKILL", None)
    assert runner.failure == runner.last_error


def test_its_state_is_asked_for_only_while_there_is_a_plugin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner = new_runner([])
    orders: list[Any] = []
    monkeypatch.setattr(runner._child, "send", orders.append)
    assert runner.refresh() is None
    assert runner.busy_since == 0.0  # it is being imported, and cannot answer
    runner.heard(messages.Begun())
    first = runner.refresh()
    assert first is not None
    assert orders == [messages.AskState()]
    runner.heard(state())
    assert first.is_set()
    assert runner.busy_since == 0.0
    again = runner.refresh()
    assert again is not None
    assert not again.is_set()
    runner.ended(0)
    assert runner.refresh() is None
    assert len(orders) == 2


def test_the_log_level_of_the_host_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = new_runner([])
    orders: list[Any] = []
    monkeypatch.setattr(runner._child, "send", orders.append)
    monkeypatch.setattr(process_runner, "lowest_level", lambda spec: 17)
    runner.log_level_changed()
    assert orders == [messages.LogLevel(17)]


def test_a_stack_of_before_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_runner, "_ANSWER_WAIT", 0.0)
    runner = new_runner([], stall_timeout=0.0)
    monkeypatch.setattr(runner._child, "send", lambda order: runner.heard(messages.Stack("old")))
    assert runner.stack() == "old"
    monkeypatch.setattr(runner._child, "send", lambda order: None)
    assert runner.stack().startswith("  (its process does not answer")
    runner.paused(True)
    assert runner.stack() == "  (its process is stopped by a signal)"
    runner.ended(0)
    assert runner.stack() == ""


ENDED = messages.Ended("why", permanent=True, retry=True)
CLEAN = messages.Ended(None, permanent=False, retry=False)


@pytest.mark.parametrize(
    ("said", "is_asked", "status", "error"),
    [
        (ENDED, False, 1, "why"),
        (CLEAN, False, 0, None),
        (CLEAN, True, -9, "its process was killed by SIGKILL"),
        (None, True, 0, "its process ended without a word, exit status 0"),
        (None, False, -40, "its process was killed by signal 40"),
        (CLEAN, True, None, None),  # nobody knows how it has ended
        (CLEAN, False, None, "the forkserver died"),
        (None, True, None, "the forkserver died"),
        (ENDED, False, None, "why"),
    ],
)
def test_why_it_has_ended_is_what_it_said_or_how_it_ended(
    said: messages.Ended | None, is_asked: bool, status: int | None, error: str | None
) -> None:
    told: list[Notice] = []
    runner = new_runner(told)
    if said is not None:
        runner.heard(said)
    runner._life.stop_asked_at = float(is_asked)
    runner.ended(status)
    runner.ended(-11)  # it ends once
    last = said or CLEAN
    assert told == [Notice(runner, Kind.ENDED, error, last.permanent, last.retry)]


def test_a_stall_is_told_again_when_it_can_be_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Notice] = []
    runner = new_runner(told, stall_timeout=10.0)
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr(process_runner, "time", clock)
    for now in (100.0, 109.9, 110.0, 119.9):
        runner.keeps_still(str(now))
    assert [notice.error for notice in told] == ["100.0", "110.0"]


def test_only_who_is_still_stopped_by_the_same_signal_when_it_is_time_is_stalled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[Notice] = []
    runner = new_runner(told, stall_timeout=10.0)
    now = 100.0
    monkeypatch.setattr(process_runner, "time", SimpleNamespace(monotonic=lambda: now))
    timers: list[tuple[float, Callable[[], object]]] = []
    monkeypatch.setattr(runner._reader, "call_at", lambda *timer: timers.append(timer))
    runner.paused(True)
    assert runner.busy_since == 100.0
    timers[0][1]()
    assert told == []  # it does not even run yet
    runner.heard(messages.Running())
    told.clear()
    runner.paused(False)
    timers[0][1]()
    now = 105.0
    runner.paused(True)
    timers[0][1]()
    assert told == []
    timers[1][1]()
    assert [notice.kind for notice in told] == [Kind.STALLED]
    assert [moment for moment, _ in timers] == [110.0, 115.0]


def test_one_that_is_not_watched_for_stalls_is_not_when_it_is_stopped_by_a_signal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner = new_runner([], stall_timeout=0.0)
    monkeypatch.setattr(runner._reader, "call_at", lambda *_: pytest.fail("it is watched"))
    runner.paused(True)


@pytest.mark.parametrize(
    "report", [messages.Stack("at work"), messages.Parked(), None], ids=["stack", "parked", "ended"]
)
def test_who_waits_for_a_word_of_its_process_hears_it_at_once(report: Any) -> None:
    runner = new_runner([])
    runner._changed = changed = Announcing()
    life = runner._life
    found: Future[bool] = Future()

    def wait() -> None:
        found.set_result(
            runner._wait(
                lambda: life.stack is not None or life.parked or life.is_over,
                time.monotonic() + 1000.0 * PATIENCE,
            )
        )

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    assert changed.waits.wait(PATIENCE)
    if report is None:
        runner.ended(0)
    else:
        runner.heard(report)
    assert found.result(PATIENCE)
    waiter.join(PATIENCE)
