# A parked client: the plugin's loop has stopped, and calls are served all the same.

from __future__ import annotations

import asyncio

import pytest
from client_bench import Asking, Bench, Router
from patience import PATIENCE, wait_while

from circusplug import CallTimeout, PluginStateError
from circusplug.testing import FakeCircusd

pytestmark = pytest.mark.usefixtures("the_owner_may_be_late", "clock_as_before")


def test_a_call_that_comes_in_the_moment_before_it_parks_is_carried_out(
    bench: Bench, fake_circusd: FakeCircusd
) -> None:
    asking: list[Asking] = []

    def ask_and_park() -> None:
        asking.append(Asking(lambda: bench.call("list")))
        wait_while(bench.client._handover._queue.empty)
        bench.loop.stop()

    bench.on_owner(ask_and_park)
    assert asking[0].result()["watchers"] == []


def test_a_reply_that_comes_while_it_is_parked_reaches_whoever_waits(
    router: Router, routed: Bench
) -> None:
    asking = Asking(lambda: routed.call("list"))
    awaiting = Asking(lambda: asyncio.run(routed.client.call_async("list", {}, PATIENCE)))
    requests = [router.take() for _ in range(2)]
    routed.park()
    for routing_id, request in requests:
        router.answer(routing_id, request, said="right")
    assert asking.result()["said"] == "right"
    assert awaiting.result()["said"] == "right"


def test_a_deadline_passes_while_it_is_parked_and_the_socket_is_a_fresh_one(
    router: Router, routed: Bench
) -> None:
    asking = Asking(lambda: routed.call("list", PATIENCE))
    first, _ = router.take()
    routed.park()
    routed.pass_by(PATIENCE)
    with pytest.raises(CallTimeout, match="no reply within"):
        asking.result()
    assert router.serve(lambda: routed.call("list")) != first
    assert routed.open_sockets() == 1


def test_a_parked_call_that_gets_no_reply_does_not_hold_up_the_others(
    bench: Bench, fake_circusd: FakeCircusd
) -> None:
    bench.park()
    fake_circusd.silence("stats")
    silent = Asking(lambda: bench.call("stats", PATIENCE))
    fake_circusd.wait_command("stats")
    assert bench.call("list")["watchers"] == []
    bench.client.cast("incr", {"name": "web"})
    fake_circusd.wait_command("incr", name="web")
    bench.client.end_parked()
    with pytest.raises(PluginStateError):
        silent.result()


def test_while_it_is_parked_nothing_of_the_plugins_loop_runs(
    bench: Bench, fake_circusd: FakeCircusd
) -> None:
    ran: list[str] = []
    bench.loop.post(bench.loop.call_later, 0, ran.append, "timer")
    bench.park()
    ran.clear()  # it may have run before
    bench.loop.add_callback(ran.append, "callback")
    bench.call("list")
    bench.client.cast("list", {})
    assert ran == []


def test_parked_calls_from_several_threads_are_all_served(
    bench: Bench, fake_circusd: FakeCircusd
) -> None:
    bench.park()
    asking = [Asking(lambda: bench.call("list")) for _ in range(10)]
    assert [each.result()["watchers"] for each in asking] == [[]] * 10
