# What holds for the tests of the bundled plugins.

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest
from bundled import Journal


@pytest.fixture
def journal() -> Iterator[Journal]:
    logger, journal = logging.getLogger("circusplug"), Journal()
    before = logger.level
    logger.addHandler(journal)
    logger.setLevel(logging.DEBUG)
    yield journal
    logger.removeHandler(journal)
    logger.setLevel(before)


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setattr("socket.gethostname", lambda: "box")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
