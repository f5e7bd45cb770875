# The decision what follows the end of a plugin, with a clock and a draw of the test's own.

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circusplug import HostOptions
from circusplug._host.restart_policy import Decision, RestartPolicy

FAILURE, CLEAN = False, True


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def policy(clock: Clock | None = None, draw: float = 1.0, **options: Any) -> RestartPolicy:
    return RestartPolicy(HostOptions(**options), clock or Clock(), lambda: draw)


@pytest.mark.parametrize(
    ("restart", "end", "restarts", "gave_up"),
    [
        ("on-failure", FAILURE, True, False),
        ("on-failure", CLEAN, False, False),
        ("always", FAILURE, True, False),
        ("always", CLEAN, True, False),
        ("never", FAILURE, False, True),
        ("never", CLEAN, False, False),
    ],
)
@pytest.mark.parametrize("ran", [True, False], ids=["ran", "did not start"])
def test_each_kind_of_restart_meets_each_kind_of_end(
    restart: str, end: bool, restarts: bool, gave_up: bool, ran: bool
) -> None:
    rules = policy(restart=restart)
    if ran:
        rules.running()
    decision = rules.ended(end)
    assert (decision.restart, decision.gave_up) == (restarts, gave_up)


def test_the_delay_doubles_up_to_its_maximum() -> None:
    rules = policy(restart_delay=1.0, restart_delay_max=20.0, max_restarts=-1)
    delays = [rules.ended(FAILURE).delay for _ in range(8)]
    assert delays == [1, 2, 4, 8, 16, 20, 20, 20]


def test_the_delay_is_drawn_from_nothing_up_to_its_ceiling() -> None:
    for draw in (0.0, 0.25, 0.999):
        rules = policy(draw=draw, restart_delay=2.0)
        assert [rules.ended(FAILURE).delay for _ in range(3)] == [2 * draw, 4 * draw, 8 * draw]


def test_by_default_the_draw_is_spread_between_nothing_and_the_ceiling() -> None:
    delays = {RestartPolicy(HostOptions(restart_delay=8.0)).ended(FAILURE).delay for _ in range(50)}
    assert len(delays) > 40
    assert all(0 <= delay <= 8 for delay in delays)


@given(
    delay=st.floats(0, 1e300),
    longest=st.floats(0, 1e300),
    draw=st.floats(0, 1),
    failures=st.integers(1, 2000),
)
def test_no_delay_is_longer_than_the_maximum(
    delay: float, longest: float, draw: float, failures: int
) -> None:
    rules = policy(draw=draw, restart_delay=delay, restart_delay_max=longest, max_restarts=-1)
    rules.failures = failures - 1
    assert 0 <= rules.ended(FAILURE).delay <= longest


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_it_gives_up_after_max_restarts_failures_in_a_row(limit: int) -> None:
    rules = policy(max_restarts=limit)
    assert [rules.ended(FAILURE).restart for _ in range(limit)] == [True] * limit
    assert rules.ended(FAILURE) == Decision(restart=False, delay=0.0, gave_up=True)
    assert rules.failures == limit + 1


def test_with_max_restarts_of_minus_one_it_never_gives_up() -> None:
    rules = policy(max_restarts=-1)
    assert all(rules.ended(FAILURE).restart for _ in range(3000))


def test_a_plugin_that_ran_long_enough_has_its_failures_forgotten() -> None:
    clock = Clock()
    rules = policy(clock, restart_delay=1.0, restart_reset=60.0, max_restarts=2)
    delays = []
    for seconds in (0.0, 59.9, 60.0, 59.9, 1000.0):
        rules.running()
        clock.now += seconds
        delays.append(rules.ended(FAILURE).delay)
        clock.now += 1000.0  # waiting for a restart is not running
    assert delays == [1, 2, 1, 2, 1]


def test_time_before_it_ran_does_not_count() -> None:
    clock = Clock()
    rules = policy(clock, restart_reset=60.0, max_restarts=1)
    clock.now += 1000.0
    assert rules.ended(FAILURE).restart
    clock.now += 1000.0  # it did not get to run
    assert rules.ended(FAILURE).gave_up


def test_a_clean_end_adds_no_failure_and_waits_as_after_the_first() -> None:
    rules = policy(restart="always", restart_delay=1.0, max_restarts=1)
    assert [rules.ended(CLEAN).delay for _ in range(5)] == [1.0] * 5
    assert rules.failures == 0
    assert rules.ended(FAILURE).restart
    assert rules.ended(CLEAN).restart
    assert rules.ended(FAILURE).gave_up


def test_one_that_once_ran_long_and_does_not_start_any_more_is_given_up() -> None:
    clock = Clock()
    rules = policy(clock, restart_reset=60.0, max_restarts=2)
    rules.running()
    clock.now += 60.0
    decisions = [rules.ended(FAILURE) for _ in range(3)]
    assert [decision.gave_up for decision in decisions] == [False, False, True]
