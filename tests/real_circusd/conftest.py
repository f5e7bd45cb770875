# Where a circusd of a test's is, and what tells that the processes of its watchers are gone.

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from circusd_real import free_endpoints
from command import Fifo


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    with Fifo(tmp_path / "fifo") as fifo:
        yield fifo


@pytest.fixture
def ends() -> dict[str, Any]:
    """Where circusd shall be; nobody is asked to discover it."""
    endpoint, pubsub_endpoint = free_endpoints(2)
    return {"endpoint": endpoint, "pubsub_endpoint": pubsub_endpoint, "check_delay": 0.2}
