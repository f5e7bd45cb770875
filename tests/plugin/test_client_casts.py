# Casts: commands of a client that nobody waits for.

from __future__ import annotations

import logging
import queue
from collections.abc import Callable
from typing import Any

import pytest
from client_bench import CONFLICT, LOGGER, SOON, Bench, Router, client_here, until_unreachable
from patience import PATIENCE

from circusplug import CallTimeout
from circusplug._wire.commands import CALL_TIMEOUT
from circusplug.testing import FakeCircusd

pytestmark = pytest.mark.usefixtures("the_owner_may_be_late", "clock_as_before")


@pytest.mark.parametrize("where", ["other thread", "own thread", "parked"])
def test_a_cast_is_sent_with_an_id_and_no_reply_is_waited_for(
    where: str, bench: Bench, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.silence("incr")
    if where == "parked":
        bench.park()
    if where == "own thread":
        bench.on_owner(lambda: bench.client.cast("incr", {"name": "web"}))
    else:
        bench.client.cast("incr", {"name": "web"})
    command = fake_circusd.wait_command("incr", name="web")
    assert (command.cast, type(command.id)) == (True, int)
    assert bench.sent == 1


@pytest.mark.circusd_leaves
@pytest.mark.parametrize("where", ["other thread", "own thread", "parked"])
def test_a_cast_that_cannot_be_sent_fails_and_is_not_sent_later(
    where: str, bench: Bench, fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_circusd.stop()
    until_unreachable(lambda timeout: bench.call("list", timeout))
    if where == "parked":
        bench.park()

    def cast(timeout: float) -> None:
        monkeypatch.setattr("circusplug._plugin.calls.CALL_TIMEOUT", timeout)
        if where == "own thread":
            bench.on_owner(lambda: bench.client.cast("quit", {"waiting": True}))
        else:
            bench.client.cast("quit", {"waiting": True})

    until_unreachable(cast)
    fake_circusd.start()
    bench.call("numwatchers")
    assert [command.command for command in fake_circusd.commands] == ["numwatchers"]


Cast = Callable[..., None]


@pytest.fixture(params=["other thread", "own thread", "parked"])
def cast(request: pytest.FixtureRequest, bench: Bench) -> Cast:
    def cast(command: str, **properties: Any) -> None:
        if request.param == "own thread":
            bench.on_owner(lambda: bench.client.cast(command, properties))
        else:
            bench.client.cast(command, properties)

    if request.param == "parked":
        bench.park()
    return cast


def test_a_cast_that_meets_conflicts_is_sent_again_until_it_is_carried_out(
    cast: Cast, bench: Bench, fake_circusd: FakeCircusd, caplog: pytest.LogCaptureFixture
) -> None:
    fake_circusd.add_watcher("web")
    fake_circusd.reply("incr", CONFLICT, count=3)
    cast("incr", name="web")
    fake_circusd.wait_command("incr", cast=True, count=4, timeout=PATIENCE)
    assert bench.call("numprocesses", name="web")["numprocesses"] == 2
    assert (bench.counters.conflicts, bench.counters.casts_failed) == (3, 0)
    assert caplog.messages == []
    assert not bench.client._calls.casts


def test_a_cast_that_fails_is_logged_once_and_counted(
    cast: Cast, bench: Bench, fake_circusd: FakeCircusd, caplog: pytest.LogCaptureFixture
) -> None:
    cast("incr", name="absent")
    bench.call("list")  # whose reply comes after the cast's
    assert bench.counters.casts_failed == 1
    assert caplog.messages == ["cast failed: incr name='absent': program absent not found"]
    assert caplog.records[0].name == LOGGER.name
    assert caplog.records[0].levelno == logging.WARNING


def test_a_cast_whose_conflicts_do_not_end_fails_after_a_while(
    cast: Cast,
    bench: Bench,
    fake_circusd: FakeCircusd,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = failing_casts(bench, monkeypatch)

    def answer(_: Any) -> dict[str, Any]:
        bench.pass_by(0.4 * CALL_TIMEOUT)
        return CONFLICT

    fake_circusd.reply("incr", answer)
    cast("incr", name="web")
    assert failed.get(timeout=PATIENCE)
    assert caplog.messages == [f"cast failed: incr name='web': {CONFLICT['reason']}"]
    assert bench.counters.conflicts == len(fake_circusd.commands) > 2


def test_a_cast_without_a_reply_is_forgotten_and_told_of(
    cast: Cast,
    bench: Bench,
    fake_circusd: FakeCircusd,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = failing_casts(bench, monkeypatch)
    fake_circusd.silence("incr")
    cast("incr", name="web")
    fake_circusd.wait_command("incr", timeout=PATIENCE)
    bench.pass_by(CALL_TIMEOUT)
    assert failed.get(timeout=PATIENCE)
    assert caplog.messages == ["cast failed: incr name='web': no reply within 5 s"]
    assert bench.call("list")["watchers"] == []
    assert not bench.client._calls._all


def test_casts_that_a_hanging_circusd_never_answers_are_told_of_at_growing_distances(
    bench: Bench,
    fake_circusd: FakeCircusd,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = failing_casts(bench, monkeypatch)
    fake_circusd.silence("incr")

    def cast_often() -> None:
        for number in range(120):
            bench.client.cast("incr", {"name": "web", "nb": number})
        bench.client.cast("incr", {"name": "db"})

    bench.on_owner(cast_often)
    bench.pass_by(CALL_TIMEOUT)
    for _ in range(121):
        failed.get(timeout=PATIENCE)
    assert set(caplog.messages) == {
        "cast failed: incr name='db': no reply within 5 s",
        "cast failed: incr name='web' nb=0: no reply within 5 s",
        "cast failed: incr name='web' nb=9: no reply within 5 s (10 times so far)",
        "cast failed: incr name='web' nb=99: no reply within 5 s (100 times so far)",
    }
    assert len(caplog.messages) == 4
    assert bench.counters.casts_failed == 121


def failing_casts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> queue.SimpleQueue[tuple[Any, ...]]:
    """Where each cast that has failed shows up, after all that is done about it."""
    failed: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
    calls = bench.client._calls
    done = calls._cast_done

    def cast_done(*outcome: Any) -> None:
        done(*outcome)
        failed.put(outcome)

    monkeypatch.setattr(calls, "_cast_done", cast_done)
    return failed


def test_a_cast_that_waits_for_the_work_may_be_answered_late(
    cast: Cast, bench: Bench, fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug._plugin.calls.CALL_TIMEOUT", SOON)
    fake_circusd.hold("incr")
    cast("incr", name="absent", waiting=True)
    with pytest.raises(CallTimeout):
        bench.call("incr", 3 * SOON)
    assert bench.counters.casts_failed == 0
    assert len(bench.client._calls.casts) == 1


def test_casts_that_are_not_answered_are_bounded(
    cast: Cast, bench: Bench, fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("client", "open_calls"):
        monkeypatch.setattr(f"circusplug._plugin.{module}.MOST_CASTS", 3)
    hold = fake_circusd.hold("incr")
    for _ in range(3):
        cast("incr", name="web")
    monkeypatch.setattr("circusplug._plugin.calls.CALL_TIMEOUT", SOON)
    with pytest.raises(CallTimeout, match="not sent, no reply to 3 casts before it"):
        cast("incr", name="web")
    bench.call("list")
    assert [command.command for command in fake_circusd.commands] == ["incr"] * 3 + ["list"]
    hold.release()
    bench.call("list")
    monkeypatch.setattr("circusplug._plugin.calls.CALL_TIMEOUT", PATIENCE)
    cast("incr", name="web")


def test_a_handler_may_cast_more_than_may_be_open_at_once(
    bench: Bench, fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("client", "open_calls"):
        monkeypatch.setattr(f"circusplug._plugin.{module}.MOST_CASTS", 1_500)

    def cast_often() -> None:
        for _ in range(4_000):
            bench.client.cast("list", {})

    bench.on_owner(cast_often)
    bench.call("list")
    assert len(fake_circusd.commands) == 4_001
    assert bench.counters.casts_failed == 0
    assert not bench.client._calls.casts


def test_a_cast_that_waits_to_be_sent_again_when_the_client_closes_is_told_of(
    bench: Bench,
    fake_circusd: FakeCircusd,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("circusplug._plugin.calls.Call.delay", CALL_TIMEOUT - 1.0)
    fake_circusd.reply("incr", CONFLICT)
    bench.client.cast("incr", {"name": "web"})
    bench.call("list")  # whose reply comes after the conflict
    bench.close()
    assert caplog.messages == [f"cast failed: incr name='web': {CONFLICT['reason']}"]
    assert bench.counters.casts_failed == 1


def test_a_cast_that_has_failed_by_the_time_the_client_closes_is_told_of(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def cast_and_end() -> None:
        bench.client.cast("incr", {"name": "absent"})
        channel = bench.client._calls.channel
        assert channel is not None
        assert channel.socket.poll(int(PATIENCE * 1000))
        bench.client.end_parked()
        bench.loop.stop()

    bench.on_owner(cast_and_end)
    bench.close()
    assert caplog.messages == ["cast failed: incr name='absent': program absent not found"]


def test_casts_that_were_just_sent_when_the_client_closes_arrive_and_are_let_go(
    router: Router, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        with client_here(router.endpoint) as (client, counters, _):
            for number in range(200):
                client.cast("incr", {"number": number, "padding": "x" * 200})
        for number in range(200):
            assert router.take()[1]["properties"]["number"] == number
        assert counters.casts_failed == 0
    assert caplog.messages == []
