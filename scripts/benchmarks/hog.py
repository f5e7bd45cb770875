# What one plugin that computes does to the events of nine others: as a thread beside them, in
# a process of its own, and, to compare, if it does nothing.

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from .processes import end
from .report import Row, spread
from .scale import Scale, progress
from .standin import StandIn

SIBLINGS = 9
RATE = 100
CASES = {
    "beside an idle plugin": (False, False),
    "beside a computing plugin": (True, False),
    "beside a computing plugin that is isolated": (True, True),
}
ADVICE = (
    "A plugin that computes takes the interpreter from its siblings for up to 5 ms at a time "
    "(sys.getswitchinterval), and each of them has to wait for its turn: give it isolate = true."
)


def measure(scale: Scale) -> list[Row]:
    """Measure a row for each case."""
    ages: dict[str, list[list[float]]] = {case: [] for case in CASES}
    with StandIn(1) as stand_in:
        for number in range(scale.rounds):
            progress("a computing plugin", number + 1, scale.rounds)
            for case, (computes, isolated) in CASES.items():
                seconds = scale.hog_seconds
                ages[case].append(_round(stand_in, seconds, seconds * computes, isolated))
    rows = []
    for case, rounds in ages.items():
        figures = {
            name: [each[int(len(each) * part)] for each in rounds]
            for name, part in (("p50", 0.5), ("p99", 0.99))
        }
        slowest = spread([each[-1] for each in rounds])
        spreads = {name: spread(values) for name, values in figures.items()}
        rows += [
            Row(
                f"events of {SIBLINGS} plugins {case}, {name} delay",
                median(values),
                rounds=scale.rounds,
                unit="ms",
                more={**spreads, "slowest": slowest, "advice": ADVICE},
            )
            for name, values in figures.items()
        ]
    return rows


def _round(stand_in: StandIn, seconds: float, busy: float, isolated: bool) -> list[float]:
    """The ages of all siblings' events in milliseconds, sorted."""
    with tempfile.TemporaryDirectory() as name:
        ini, report = Path(name) / "circus.ini", Path(name) / "report"
        ini.write_text(_ini(stand_in, report, busy, isolated))
        script = "import sys; from circusplug._cli.main import main; sys.exit(main())"
        process = subprocess.Popen(
            [sys.executable, "-c", script, "run", "--log-level", "error", str(ini)]
        )
        try:
            stand_in.wait_subscribed(0, SIBLINGS + 1)
            time.sleep(0.2)
            stand_in.pace(0, int(seconds * RATE), RATE)
            time.sleep(0.2)
        finally:
            end(process)
        lines = report.read_text().splitlines()
    return sorted(age / 1e6 for line in lines for age in json.loads(line))


def _ini(stand_in: StandIn, report: Path, busy: float, isolated: bool) -> str:
    lines = [
        "[circus]",
        f"endpoint = {stand_in.endpoint}",
        f"pubsub_endpoint = {stand_in.pubsub[0]}",
        "[plugin:hog]",
        "use = benchmarks.hog_plugins.Hog",
        f"seconds = {busy}",
        f"isolate = {isolated}",
    ]
    for number in range(SIBLINGS):
        lines += [
            f"[plugin:sibling{number}]",
            "use = benchmarks.hog_plugins.Sibling",
            f"report = {report}",
        ]
    return "\n".join(lines) + "\n"
