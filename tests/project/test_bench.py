"""The benchmark's table, verdicts and README section. Nothing is measured here."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))
try:
    from benchmarks import report
    from benchmarks.report import Goal, Row
finally:
    sys.path.remove(str(SCRIPTS))

ABOUT = {"date": "2026-01-31", "machine": "2 x Fast, 8 GB", "versions": {"Python": "3.12.1"}}
FAST = Row("fast", 1.0, 0.8, 20.0, (Goal(1.25, 1.5, "x bare"),), 5, "µs")
SLOW = Row("slow", 2.0, 0.8, 20.0, (Goal(2.5, 1.5, "x bare"), Goal(10, 5, "x less", True)), 5, "µs")
TOLD = Row("told", 1234.5, unit="MB", supervisor=2345.6)
SHOWN = replace(FAST, headline=True)


@pytest.mark.parametrize(
    ("value", "at_least", "holds"),
    [(1.4, False, True), (1.5, False, True), (1.6, False, False), (1.4, True, False)],
)
def test_a_goal_holds_up_to_its_limit_and_with_it(
    value: float, at_least: bool, holds: bool
) -> None:
    assert Goal(value, 1.5, "x bare", at_least).holds is holds


def test_a_goal_may_be_missed_by_the_noise_it_allows_and_says_so() -> None:
    assert Goal(1.02, 1, "x Circus", noise=0.03).holds
    assert not Goal(1.04, 1, "x Circus", noise=0.03).holds
    assert str(Goal(1.02, 1, "x Circus", noise=0.03)) == "≤ 1 x Circus (±3%)"


def test_a_goal_says_on_which_side_of_the_limit_it_wants_to_be() -> None:
    assert str(Goal(1, 1.5, "x bare")) == "≤ 1.5 x bare"
    assert str(Goal(1, 14, "x less than Circus", at_least=True)) == "≥ 14 x less than Circus"
    assert str(Goal(1, 20_000, "handled", at_least=True)) == "≥ 20,000 handled"


def test_a_row_holds_only_if_each_of_its_goals_does() -> None:
    assert (FAST.verdict, SLOW.verdict, TOLD.verdict) == ("holds", "MISSED", "reported")
    assert report.all_hold([FAST, TOLD])
    assert not report.all_hold([FAST, SLOW, TOLD])


def test_a_row_has_each_contender_s_median_and_how_far_its_rounds_lie_apart() -> None:
    row = Row.of("fast", {"ours": [3, 1, 2], "supervisor": [9, 7, 8], "other": [5]}, unit="µs")
    assert (row.ours, row.bare, row.circus, row.supervisor, row.rounds) == (2, None, None, 8, 3)
    assert row.more["spread"]["other"] == {"median": 5, "least": 5, "most": 5}


def test_the_table_has_a_line_for_each_row_and_all_are_equally_long() -> None:
    lines = report.table([FAST, SLOW, TOLD]).splitlines()
    assert len(lines) == 5
    assert len(set(map(len, lines))) == 1
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == list(report.COLUMNS)
    assert cells[2] == [
        "fast (n=5)",
        "1.00 µs",
        "0.80 µs",
        "20.0 µs",
        "-",
        "1.25 x bare",
        "≤ 1.5 x bare",
        "holds",
    ]
    assert cells[4] == [
        "told (n=1)",
        "1,234 MB",
        "-",
        "-",
        "2,346 MB",
        "",
        "",
        "reported",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.123, "0.12"), (9.99, "9.99"), (12.34, "12.3"), (1234.5, "1,234")],
)
def test_a_figure_has_three_digits_that_count(value: float, text: str) -> None:
    assert report.number(value) == text


def test_the_json_has_everything_that_is_known() -> None:
    row = Row("fast", 1.0, 0.8, 20.0, FAST.goals, 5, "µs", {"spread": report.spread([3, 1, 2])})
    told = json.loads(report.as_json([row], ABOUT))
    assert told["machine"] == ABOUT["machine"]
    (entry,) = told["rows"]
    assert entry["goals"] == [{"value": 1.25, "goal": "≤ 1.5 x bare", "holds": True}]
    assert entry["spread"] == {"median": 2, "least": 1, "most": 3}
    assert (entry["ours"], entry["verdict"], entry["rounds"]) == (1.0, "holds", 5)


def test_the_readme_gets_the_headlines_between_its_markers_and_nothing_else_changes() -> None:
    before = "# Title\n\n<!-- figures -->\nstale\n<!-- /figures -->\n\nThe end \\1.\n"
    after = report.put_into_readme(before, [SHOWN, TOLD], ABOUT)
    assert after.startswith("# Title\n\n<!-- figures -->\n| what")
    assert after.endswith(".\n<!-- /figures -->\n\nThe end \\1.\n")
    assert "stale" not in after
    for fact in ("| fast (n=5) |", "2026-01-31", "2 x Fast, 8 GB", "Python 3.12.1"):
        assert fact in after
    assert "told" not in after
    assert report.put_into_readme(after, [SHOWN, TOLD], ABOUT) == after


def test_the_page_has_every_row_and_where_it_was_measured() -> None:
    page = report.as_page([SHOWN, TOLD], ABOUT)
    assert report.table([SHOWN, TOLD]) in page
    assert page.startswith("# Figures\n")
    assert page.endswith(f"\n\n{report.describe(ABOUT)}\n")


@pytest.mark.parametrize(
    "text",
    [
        "no markers",
        "<!-- figures --> only one",
        "<!-- /figures --> the wrong way round <!-- figures -->",
        "<!-- figures --><!-- /figures --> twice <!-- figures --><!-- /figures -->",
    ],
)
def test_a_readme_without_its_markers_is_left_alone(text: str) -> None:
    with pytest.raises(ValueError, match="once each"):
        report.put_into_readme(text, [FAST], ABOUT)


def test_the_projects_readme_shows_six_figures_that_the_page_has_too() -> None:
    text = (SCRIPTS.parent / "README.md").read_text()
    assert "scripts/bench" in report.put_into_readme(text, [SHOWN], ABOUT)
    section = text.partition(report.MARKERS[0])[2].partition(report.MARKERS[1])[0]
    page = (SCRIPTS.parent / "circusplug" / "docs" / "figures.md").read_text()
    shown = [line.split("|")[1].strip() for line in section.splitlines() if "(n=" in line]
    assert len(shown) == 6
    assert [what for what in shown if f"| {what} " not in page] == []
