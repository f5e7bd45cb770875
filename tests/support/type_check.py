# mypy on what a user has written. What it has learnt of the standard library and of circusplug is
# kept from run to run, as that takes most of its time.

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_CACHE = Path(__file__).parents[2] / ".mypy_cache" / "of_tests"


def check_types(directory: Path, *what: str) -> subprocess.CompletedProcess[str]:
    """Run ``mypy --strict`` on files or a directory; skip the test if there is no mypy."""
    pytest.importorskip("mypy", reason="mypy is not installed; scripts/check has it")
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(_CACHE), *what],
        cwd=directory,
        capture_output=True,
        text=True,
    )
