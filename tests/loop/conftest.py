# What tests of the loop share: a selector, and what it can wait for.

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from circusplug._loop.selector import PollerSelector


@pytest.fixture
def selector() -> Iterator[PollerSelector]:
    selector = PollerSelector()
    yield selector
    selector.close()


@pytest.fixture
def pair(context: zmq.Context[Any]) -> Iterator[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]]:
    """Two connected ZMQ sockets."""
    with context.socket(zmq.PAIR) as one, context.socket(zmq.PAIR) as other:
        one.linger = other.linger = 0
        one.bind("inproc://pair")
        other.connect("inproc://pair")
        yield one, other


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)
