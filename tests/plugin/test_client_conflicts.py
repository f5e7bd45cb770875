# A client's calls that meet conflicts, and are sent again.

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import Any

import pytest
from client_bench import CONFLICT, Asking, Bench, Router, Way, ask_in_vain, deadlines
from patience import PATIENCE

from circusplug import CallTimeout
from circusplug.testing import FakeCircusd

pytestmark = pytest.mark.usefixtures("the_owner_may_be_late", "clock_as_before")


def test_a_command_that_meets_conflicts_is_sent_again_until_it_is_carried_out(
    way: Way, bench: Bench, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.add_watcher("web")
    fake_circusd.reply("incr", CONFLICT, count=3)
    assert way("incr", name="web")["status"] == "ok"
    assert len(fake_circusd.commands) == 4
    assert (bench.counters.conflicts, bench.counters.calls) == (3, 4)
    assert way("numprocesses", name="web")["numprocesses"] == 2


def test_a_conflict_is_the_outcome_when_there_is_no_time_for_another_try(
    way: Way, bench: Bench, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.reply("incr", CONFLICT)
    for long in (PATIENCE, None):
        for short in deadlines():
            timeout, patience = (short, None) if long is None else (long, short)
            fake_circusd.clear()
            reply = {}
            with contextlib.suppress(CallTimeout):  # the last try was late; the machine is busy
                reply = way("incr", timeout, patience=patience)
            if reply and len(fake_circusd.commands) > 1:
                break
        assert (reply["status"], reply["reason"]) == ("error", CONFLICT["reason"])


def test_without_patience_a_conflict_is_the_outcome_at_once(
    way: Way, bench: Bench, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.reply("incr", CONFLICT)
    assert way("incr", patience=0)["errno"] == 5
    assert len(fake_circusd.commands) == 1
    assert bench.counters.conflicts == 1


def test_patience_may_be_longer_than_the_deadline_which_holds_for_each_try(
    way: Way, fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug._plugin.calls_from_threads.SLACK", 0.0)
    for timeout in deadlines():
        over = time.monotonic() + 2 * timeout

        def answer(_: Any, over: float = over) -> dict[str, Any]:
            return CONFLICT if time.monotonic() < over else {"watchers": []}

        fake_circusd.reply("list", answer)
        with contextlib.suppress(CallTimeout):  # one of the tries was late
            assert way("list", timeout, patience=PATIENCE)["watchers"] == []
            break
    fake_circusd.silence("list")
    error = ask_in_vain(lambda timeout: way("list", timeout, patience=PATIENCE))
    assert str(error) == f"list: no reply within {error.timeout:g} s"


@pytest.mark.parametrize(
    "error",
    [
        {"status": "error", "reason": "command 'incr': invalid literal", "errno": 5},
        {"status": "error", "reason": "program web not found", "errno": 3},
        {"status": "arbiter is fine", "reason": "arbiter is fine", "errno": 5},
    ],
    ids=lambda error: error["reason"],
)
def test_nothing_but_a_conflict_is_sent_again(
    error: dict[str, Any], way: Way, bench: Bench, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.reply("incr", error)
    assert way("incr")["reason"] == error["reason"]
    assert len(fake_circusd.commands) == 1
    assert bench.counters.conflicts == 0


def test_a_call_without_a_reply_is_not_sent_again_after_a_conflict(
    way: Way, bench: Bench, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.reply("incr", CONFLICT)
    for timeout in deadlines():
        fake_circusd.clear()
        fake_circusd.clear_faults()
        fake_circusd.silence("incr")
        fake_circusd.late("incr", 0, count=1)  # that one is not lost
        with contextlib.suppress(CallTimeout):
            way("incr", timeout)  # returns the conflict, if there was no time for another try
            continue
        # By its number: the one before may have been sent again in the last moment.
        number = bench.client._calls.last_id
        tries = sum(command.id == number for command in fake_circusd.commands)
        if tries > 1:  # the conflict has come in time
            break
    assert tries == 2


def test_an_owner_that_waits_to_try_again_passes_on_the_replies_of_others(
    router: Router, routed: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug._plugin.client.FIRST_DELAY", PATIENCE)
    other = Asking(lambda: routed.call("other"))
    routing_id, request = router.take()
    own = Asking(lambda: routed.on_owner(lambda: routed.call("incr", 3 * PATIENCE)))
    _, refused = router.take()
    router.answer(routing_id, refused, **CONFLICT)
    router.answer(routing_id, request, said="right")
    assert other.result()["said"] == "right"
    assert router.empty  # it waits still
    routed.pass_by(PATIENCE)
    router.send(routing_id, b"for nobody, but the owner looks at the clock")
    router.answer(*router.take(), said="done")
    assert own.result()["said"] == "done"


def test_a_conflict_from_before_the_parking_is_tried_again_after_it(
    bench: Bench, fake_circusd: FakeCircusd
) -> None:
    parked = threading.Event()
    fake_circusd.reply("incr", lambda _: {} if parked.is_set() else CONFLICT)
    asking = Asking(lambda: bench.call("incr"))
    fake_circusd.wait_command("incr", timeout=PATIENCE, count=2)
    bench.park()
    parked.set()
    assert asking.result()["status"] == "ok"


def test_a_call_that_is_cancelled_after_a_conflict_is_not_sent_again(
    router: Router, routed: Bench
) -> None:
    async def give_up() -> None:
        task = asyncio.ensure_future(routed.client.call_async("quit", {}, PATIENCE))
        await asyncio.sleep(0)
        routing_id, request = router.take()
        router.answer(routing_id, request, **CONFLICT)
        while not routed.counters.conflicts:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    routed.run(give_up())
    assert not routed.client._calls._all
