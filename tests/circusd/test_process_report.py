# What the guard's report means to who waits for circusd: one end of a pipe stands for the guard.

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from patience import PATIENCE

from circusplug._circusd.process import CircusdProcess
from circusplug._errors import CircusdError


class Announcing(threading.Condition):
    """A condition that says when somebody begins to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = threading.Event()

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        self.waits.set()  # its lock is held: nothing changes before the wait
        return super().wait_for(predicate, timeout)


@pytest.mark.parametrize("said", [b"", b"exit 1\n", b"failed address in use\nexit 0\n"])
def test_who_waits_for_a_circusd_hears_at_once_that_it_has_ended(said: bytes) -> None:
    circusd = CircusdProcess("")
    circusd._changed = changed = Announcing()
    read, write = os.pipe()
    reader = threading.Thread(target=circusd._read_report, args=(read,))
    reader.start()
    outcome: Future[None] = Future()

    def wait() -> None:
        try:
            circusd.wait_ready(1000 * PATIENCE)
        except CircusdError as error:
            outcome.set_exception(error)

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    assert changed.waits.wait(PATIENCE)
    os.write(write, said)
    os.close(write)
    assert isinstance(outcome.exception(PATIENCE), CircusdError)
    for thread in (reader, waiter):
        thread.join(PATIENCE)
