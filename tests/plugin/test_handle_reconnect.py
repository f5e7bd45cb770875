# What a plugin is told when circusd comes back.

from __future__ import annotations

import threading
from typing import Any

import pytest
import zmq
from fixture_types import Run
from noting_plugins import Noting, Seen
from patience import PATIENCE

from circusplug.testing import FakeCircusd, RunningPlugin


@pytest.mark.circusd_leaves
@pytest.mark.parametrize("unseen", [False, True], ids=["seen", "unseen"])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_handle_reconnect_runs_before_the_events_that_follow_it(
    asynchronous: bool, unseen: bool, run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Reads(Noting):
        def handle_reconnect(self) -> Any:
            self.seen.note(self.call("list")["watchers"])

    class AwaitsAndReads(Noting):
        async def handle_reconnect(self) -> None:
            reply = await self.call_async("list")
            self.seen.note(reply["watchers"])

    running = run_plugin(AwaitsAndReads if asynchronous else Reads, seen=seen)
    fake_circusd.publish("web", "start")
    assert seen.take() == "start"
    if unseen:
        look_away_from_new_connections(running, fake_circusd)
    fake_circusd.restart()
    fake_circusd.wait_subscribed(timeout=PATIENCE)  # each attempt in vain doubles the next pause
    for action in ("spawn", "kill", "reap"):
        fake_circusd.publish("web", action)
    assert seen.take_all(4) == [[], "spawn", "kill", "reap"]
    assert running.counters.reconnects == 1
    running.wait_handled(4)


def look_away_from_new_connections(running: RunningPlugin, fake_circusd: FakeCircusd) -> None:
    """Let the loop see events alone: as when one comes in the middle of a poll."""
    fake_circusd.stop()
    running.wait(lambda status: not status.connected)
    loop = running.plugin.loop
    done = threading.Event()

    def look_away() -> None:
        connection = running.plugin._circusplug_worker._connection
        loop.watch_socket(connection._monitors[0], None)
        connection._loop = None
        done.set()

    loop.post(look_away)
    assert done.wait(PATIENCE)


@pytest.mark.circusd_leaves
def test_when_circusd_comes_back_calls_need_not_wait_for_the_old_connection(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reads(Noting):
        def handle_reconnect(self) -> None:
            self.seen.note(self.call("list", timeout=PATIENCE)["watchers"])

    def configure(dealer: Any, *args: Any) -> None:
        dealer.linger = 0
        dealer.setsockopt(zmq.RECONNECT_IVL, 3_600_000)

    monkeypatch.setattr("circusplug._wire.endpoints.configure_link", configure)
    run_plugin(Reads, seen=seen).plugin.call("list")
    fake_circusd.restart()
    assert seen.take() == []


@pytest.mark.circusd_leaves
def test_a_handle_reconnect_that_fails_is_contained(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Fails(Noting):
        def handle_reconnect(self) -> Any:
            raise ZeroDivisionError

    running = run_plugin(Fails, raise_errors=False, seen=seen)
    fake_circusd.restart()
    running.wait(lambda status: status.counters.errors == 1, PATIENCE)
    fake_circusd.wait_subscribed(timeout=PATIENCE)
    fake_circusd.publish("web", "spawn")
    assert seen.take() == "spawn"
