# `host.max_message`: what is larger is lost, counted and told, on a thread and in a process.

from __future__ import annotations

import logging

import pytest
from hosts import hosts
from patience import PATIENCE
from troublemakers import Frames, Talker

from circusplug import PluginStatus
from circusplug._plugin import event_connection as connection
from circusplug.testing import FakeCircusd

LIMIT = 10_000

kinds = pytest.mark.parametrize("isolate", [False, True], ids=["thread", "process"])


class Asker(Talker):
    """Sends what it is told to, and tells what comes of it."""

    def handle_recv(self, data: Frames) -> None:
        action = self.parse_event(data).action
        if action == "call":
            reply = self.call("list")
            self.say("reply", size=len(reply.get("filling", "")), reason=reply.get("reason"))
        elif action == "cast":
            self.cast("list")


@kinds
def test_an_event_that_is_too_large_is_counted_and_told_and_others_come_again(
    isolate: bool, fake_circusd: FakeCircusd, unhurried: None, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"use": Talker, "name": "one", "isolate": isolate, "host.max_message": str(LIMIT)}
    with hosts(fake_circusd, stop_timeout=PATIENCE) as start:
        arbiter = start(options, {"use": Talker, "name": "two"})
        fake_circusd.publish("web", "fits", filling="x" * (LIMIT - 200))
        arbiter.wait(lambda now: all(s.counters.handled == 1 for s in now.values()), PATIENCE)
        fake_circusd.publish("web", "large", filling="x" * LIMIT)

        def is_back(status: PluginStatus) -> bool:
            return status.connected and status.counters.too_large == 1

        arbiter.wait(lambda now: is_back(now["one"]) and now["one"].counters.reconnects, PATIENCE)
        fake_circusd.wait_subscribed(2, PATIENCE)
        fake_circusd.publish("web", "spawn")
        now = arbiter.wait(lambda now: now["one"].counters.handled == 2, PATIENCE)
        assert now["one"].counters.received == 2
        now = arbiter.wait(lambda now: now["two"].counters.handled == 3, PATIENCE)
        assert now["two"].counters.too_large == 0
    (told,) = (r.getMessage() for r in caplog.records if r.levelno == logging.ERROR)
    assert f"host.max_message ({LIMIT} bytes)" in told


def test_a_circusd_that_comes_and_goes_is_not_blamed_for_a_message(
    fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "GIVEN_UP_WAIT", 0.1)
    monkeypatch.setattr(connection, "RENEW_INTERVAL", 0.1)
    with hosts(fake_circusd) as start:
        arbiter = start({"use": Talker, "name": "one"})
        for times in range(1, 4):
            fake_circusd.restart()
            now = arbiter.wait(lambda now: now["one"].counters.reconnects >= times, PATIENCE)  # noqa: B023
        assert now["one"].counters.too_large == 0


@kinds
def test_a_reply_that_is_too_large_is_an_error_at_once(
    isolate: bool, fake_circusd: FakeCircusd, unhurried: None, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"use": Asker, "name": "one", "isolate": isolate, "host.max_message": str(LIMIT)}
    with hosts(fake_circusd, stop_timeout=PATIENCE) as start:
        arbiter = start(options)
        fake_circusd.reply("list", {"filling": "x" * (LIMIT - 200)})
        fake_circusd.publish("web", "call")
        fake_circusd.wait_command("say", timeout=PATIENCE, what="reply", size=LIMIT - 200)
        fake_circusd.reply("list", {"filling": "x" * LIMIT})
        fake_circusd.publish("web", "call")
        said = fake_circusd.wait_command("say", timeout=PATIENCE, what="reply", size=0)
        assert f"larger than host.max_message ({LIMIT} bytes)" in said.properties["reason"]
        fake_circusd.publish("web", "cast")
        now = arbiter.wait(lambda now: now["one"].counters.casts_failed == 1, PATIENCE)
        assert now["one"].counters.too_large == 2
    assert "cast failed: list: its reply of" in caplog.text
