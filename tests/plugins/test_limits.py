# What counts as too much, and for how long: no sockets, no clock.

from __future__ import annotations

from typing import Any

import pytest

from circusplug.options import Amount
from circusplug.plugins._limits import LimitOptions, Patience
from circusplug.plugins._processes import Usage, number, processes_of

WHO = ("web", 7)


def limits(**given: Any) -> LimitOptions:
    none: dict[str, Any] = dict.fromkeys(("max_cpu", "max_mem", "health_threshold"))
    given = {**none, **given}
    for name in ("max_mem", "min_mem", "min_cpu", "max_files", "max_threads", "max_age"):
        given.setdefault(name, None)
    return LimitOptions(max_count=3, over_for=None, **given)


def use(**figures: float) -> Usage:
    return Usage(7, **figures)


@pytest.mark.parametrize(
    ("given", "usage", "passed"),
    [
        ({"max_cpu": 90.0}, use(cpu=90.0), []),
        ({"max_cpu": 90.0}, use(cpu=90.1), ["over_cpu"]),
        ({"max_cpu": 90.0}, use(), []),  # not known
        ({"max_cpu": 0.0}, use(cpu=50.0), []),  # as in Circus: no limit
        ({"min_cpu": 5.0}, use(cpu=5.0), ["under_cpu"]),
        ({"min_cpu": 5.0}, use(cpu=5.1), []),
        ({"min_cpu": 5.0}, use(), []),
        ({"max_mem": Amount(percent=50.0)}, use(memory_percent=51.0, memory=1.0), ["over_memory"]),
        ({"max_mem": Amount(bytes=1000)}, use(memory_percent=99.0, memory=1000.0), []),
        ({"max_mem": Amount(bytes=1000)}, use(memory_percent=0.1, memory=1001.0), ["over_memory"]),
        ({"min_mem": Amount(bytes=1000)}, use(memory_percent=99.0, memory=999.0), ["under_memory"]),
        ({"min_mem": Amount(percent=1.0)}, use(memory_percent=1.0), []),
        ({"health_threshold": 75.0}, use(cpu=100.0, memory_percent=50.1), ["over_health"]),
        ({"health_threshold": 75.0}, use(cpu=100.0), []),
        ({"max_files": 10}, use(files=11), ["over_files"]),
        ({"max_threads": 10}, use(threads=10), []),
        ({"max_age": 60.0}, use(age=61.0), ["over_age"]),
    ],
)
def test_what_passes_a_limit(given: dict[str, Any], usage: Usage, passed: list[str]) -> None:
    assert [name for name, _ in limits(**given).passed(usage, usage)] == passed


def test_too_much_is_judged_by_the_most_and_too_little_by_the_least() -> None:
    options = limits(
        max_cpu=90.0,
        max_files=5,
        max_threads=5,
        max_age=60.0,
        health_threshold=75.0,
        max_mem=Amount(bytes=1000),
        min_cpu=5.0,
        min_mem=Amount(percent=2.0),
    )
    most = use(cpu=99.0, files=6, threads=6, age=61.0, memory=1001.0, memory_percent=60.0)
    least = use(cpu=1.0, files=1, threads=1, age=1.0, memory=1.0, memory_percent=1.0)
    assert {name for name, _ in options.passed(most, least)} == {
        *("over_cpu", "over_files", "over_threads", "over_age", "over_health", "over_memory"),
        *("under_cpu", "under_memory"),
    }
    assert list(options.passed(least, most)) == []


def test_the_text_says_what_and_how_much() -> None:
    options = limits(max_mem=Amount(bytes=2**20), max_cpu=90.0, max_files=5)
    usage = use(memory=1.5 * 2**20, cpu=99.5, files=6)
    assert [text for _, text in options.passed(usage, usage)] == [
        "CPU of 99.5 % is over 90 %",
        "number of open files of 6 is over 5",
        "memory of 1.5M is over 1M",
    ]


def test_it_takes_more_looks_in_a_row_than_may_be() -> None:
    patience = Patience(2, None)
    seen = [patience.look(WHO, {"over_cpu"}, 0.0) for _ in range(4)]
    assert seen == [set(), set(), {"over_cpu"}, set()]  # and the count begins anew


def test_one_good_look_forgets_the_bad_ones() -> None:
    patience = Patience(1, None)
    for passed in ({"over_cpu"}, set(), {"over_cpu"}, {"over_memory"}):
        assert patience.look(WHO, passed, 0.0) == set()
    assert patience.look(WHO, {"over_memory", "over_cpu"}, 0.0) == {"over_memory"}


def test_a_time_may_count_instead_of_looks() -> None:
    patience = Patience(0, 60.0)
    assert [patience.look(WHO, {"over_cpu"}, now) for now in (0.0, 59.0, 60.0)] == [
        set(),
        set(),
        {"over_cpu"},
    ]


def test_with_no_time_at_all_two_looks_are_needed() -> None:
    patience = Patience(0, 0.0)
    assert [patience.look(WHO, {"over_cpu"}, 5.0) for _ in range(2)] == [set(), {"over_cpu"}]


def test_who_is_gone_begins_anew() -> None:
    patience = Patience(1, None)
    patience.look(WHO, {"over_cpu"}, 0.0)
    patience.keep({("web", 8)})
    assert patience.look(WHO, {"over_cpu"}, 0.0) == set()


def test_several_are_added_up_as_far_as_they_are_known() -> None:
    more = use(cpu=2.0, memory=5.0, memory_percent=6.0, threads=7)
    total = use(cpu=1.0, memory_percent=1.0, threads=1, age=9.0).plus([more, use()])
    assert total == use(cpu=3.0, memory=5.0, memory_percent=7.0, threads=8, age=9.0)
    assert use(files=1).plus([use(files=2)]).files == 3


@pytest.mark.parametrize(
    ("told", "value"),
    [
        ("1.5M", 1.5 * 1024**2), ("512B", 512.0), ("2K", 2048.0), ("3G", 3 * 1024**3),
        ("1T", 1024**4), ("N/A", None), (True, None), (3, 3.0), ("", None),
    ],
)  # fmt: skip
def test_figures_of_circusd_are_read(told: object, value: float | None) -> None:
    assert number(told) == value


@pytest.mark.parametrize("info", [None, [], "x", {"7": None, "spawn_count": 3}, {"x": {}}])
def test_what_is_no_process_is_none(info: object) -> None:
    assert list(processes_of(info)) == []
