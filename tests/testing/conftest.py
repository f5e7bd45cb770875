# What the tests of FakeCircusd share: one with a watcher, and a client of it.

from __future__ import annotations

from collections.abc import Iterator

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
