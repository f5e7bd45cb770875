# What processes do by themselves: what follows from the moment.

from __future__ import annotations

import math

import pytest

from circusplug.testing._life import Life, Span
from circusplug.testing._process import DEFAULT_MEMORY


@pytest.mark.parametrize(
    ("moment", "holds"), [(9.9, False), (10.0, True), (19.9, True), (20.0, False)]
)
def test_a_span_begins_with_its_first_moment_and_ends_before_its_last(
    moment: float, holds: bool
) -> None:
    assert Span(1.0, 10.0, 20.0).holds(moment) is holds
    life = Life(failing=[Span(1.0, 10.0, 20.0)], moment=lambda: moment)
    assert life.can_start is not holds


@pytest.mark.parametrize(
    ("begin", "end", "seconds"),
    [(0, 5, 0), (0, 15, 5), (12, 15, 3), (15, 99, 5), (25, 30, 0), (0, 99, 10)],
)
def test_what_two_times_have_in_common_is_never_less_than_nothing(
    begin: float, end: float, seconds: float
) -> None:
    assert Span(1.0, 10.0, 20.0).overlap(begin, end) == seconds


def test_the_last_line_counts_of_several_that_hold() -> None:
    now = [0.0]
    life = Life(
        memory=[Span(10.0), Span(20.0, 5.0, 10.0)],
        cpu=[Span(50.0, 5.0, 10.0)],
        leaks=[Span(2.0, 5.0, math.inf)],
        moment=lambda: now[0],
    )
    figures = []
    for now[0] in (0.0, 5.0, 10.0):
        figures.append((life.memory_of(100.0), life.cpu_now()))
    assert figures == [(10.0, 0.0), (20.0, 50.0), (20.0, 0.0)]
    assert (Life().memory_of(1.0), Life().cpu_now()) == (DEFAULT_MEMORY, 0.0)
