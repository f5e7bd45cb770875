# What holds for the tests of the bundled plugins.

from __future__ import annotations

import logging
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
