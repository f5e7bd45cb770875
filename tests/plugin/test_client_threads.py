# A client's calls from several threads, from other loops, and awaited side by side.

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from client_bench import SOON, Asking, Bench, Router
from patience import PATIENCE

from circusplug import CallTimeout
from circusplug.testing import FakeCircusd

pytestmark = pytest.mark.usefixtures("the_owner_may_be_late", "clock_as_before")


def test_many_threads_call_at_once_and_each_gets_its_own_reply(
    bench: Bench, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.reply("echo", lambda properties: {"said": properties["number"]})

    def ask(number: int) -> list[int]:
        return [bench.call("echo", number=turn)["said"] for turn in range(number, number + 50)]

    asking = [Asking(lambda number=number: ask(number)) for number in range(0, 800, 100)]
    for number, each in zip(range(0, 800, 100), asking, strict=True):
        assert each.result() == list(range(number, number + 50))
    assert bench.sent == 400


def test_a_call_that_the_owner_is_too_busy_for_is_never_sent(
    bench: Bench, fake_circusd: FakeCircusd
) -> None:
    begun, release = threading.Event(), threading.Event()
    busy = Asking(lambda: bench.on_owner(lambda: (begun.set(), release.wait(PATIENCE))))
    assert begun.wait(PATIENCE)
    with pytest.raises(CallTimeout, match="thread is busy, command not sent"):
        bench.call("quit", SOON)
    release.set()
    busy.result()
    assert bench.call("list")["watchers"] == []
    assert [command.command for command in fake_circusd.commands] == ["list"]
    assert bench.sent == 1


def test_a_blocking_call_on_the_owners_thread_passes_on_the_replies_of_others(
    router: Router, routed: Bench
) -> None:
    first = Asking(lambda: routed.call("first"))
    routing_id, request = router.take()
    own = Asking(lambda: routed.on_owner(lambda: routed.call("second")))
    _, other = router.take()
    router.answer(routing_id, request, said=1)
    assert first.result()["said"] == 1  # while the own thread still waits
    router.answer(routing_id, other, said=2)
    assert own.result()["said"] == 2


def test_a_call_works_from_another_loop(bench: Bench, fake_circusd: FakeCircusd) -> None:
    async def ask() -> list[Any]:
        calls = [bench.client.call_async("list", {}, PATIENCE) for _ in range(5)]
        return await asyncio.gather(*calls)

    assert [reply["watchers"] for reply in asyncio.run(ask())] == [[]] * 5


def test_deadlines_hold_for_a_call_from_another_loop(
    bench: Bench, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.silence()
    with pytest.raises(CallTimeout, match="no reply within"):
        asyncio.run(bench.client.call_async("list", {}, SOON))


def test_a_call_from_another_loop_that_the_owner_is_too_busy_for_is_never_sent(
    bench: Bench, fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug._plugin.calls_from_threads.SLACK", 0.01)
    begun, release = threading.Event(), threading.Event()
    busy = Asking(lambda: bench.on_owner(lambda: (begun.set(), release.wait(PATIENCE))))
    assert begun.wait(PATIENCE)
    with pytest.raises(CallTimeout, match="busy"):
        asyncio.run(bench.client.call_async("quit", {}, SOON))
    release.set()
    busy.result()
    bench.call("list")
    assert [command.command for command in fake_circusd.commands] == ["list"]


def test_awaited_calls_run_side_by_side_and_are_answered_in_any_order(
    router: Router, routed: Bench
) -> None:
    async def ask() -> list[Any]:
        calls = [routed.client.call_async(f"command{n}", {}, PATIENCE) for n in range(5)]
        return await asyncio.gather(*calls)

    asking = asyncio.run_coroutine_threadsafe(ask(), routed.loop)
    requests = [router.take() for _ in range(5)]
    for routing_id, request in reversed(requests):
        router.answer(routing_id, request, said=request["command"])
    assert [reply["said"] for reply in asking.result(PATIENCE)] == [f"command{n}" for n in range(5)]
    assert len({routing_id for routing_id, _ in requests}) == 1


def test_a_cancelled_call_leaves_nothing_behind_and_its_reply_is_dropped(
    router: Router, routed: Bench
) -> None:
    async def give_up() -> None:
        task = asyncio.ensure_future(routed.client.call_async("stats", {}, PATIENCE))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    routed.run(give_up())
    routing_id, request = router.take()
    router.answer(routing_id, request)
    asking = Asking(lambda: routed.call("list"))
    same, request = router.take()
    assert same == routing_id
    router.answer(same, request, said="right")
    assert asking.result()["said"] == "right"
    assert not routed.client._calls._all
