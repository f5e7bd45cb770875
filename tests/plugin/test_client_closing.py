# A client that is not open yet, whose loop is closed, or that closes.

from __future__ import annotations

import asyncio

import pytest
from client_bench import LOGGER, Asking, Bench, Router, client_here
from patience import PATIENCE

from circusplug import PluginStateError
from circusplug._loop.plugin_loop import PluginLoop
from circusplug._plugin.calls import Call
from circusplug._plugin.client import Client
from circusplug._plugin.status import Counters
from circusplug.testing import FakeCircusd

pytestmark = pytest.mark.usefixtures("the_owner_may_be_late", "clock_as_before")


def test_before_it_is_open_a_client_refuses_commands() -> None:
    loop = PluginLoop()
    client = Client(loop, lambda: pytest.fail("no socket is wanted"), Counters(), LOGGER)
    with pytest.raises(PluginStateError, match="cannot send 'list': the plugin is not connected"):
        client.call("list", {}, None)
    with pytest.raises(PluginStateError):
        client.cast("list", {})
    with pytest.raises(PluginStateError):
        loop.run_sync(lambda: client.call_async("list", {}, None))
    client.close()
    loop.close()


def test_with_its_loop_closed_the_owner_can_still_call_and_cast(fake_circusd: FakeCircusd) -> None:
    with client_here(fake_circusd.endpoint) as (client, counters, loop):
        loop.close()
        client.cast("incr", {"name": "absent"})
        assert client.call("list", {})["watchers"] == []
        assert counters.casts_failed == 1


def test_when_it_closes_every_call_under_way_fails(router: Router) -> None:
    bench = Bench(router.endpoint)
    asking = [Asking(lambda: bench.call("list")) for _ in range(2)]
    awaiting = Asking(lambda: asyncio.run(bench.client.call_async("list", {}, PATIENCE)))
    for _ in range(3):
        router.take()
    bench.close()
    for each in (*asking, awaiting):
        with pytest.raises(PluginStateError, match="not connected"):
            each.result()
    with pytest.raises(PluginStateError):
        bench.call("list")
    with pytest.raises(PluginStateError):
        bench.client.cast("list", {})


def test_when_it_closes_a_call_that_it_has_not_looked_at_yet_fails_at_once(
    fake_circusd: FakeCircusd,
) -> None:
    with client_here(fake_circusd.endpoint) as (client, _, _):
        # As another thread does; the owner, which is this one, does not come to run its loop.
        done = client._handover.submit(Call("list", {}, PATIENCE))
    assert isinstance(done.exception(0), PluginStateError)
