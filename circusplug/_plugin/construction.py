# How a plugin under construction finds the worker that is meant for it: the host leaves it
# here, on the thread that constructs, and `CircusPlugin.__init__` takes it. That way a
# plugin's constructor keeps Circus's signature, and its loop exists right after `__init__`.
#
# Owner: each thread has a nursery of its own.

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator

from .worker import Worker


class _Nursery(threading.local):
    worker: Worker | None = None
    on_claim: Callable[[], object] | None = None


_nursery = _Nursery()


@contextlib.contextmanager
def worker_for_construction(worker: Worker, on_claim: Callable[[], object]) -> Iterator[None]:
    """Let the next plugin that is made on this thread have `worker`.

    The worker's loop becomes this thread's, so that a timer or future made in a constructor
    is the plugin's.

    Args:
        worker: For that plugin.
        on_claim: Called when its constructor, or that of its base class, takes it.
    """
    asyncio.set_event_loop(worker.loop)
    before = _nursery.worker, _nursery.on_claim
    _nursery.worker, _nursery.on_claim = worker, on_claim
    try:
        yield
    finally:
        _nursery.worker, _nursery.on_claim = before


def claim_worker() -> Worker | None:
    """Take the worker left for the plugin being made; None if there is none, or it is taken."""
    worker, _nursery.worker = _nursery.worker, None
    if worker is not None and _nursery.on_claim is not None:
        _nursery.on_claim()
    return worker
