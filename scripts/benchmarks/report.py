# What the rows measured, as data, as a table, as JSON and as a section of the README. Nothing
# here measures.

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

COLUMNS = ("what", "ours", "bare", "circus", "supervisor", "ratio", "goal", "verdict")
README_COLUMNS = ("what", "ours", "circus", "ratio")
MARKERS = ("<!-- figures -->", "<!-- /figures -->")

_PAGE = """\
# Figures

`scripts/bench --readme` writes this page. All that stands in one row was measured side by side, in
turn; each figure is the median of n rounds, and less is better. `scripts/bench --only ROW` measures
some of it again.

- *ours*: circusplug.
- *bare*: pyzmq and nothing else.
- *circus*: Circus's own plugins; where memory or a start is measured, without what circusd itself
  takes.
- *supervisor*: Supervisor's event listeners, with its defaults: ten events wait for one that is
  busy. What supervisord itself takes is left out, too.

Events come from a process that stands in for circusd, so that all get the same; Supervisor's come
from supervisord.
"""

_SECTION = re.compile("(?s)" + "(.*?)".join(re.escape(marker) for marker in MARKERS))


@dataclass(frozen=True)
class Goal:
    """What a row has to reach.

    Attributes:
        value: What was measured, or worked out from it.
        limit: What it may be at most, or has to be at least.
        unit: What stands behind the figure: ``x bare``, ``x less than Circus``, ``lost``.
        at_least: Which of the two the limit is.
        noise: By which part of the limit equals may miss it: two that take the same are
            measured now a little above, now a little below each other.
    """

    value: float
    limit: float
    unit: str
    at_least: bool = False
    noise: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether it is reached."""
        if self.at_least:
            return self.value >= self.limit * (1 - self.noise)
        return self.value <= self.limit * (1 + self.noise)

    def __str__(self) -> str:
        noise = f" (±{self.noise:.0%})" if self.noise else ""
        limit = f"{self.limit:,}" if self.limit >= 1000 else f"{self.limit:g}"
        return f"{'≥' if self.at_least else '≤'} {limit} {self.unit}{noise}"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: What was measured, and in which unit.
        ours, bare, circus: The medians; None for what does not exist or was not measured.
        goals: What has to be reached; without any the row only reports.
        rounds: How many measurements each median stands on.
        unit: Of the figures.
        more: Further figures, for the JSON.
        supervisor: The median of Supervisor's event listeners.
        headline: Whether the README shows it.
    """

    what: str
    ours: float | None
    bare: float | None = None
    circus: float | None = None
    goals: tuple[Goal, ...] = ()
    rounds: int = 1
    unit: str = ""
    more: dict[str, Any] = field(default_factory=dict)
    supervisor: float | None = None
    headline: bool = False

    @classmethod
    def of(
        cls,
        what: str,
        values: Mapping[str, Sequence[float]],
        *goals: Goal,
        unit: str = "",
        headline: bool = False,
        **more: Any,
    ) -> Row:
        """A row from what was measured in each round, by contender."""
        middle = {kind: median(each) for kind, each in values.items()}
        return cls(
            what,
            middle["ours"],
            middle.get("bare"),
            middle.get("circus"),
            goals,
            len(values["ours"]),
            unit,
            {"spread": {kind: spread(each) for kind, each in values.items()}, **more},
            middle.get("supervisor"),
            headline,
        )

    @property
    def holds(self) -> bool:
        """Whether every goal is reached."""
        return all(goal.holds for goal in self.goals)

    @property
    def verdict(self) -> str:
        """``holds``, ``MISSED``, or ``reported`` for a row without goals."""
        return ("holds" if self.holds else "MISSED") if self.goals else "reported"

    def cells(self) -> tuple[str, ...]:
        """The row's texts, one for each of `COLUMNS`."""
        return (
            f"{self.what} (n={self.rounds})",
            *(
                figure(value, self.unit)
                for value in (self.ours, self.bare, self.circus, self.supervisor)
            ),
            ", ".join(f"{number(goal.value)} {goal.unit}" for goal in self.goals),
            ", ".join(map(str, self.goals)),
            self.verdict,
        )


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median of some measurements and how far they lie apart, for the JSON."""
    return {"median": median(values), "least": min(values), "most": max(values)}


def times(these: Sequence[float], those: Sequence[float]) -> float:
    """How many times as much these are: the median of the rounds' ratios.

    Steadier than the ratio of the medians, as what disturbs a round disturbs both.
    """
    return median(one / other for one, other in zip(these, those, strict=True))


def number(value: float) -> str:
    """A figure with three digits that count."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{2 if abs(value) < 10 else 1}f}"


def figure(value: float | None, unit: str) -> str:
    """A figure with its unit, a dash for none."""
    return "-" if value is None else f"{number(value)} {unit}".strip()


def table(rows: Iterable[Row], columns: Sequence[str] = COLUMNS) -> str:
    """The rows as a Markdown table that is as good to read on a screen."""
    chosen = [COLUMNS.index(column) for column in columns]
    lines = [tuple(columns), *(tuple(row.cells()[i] for i in chosen) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| "
        + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )


def all_hold(rows: Iterable[Row]) -> bool:
    """Whether every row reaches its goals."""
    return all(row.holds for row in rows)


def as_json(rows: Iterable[Row], about: dict[str, Any]) -> str:
    """The rows, with all that is known of each, and what they were measured on."""
    entries = [
        {
            "what": row.what,
            "unit": row.unit,
            "ours": row.ours,
            "bare": row.bare,
            "circus": row.circus,
            "supervisor": row.supervisor,
            "goals": [
                {"value": goal.value, "goal": str(goal), "holds": goal.holds} for goal in row.goals
            ],
            "verdict": row.verdict,
            "rounds": row.rounds,
            **row.more,
        }
        for row in rows
    ]
    return json.dumps({**about, "rows": entries}, indent=2, ensure_ascii=False) + "\n"


def describe(about: dict[str, Any]) -> str:
    """One sentence on where, with what and when the rows were measured."""
    return (
        f"Measured by `scripts/bench` on {about['date']}: {about['machine']}; "
        + ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        + "."
    )


def put_into_readme(text: str, rows: Iterable[Row], about: dict[str, Any]) -> str:
    """Return a README's text with the figures between its markers replaced by the headlines.

    Raises:
        ValueError: It does not have the two markers, once each and in order.
    """
    if len(_SECTION.findall(text)) != 1 or any(text.count(marker) != 1 for marker in MARKERS):
        raise ValueError(f"the README needs {MARKERS[0]} and {MARKERS[1]}, once each, in order")
    shown = table([row for row in rows if row.headline], README_COLUMNS)
    section = "\n".join((MARKERS[0], shown, "", describe(about), MARKERS[1]))
    return _SECTION.sub(lambda _: section, text)


def as_page(rows: Iterable[Row], about: dict[str, Any]) -> str:
    """Return the page of documentation with all rows."""
    return f"{_PAGE}\n{table(rows)}\n\n{describe(about)}\n"
