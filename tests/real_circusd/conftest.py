# What the tests under a real circusd share.

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import circus_like_plugins
import pytest
from record import Record


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    with Record(tmp_path / "record") as record:
        yield record


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The sample plugins on our base, also for the processes that are started."""
    places = [os.getcwd(), str(Path(circus_like_plugins.__file__).parent), str(tmp_path)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
    return circus_like_plugins.write_on_our_base(tmp_path)
