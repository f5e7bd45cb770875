# Programs that are no Python packages: installed, or as scripts/test has fetched them.

from __future__ import annotations

import os
import shutil
from pathlib import Path

_FETCHED = Path(__file__).resolve().parents[2] / ".venv" / "debian"


def find(program: str) -> str | None:
    """Where a program is, if it is here."""
    return shutil.which(program) or shutil.which(program, path=_FETCHED / program / "bin")


def environment(program: str) -> dict[str, str]:
    """The environment for a program, with its own libraries if it was fetched."""
    libraries = [str(path) for path in (_FETCHED / program / "lib").glob("*-linux-gnu")]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)} if libraries else {**os.environ}
