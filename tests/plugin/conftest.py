# What tests of one plugin share: its fixtures.

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import zmq
from client_bench import AdvancedLoop, Bench, Router, Way
from noting_plugins import Seen
from patience import PATIENCE
from receiver_rig import Rig

from circusplug._loop.plugin_loop import PluginLoop
from circusplug._plugin.event_connection import Connection
from circusplug.testing import FakeCircusd


@pytest.fixture
def the_owner_may_be_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the owner say itself that a deadline has passed, however late it gets to it."""
    monkeypatch.setattr("circusplug._plugin.calls_from_threads.SLACK", PATIENCE)


@pytest.fixture
def clock_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a parked client tell the time by the same clock, and put that back in the end."""
    monkeypatch.setattr(AdvancedLoop, "ahead", 0.0)
    monkeypatch.setattr("circusplug._plugin.client.PluginLoop", AdvancedLoop)


@pytest.fixture
def bench(fake_circusd: FakeCircusd) -> Iterator[Bench]:
    """A client that is connected, and whose calls the fake circusd has forgotten."""
    bench = Bench(fake_circusd.endpoint)
    bench.call("list")
    fake_circusd.clear()
    bench.counters.calls = 0
    yield bench
    bench.close()


@pytest.fixture(params=["other thread", "own thread", "awaited", "parked"])
def way(request: pytest.FixtureRequest, bench: Bench) -> Way:
    def call(
        command: str,
        timeout: float | None = PATIENCE,
        patience: float | None = None,
        **properties: Any,
    ) -> Any:
        if request.param == "own thread":
            return bench.on_owner(lambda: bench.call(command, timeout, patience, **properties))
        if request.param == "awaited":
            return bench.run(bench.client.call_async(command, properties, timeout, patience))
        return bench.call(command, timeout, patience, **properties)

    if request.param == "parked":
        bench.park()
    return call


@pytest.fixture
def router() -> Iterator[Router]:
    router = Router()
    yield router
    router.close()


@pytest.fixture
def routed(router: Router) -> Iterator[Bench]:
    """A client that is connected."""
    bench = Bench(router.endpoint)
    router.serve(lambda: bench.call("list"))
    yield bench
    bench.close()


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def connection() -> Iterator[Connection]:
    connection = Connection()
    yield connection
    connection.close()
    connection.close()


@pytest.fixture
def publisher(context: zmq.Context[Any]) -> Iterator[zmq.Socket[bytes]]:
    with context.socket(zmq.XPUB) as publisher:
        publisher.linger = 0
        publisher.setsockopt(zmq.XPUB_VERBOSE, 1)
        yield publisher


@pytest.fixture
def rig(loop: PluginLoop) -> Iterator[Rig]:
    with zmq.Context() as context:
        rig = Rig(context, loop)
        yield rig
        rig.close()
