# The sockets of a client: a fresh one after a timeout, and what happens without a descriptor for
# one.

from __future__ import annotations

import asyncio
import errno
import threading
from typing import Any

import pytest
from client_bench import SOON, Asking, Bench, Router, Way, ask_in_vain
from patience import PATIENCE

from circusplug import CallTimeout, PluginStateError
from circusplug._loop.plugin_loop import PluginLoop
from circusplug._plugin.client import Client
from circusplug.testing import FakeCircusd

pytestmark = pytest.mark.usefixtures("the_owner_may_be_late", "clock_as_before")


@pytest.mark.parametrize("where", ["other thread", "own thread", "awaited", "parked"])
def test_after_a_timeout_the_next_call_comes_from_a_fresh_socket(
    where: str, router: Router, routed: Bench
) -> None:
    def ask(timeout: float = PATIENCE) -> Any:
        if where == "own thread":
            return routed.on_owner(lambda: routed.call("list", timeout))
        if where == "awaited":
            return routed.run(routed.client.call_async("list", {}, timeout))
        return routed.call("list", timeout)

    if where == "parked":
        routed.park()
    first = router.serve(ask)
    ask_in_vain(ask)
    assert router.take()[0] == first
    assert router.serve(ask) != first
    assert routed.open_sockets() == 1


def test_a_retired_socket_serves_the_calls_that_are_open_on_it(
    router: Router, routed: Bench
) -> None:
    patient = asyncio.run_coroutine_threadsafe(
        routed.client.call_async("stats", {}, PATIENCE), routed.loop
    )
    first, request = router.take()
    hasty = Asking(lambda: routed.on_owner(lambda: routed.call("list", SOON)))
    assert router.take()[0] == first
    with pytest.raises(CallTimeout):
        hasty.result()
    assert routed.open_sockets() == 2
    asking = Asking(lambda: routed.call("numwatchers"))
    second, other = router.take()
    assert second != first
    router.answer(first, request, infos={"web": {}})
    assert patient.result(PATIENCE)["infos"] == {"web": {}}
    router.answer(second, other)
    asking.result()
    assert routed.open_sockets() == 1


def test_timeouts_in_a_row_leave_no_sockets_behind(bench: Bench, fake_circusd: FakeCircusd) -> None:
    fake_circusd.silence()

    async def ask_all() -> list[Any]:
        calls = [bench.client.call_async("list", {}, SOON) for _ in range(20)]
        return await asyncio.gather(*calls, return_exceptions=True)

    for _ in range(3):
        assert {type(outcome) for outcome in bench.run(ask_all())} == {CallTimeout}
        for _ in range(3):
            with pytest.raises(CallTimeout):
                bench.call("list", 0.002)
        # Only there: it tells of a timeout before it has put a fresh socket in the old one's place.
        assert bench.on_owner(bench.open_sockets) == 1


def test_a_timeout_is_told_and_the_old_socket_stays_if_no_new_one_can_be_made(
    way: Way, bench: Bench, fake_circusd: FakeCircusd
) -> None:
    bench.no_more_sockets = True
    hold = fake_circusd.hold("list")
    for _ in range(2):
        assert "no reply" in str(ask_in_vain(lambda timeout: way("list", timeout)))
    hold.release()
    assert way("numwatchers")["numwatchers"] == 0
    assert len(bench.sockets) == 1
    bench.no_more_sockets = False
    fake_circusd.silence("list")
    with pytest.raises(CallTimeout):
        way("list", SOON)
    assert way("numwatchers")["numwatchers"] == 0
    assert len(bench.sockets) == 2


def test_it_goes_on_if_no_new_socket_can_be_made_when_circusd_is_back(bench: Bench) -> None:
    bench.no_more_sockets = True
    bench.on_owner(bench.client.renew)
    assert bench.call("list")["watchers"] == []


def test_parked_without_a_descriptor_left_it_refuses_calls_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left() -> PluginLoop:
        raise OSError(errno.EMFILE, "Too many open files")

    refused = threading.Event()

    def refuse(why: str) -> None:
        Client.refuse(bench.client, why)
        refused.set()

    class Over(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.set()
            return super().wait(timeout)

    waits = threading.Event()
    monkeypatch.setattr(bench.client, "refuse", refuse)
    monkeypatch.setattr(bench.client, "_parked_over", Over())
    monkeypatch.setattr("circusplug._plugin.client.PluginLoop", none_left)
    bench.park()
    assert refused.wait(PATIENCE)
    assert waits.wait(PATIENCE)  # it keeps its sockets as long as handle_stop runs
    with pytest.raises(PluginStateError, match="no descriptor is left"):
        bench.call("list")
