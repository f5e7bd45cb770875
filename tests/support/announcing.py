# A condition for tests that act once somebody waits.

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Announcing(threading.Condition):
    """A condition that says when somebody begins to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = threading.Event()

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        self.waits.set()  # its lock is held: nothing changes before the wait
        return super().wait_for(predicate, timeout)
