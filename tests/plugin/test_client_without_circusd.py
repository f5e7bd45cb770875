# Calls of a client while circusd is down.

from __future__ import annotations

import asyncio
import contextlib

import pytest
import zmq
from client_bench import Asking, Bench, Way, until_unreachable
from patience import PATIENCE

from circusplug import CallTimeout
from circusplug.testing import FakeCircusd

pytestmark = pytest.mark.usefixtures("the_owner_may_be_late", "clock_as_before")


@pytest.mark.circusd_leaves
def test_a_command_for_a_circusd_that_is_down_is_never_sent(
    way: Way, bench: Bench, fake_circusd: FakeCircusd
) -> None:
    way("list")
    fake_circusd.stop()
    until_unreachable(lambda timeout: way("quit", timeout))
    with pytest.raises(CallTimeout, match=r"cannot be reached|not sent"):
        way("quit", -1.0)  # which is not without end
    fake_circusd.start()
    assert way("numwatchers")["numwatchers"] == 0
    assert [command.command for command in fake_circusd.commands] == ["list", "numwatchers"]


@pytest.mark.circusd_leaves
def test_a_call_made_while_circusd_is_down_is_answered_when_it_comes_back_in_time(
    way: Way, bench: Bench, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.stop()
    until_unreachable(lambda timeout: way("list", timeout))
    asking = Asking(lambda: way("list"))
    fake_circusd.start()
    assert asking.result()["watchers"] == []
    assert len(fake_circusd.commands) == 1


@pytest.mark.circusd_leaves
def test_an_awaited_call_that_waits_for_circusd_does_not_hold_up_the_loop(
    bench: Bench, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.stop()
    until_unreachable(lambda timeout: bench.call("list", timeout))
    future = asyncio.run_coroutine_threadsafe(
        bench.client.call_async("list", {}, PATIENCE), bench.loop
    )
    assert bench.on_owner(lambda: "at once") == "at once"
    assert not future.done()
    fake_circusd.start()
    assert future.result(PATIENCE)["watchers"] == []


@pytest.mark.circusd_leaves
def test_a_call_that_gave_up_waiting_for_circusd_is_cancelled_for_good(
    bench: Bench, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.stop()
    until_unreachable(lambda timeout: bench.call("list", timeout))

    async def give_up() -> None:
        task = asyncio.ensure_future(bench.client.call_async("quit", {}, PATIENCE))
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    bench.run(give_up())
    fake_circusd.start()
    bench.call("list")
    assert [command.command for command in fake_circusd.commands] == ["list"]


@pytest.mark.circusd_leaves
def test_a_command_whose_deadline_passed_while_the_owner_was_busy_is_not_sent_when_it_goes_on(
    bench: Bench, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.stop()
    until_unreachable(lambda timeout: bench.call("list", timeout))

    async def be_busy() -> None:
        asking = asyncio.ensure_future(bench.client.call_async("quit", {}, PATIENCE))
        await asyncio.sleep(0)
        channel = bench.client._calls.channel
        assert channel is not None
        (call,) = bench.client._calls._unsent.values()
        fake_circusd.start()
        assert channel.socket.poll(int(PATIENCE * 1000), zmq.POLLOUT)
        call.deadline = 0.0  # has passed meanwhile, and the timer's turn comes after the socket's
        with pytest.raises(CallTimeout, match="circusd cannot be reached"):
            await asking

    bench.run(be_busy())
    bench.call("list")
    assert [command.command for command in fake_circusd.commands] == ["list"]
