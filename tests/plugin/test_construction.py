# How a plugin under construction finds the worker that is meant for it, and no other one does.

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from members import in_thread

from circusplug import CircusPlugin
from circusplug._plugin.construction import claim_worker, worker_for_construction
from circusplug._plugin.worker import Worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker("meant")
    yield worker
    worker.loop.close()
    asyncio.set_event_loop(None)


class Other(CircusPlugin):
    pass


def test_the_first_plugin_that_is_made_has_it_and_a_second_one_its_own(worker: Worker) -> None:
    claims: list[str] = []
    with worker_for_construction(worker, lambda: claims.append("claimed")):
        assert asyncio.get_event_loop_policy().get_event_loop() is worker.loop
        first, second = Other(name="plugin:given"), Other(name="own")
    assert claims == ["claimed"]
    assert first._circusplug_worker is worker
    assert second._circusplug_worker.name == "own"
    second.stop()


def test_one_that_nobody_has_taken_is_nobody_s_afterwards(worker: Worker) -> None:
    with worker_for_construction(worker, lambda: None):
        pass
    assert claim_worker() is None


def test_another_thread_does_not_find_it(worker: Worker) -> None:
    with worker_for_construction(worker, lambda: None):
        assert in_thread(claim_worker) is None
        assert claim_worker() is worker
