# The benchmark's command line: which rows, how thoroughly, and where the results go.

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import zmq

import circusplug

from .report import all_hold, as_json, as_page, describe, put_into_readme, table
from .rows import (
    burst,
    calls,
    control,
    events,
    fleets,
    latency,
    many,
    neighbours,
    scrape,
    supervisor,
    thousand,
)
from .scale import FULL, QUICK, progress

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGE = ROOT / "circusplug" / "docs" / "figures.md"

ROWS = {
    "events": events.measure,
    "latency": latency.measure,
    "calls": calls.measure,
    "fleets": fleets.measure,
    "thousand": thousand.measure,
    "many": many.measure,
    "neighbours": neighbours.measure,
    "burst": burst.measure,
    "control": control.measure,
    "scrape": scrape.measure,
    "supervisor": supervisor.measure,
}


def main() -> int:
    """Measure, print the table, and return 0 if every goal is reached."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure circusplug against Circus, Supervisor and bare pyzmq, side by side.",
        epilog="Exit status: 0 if every row holds, 1 if not. It wants a machine that is idle.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="less of everything, in a minute and a half"
    )
    parser.add_argument(
        "--only", action="append", choices=list(ROWS), metavar="ROW", help=", ".join(ROWS)
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures to a file")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the ratios")
    parser.add_argument(
        "--readme",
        action="store_true",
        help="write README.md's figures, and all to circusplug/docs",
    )
    given = parser.parse_args()
    if given.readme and (given.quick or given.only):
        parser.error("--readme wants all rows, in full")
    began = time.monotonic()
    rows = []
    for name in given.only or ROWS:
        rows += ROWS[name](QUICK if given.quick else FULL)
    progress("")
    about = surroundings()
    print(table(rows))
    print(f"\n{describe(about)} Medians of n rounds, all contenders in turn; lower is better.")
    if given.quick:
        print("With --quick: fewer and shorter rounds, so a single verdict may be chance.")
    print(f"It took {time.monotonic() - began:.0f} s.")
    if given.json:
        Path(given.json).write_text(as_json(rows, {**about, "quick": given.quick}))
    if given.plot:
        from .chart import draw

        draw(rows, describe(about), given.plot)
    if given.readme:
        README.write_text(put_into_readme(README.read_text(), rows, about))
        PAGE.write_text(as_page(rows, about))
    return 0 if all_hold(rows) else 1


def surroundings() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "machine": f"{len(os.sched_getaffinity(0))} x {_processor()}, {_memory()}, "
        f"{platform.system()} {platform.release().split('-')[0]}",
        "versions": {
            "circusplug": circusplug.__version__,
            "Circus": importlib.metadata.version("circus"),
            "Supervisor": importlib.metadata.version("supervisor"),
            "Python": platform.python_version(),
            "pyzmq": zmq.__version__,
            "libzmq": zmq.zmq_version(),
        },
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory() -> str:
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{size / 2**30:.0f} GB"


if __name__ == "__main__":
    sys.exit(main())
