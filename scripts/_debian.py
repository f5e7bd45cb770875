# Programs that tests talk to and that are no Python packages: taken out of Debian's packages into
# .venv/debian, without installing anything. Where that cannot be done, the tests that need them are
# left out, and say so.

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from glob import glob
from pathlib import Path

import _env

PLACE = _env.ROOT / ".venv" / "debian"

#: The packages that a program takes, and what of them.
PROGRAMS = {
    "promtool": (["prometheus"], ["./usr/bin/promtool"]),
    "redis-server": (
        [
            *("redis-server", "redis-tools", "libatomic1", "libjemalloc2", "liblua5.1-0"),
            *("liblzf1", "lua-bitop", "lua-cjson"),
        ],
        ["./usr/bin", "./usr/lib"],
    ),
}


def fetch() -> None:
    """Fetch what is missing."""
    for program, (packages, parts) in PROGRAMS.items():
        place = PLACE / program
        if shutil.which(program) or place.exists():
            continue
        _env.say(f"fetching {program} from Debian's packages")
        PLACE.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryDirectory(dir=PLACE) as directory:
                _unpack(packages, parts, directory)
                Path(directory, "usr").rename(place)
        except (OSError, subprocess.SubprocessError):
            _env.say("that failed; the tests that need it are left out")


def _unpack(packages: Sequence[str], parts: Sequence[str], directory: str) -> None:
    subprocess.run(
        ["apt-get", "-qq", "download", *packages], cwd=directory, check=True, capture_output=True
    )
    for package in glob(f"{directory}/*.deb"):
        tar = subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", package], check=True, capture_output=True
        ).stdout
        # A package has not all of the parts, which tar takes for an error.
        subprocess.run(["tar", "-x", *parts], input=tar, cwd=directory, capture_output=True)
