# Stopping a plugin in the middle of a flood, again and again: once handle_stop has begun,
# nothing of the plugin runs any more.

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from patience import PATIENCE

from circusplug import Arbiter, CircusPlugin
from circusplug.testing import FakeCircusd

#: How many times each of the two kinds of plugin below is stopped.
ROUNDS = 4


class Watched(CircusPlugin):
    """Notes what runs while, or after, its handle_stop does."""

    violations: list[str]  # shared by all instances, set by the test

    def handle_init(self) -> None:
        self.began = threading.Event()
        self.stopping = False
        self.received = self.stopped = 0
        self.tick()

    def handle_recv(self, data: tuple[bytes, bytes]) -> Any:
        self.look("handle_recv began")
        self.received += 1
        if self.received % 16 == 1:
            self.loop.call_soon(self.look, "a callback ran")
            self.began.set()
        os.sched_yield()
        self.look("handle_recv ended")

    def tick(self) -> None:
        self.look("a timer ran")
        self.loop.call_later(0.0005, self.tick)

    def look(self, what: str) -> None:
        if self.stopping:
            self.violations.append(f"{what} while handle_stop ran, or after it")

    def handle_stop(self) -> None:
        self.stopping = True
        self.stopped += 1
        for _ in range(50):
            os.sched_yield()


class WatchedAwaiting(Watched):
    async def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        self.look("handle_recv began")
        self.began.set()
        await asyncio.sleep(0)
        self.look("handle_recv went on")
        await asyncio.sleep(0)
        self.look("handle_recv ended")


@contextlib.contextmanager
def flood(circusd: FakeCircusd) -> Iterator[None]:
    """Publish without a pause during a ``with`` block, as long as there is a subscriber."""
    over = threading.Event()

    def publish() -> None:
        while not over.is_set():
            circusd.wait_subscribed(timeout=PATIENCE)
            circusd.publish_many(100, "web", "spawn")

    publisher = threading.Thread(target=publish, name="flood")
    publisher.start()
    try:
        yield
    finally:
        over.set()
        publisher.join(PATIENCE)


@pytest.mark.timeout(300)  # so many rounds take long on a busy machine
@pytest.mark.parametrize("use", [Watched, WatchedAwaiting])
def test_nothing_of_a_plugin_runs_during_or_after_its_handle_stop(
    use: type[Watched], fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    violations: list[str] = []
    monkeypatch.setattr(Watched, "violations", violations, raising=False)
    plugins = []
    with (
        Arbiter(
            plugins=[{"use": use, "name": "watched"}],
            endpoint=fake_circusd.endpoint,
            pubsub_endpoint=fake_circusd.pubsub_endpoint,
        ) as arbiter,
        flood(fake_circusd),
    ):
        for number in range(ROUNDS):
            # Who starts it does not wait for one that is slow to start.
            arbiter.wait(lambda plugins: plugins["watched"].state == "running", PATIENCE)
            plugin = arbiter.instance("watched")
            plugins.append(plugin)
            assert plugin.began.wait(PATIENCE)
            if number % 2:
                arbiter.stop_plugin("watched")
            else:
                plugin.stop()  # asks the host, and returns at once
                arbiter.wait(lambda plugins: plugins["watched"].state == "stopped", PATIENCE)
            assert not violations
            arbiter.start_plugin("watched")
        counters = arbiter.plugins["watched"].counters
    assert violations == []
    assert [plugin.stopped for plugin in plugins] == [1] * ROUNDS
    assert len(set(map(id, plugins))) == ROUNDS
    assert counters.errors == 0
    assert counters.received >= ROUNDS
