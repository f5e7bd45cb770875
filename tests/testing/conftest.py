# What the tests of the test kit share: a FakeCircusd with a watcher and a client of it, and where a
# recording is written.

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from wire import Wire

from circusplug.testing import FakeCircusd


@pytest.fixture
def fake() -> Iterator[FakeCircusd]:
    with FakeCircusd({"My App.v1": {"numprocesses": 2}}) as fake:
        yield fake


@pytest.fixture
def wire(fake: FakeCircusd) -> Iterator[Wire]:
    with Wire(fake) as wire:
        fake.wait_subscribed()
        yield wire


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "traffic.jsonl"
