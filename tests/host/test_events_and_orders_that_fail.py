# What a plugin gets or asks for comes to nothing: that is told, and the next event comes.

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from members import Acts, Journal, MakeHost, Member, in_thread, member
from patience import PATIENCE
from supervision import order

from circusplug.testing import FakeCircusd


def test_an_order_of_a_plugin_that_fails_is_logged(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd, caplog: pytest.LogCaptureFixture
) -> None:
    def remove() -> None:
        arbiter.remove_plugin("nobody")

    with host(member("a", Acts, act=remove)) as arbiter:
        fake_circusd.wait_subscribed()
        fake_circusd.publish("web", "spawn")
        journal.wait("a", "spawn")
        in_thread(lambda: order(arbiter, lambda _: None))  # behind it in the mailbox
    assert "there is no plugin named 'nobody'; there are: a" in caplog.text


def test_a_handler_that_is_cancelled_by_its_own_doing_is_counted_and_the_next_event_comes(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd, caplog: pytest.LogCaptureFixture
) -> None:
    class Cancelled(Member):
        def handle_recv(self, data: tuple[bytes, bytes]) -> Any:
            self.note(self.parse_event(data).action)
            if self.config["asynchronous"]:
                return self.give_up()
            raise asyncio.CancelledError

        async def give_up(self) -> None:
            future = self.loop.create_future()
            future.cancel()
            await future

    plugins = [
        member("sync", Cancelled, asynchronous=False),
        member("async", Cancelled, asynchronous=True),
    ]
    with host(*plugins) as arbiter, caplog.at_level(logging.ERROR):
        fake_circusd.wait_subscribed(2)
        for _ in range(3):
            fake_circusd.publish("web", "spawn")
        arbiter.wait(lambda now: all(status.counters.errors == 3 for status in now.values()))
        for status in arbiter.plugins.values():
            assert (status.counters.received, status.counters.handled) == (3, 0)
            assert status.last_error == "handle_recv: CancelledError"


def test_an_event_larger_than_allowed_costs_the_connection_and_no_more(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug._plugin.event_connection.RENEW_INTERVAL", 0.05)
    with host({**member("one"), "host.max_message": "1K"}) as arbiter:
        fake_circusd.wait_subscribed()
        fake_circusd.publish("web", "spawn", text="x" * 2000)
        arbiter.wait(lambda now: now["one"].counters.reconnects == 1, PATIENCE)
        fake_circusd.wait_subscribed()
        fake_circusd.publish("web", "reap")
        journal.wait("one", "reap")
    assert "spawn" not in journal.of("one")
