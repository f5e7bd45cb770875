# How Alert tries a receiver again that fails, and what is left at a stop.

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from bundled import Journal, die, let_pass
from fixture_types import Run
from inbox import DIED, Inbox
from patience import PATIENCE

from circusplug.plugins._delivery import CommandDelivery, DeliveryError, Receiver
from circusplug.plugins._message import Message
from circusplug.plugins._outbox import LIMIT, Outbox
from circusplug.testing import FakeCircusd


@pytest.mark.circusd_leaves
class TestTryingAgain:
    def test_the_delays_grow_until_it_is_delivered(
        self, alert: Run, inbox: Inbox, journal: Journal
    ) -> None:
        inbox.refuses.touch()
        running = alert(command=inbox.command, retry_in=1000)
        die(running)
        passed = 0
        for delay in (1000, 2000, 3600):
            inbox.wait()
            journal.wait(f"alert not sent, next try in {delay} s: command")
            passed += delay
            let_pass(running, passed)
        inbox.refuses.unlink()
        inbox.wait()
        running.wait(lambda _: not running.plugin._outboxes[0].left, PATIENCE)

    def test_the_next_message_waits_for_the_one_before(
        self, alert: Run, inbox: Inbox, journal: Journal
    ) -> None:
        inbox.refuses.touch()
        running = alert(command=inbox.command, retry_in=1000)
        die(running, watcher="a")
        inbox.wait()
        journal.wait("next try in 1000 s")
        die(running, watcher="b")
        journal.wait(f"b: {DIED}")
        inbox.refuses.unlink()
        let_pass(running, 1000)
        watchers = [inbox.wait()[0]["alerts"][0]["watcher"] for _ in range(2)]
        assert watchers == ["a", "b"]

    def test_it_is_given_up_after_so_many_tries(
        self, alert: Run, journal: Journal, inbox: Inbox
    ) -> None:
        inbox.refuses.touch()
        running = alert(command=inbox.command, tries=2, retry_in=0.001)
        die(running)
        inbox.wait()
        inbox.wait()
        assert journal.wait("alert not sent: command").levelname == "ERROR"
        running.wait(lambda _: not running.plugin._outboxes[0].left, PATIENCE)

    def test_a_receiver_that_hangs_delays_no_event_and_its_queue_is_bounded(
        self, alert: Run, journal: Journal
    ) -> None:
        running = alert(command="sleep 1000", what="crash")
        for number in range(LIMIT + 1):
            die(running, watcher=f"web{number}")
            journal.wait(f"web{number}: {DIED}")
        text = journal.wait(f"is not sent: {LIMIT} messages wait").getMessage()
        assert "web1 crashed" in text
        assert "web2 crashed" in running.plugin._outboxes[0]._messages[1].subject
        assert running.counters.handled == LIMIT + 1
        running.stop()
        journal.wait(f"command 'sleep': messages not sent: {LIMIT}")

    def test_another_receiver_does_not_wait_for_it(
        self, alert: Run, inbox: Inbox, journal: Journal
    ) -> None:
        # The mail goes nowhere: nobody listens at port 1.
        options = {"mail_to": "a@b", "smtp_host": "127.0.0.1", "smtp_port": 1, "retry_in": 1000}
        running = alert(command=inbox.command, **options)
        for name in ("a", "b"):
            die(running, watcher=name)
            assert inbox.wait()[0]["alerts"][0]["watcher"] == name
        running.stop()
        journal.wait("mail server 127.0.0.1:1: messages not sent: 2")

    def test_what_is_in_hand_at_a_stop_is_logged_and_what_was_told_is_not(
        self, alert: Run, fake_circusd: FakeCircusd, journal: Journal
    ) -> None:
        running = alert(command="true")
        die(running, watcher="a")
        journal.wait(f"a: {DIED}")
        fake_circusd.clear()
        fake_circusd.silence("status")
        die(running, watcher="b")
        fake_circusd.wait_command("status", timeout=PATIENCE)
        running.stop()
        journal.wait(f"b: {DIED}")
        journal.wait("alerts not sent, as this plugin stops: 1")

    def test_what_has_not_been_told_at_a_stop_is_logged_and_counted(
        self, alert: Run, journal: Journal
    ) -> None:
        running = alert(command="true", batch=1000)
        die(running)
        running.wait_handled(1)
        running.stop()
        journal.wait(f"web: {DIED}")
        journal.wait("alerts not sent, as this plugin stops: 1")


@pytest.mark.parametrize(
    ("retry_in", "expected"), [(1000.0, [1000, 2000, 3600, 3600]), (7200.0, [7200] * 4)]
)
def test_the_delays_have_an_upper_bound_that_is_not_less_than_the_first(
    retry_in: float, expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    delays = []

    async def fail(*_: Any) -> None:
        raise DeliveryError("no")

    async def sleep(delay: float) -> None:
        delays.append(delay)

    monkeypatch.setattr("circusplug.plugins._outbox.deliver", fail)
    monkeypatch.setattr("circusplug.plugins._outbox.asyncio.sleep", sleep)
    options: Any = SimpleNamespace(retry_in=retry_in, tries=5, deadline=1.0)
    receiver = Receiver("x", lambda _: CommandDelivery(["true"], "", {}))
    outbox = Outbox(receiver, options, None, logging.getLogger("circusplug.test"))
    asyncio.run(outbox._send(Message("", "", [])))
    assert delays == expected
