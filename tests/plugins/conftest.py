# What holds for the tests of the bundled plugins.

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bundled import Journal
from fixture_types import Run
from inbox import Inbox

from circusplug.plugins import Alert
from circusplug.testing import RunningPlugin


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
def alert(run_plugin: Run) -> Run:
    """Runs an Alert that tells at once, and tells nothing of what is well."""

    def run(**options: Any) -> RunningPlugin:
        return run_plugin(Alert, **{"batch": 0, "well_again": 0, **options})

    return run


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path / "inbox")


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setattr("socket.gethostname", lambda: "box")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
