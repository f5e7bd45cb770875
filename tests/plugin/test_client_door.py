# A client's door, where commands about plugins go; a test's own ROUTER stands there.

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from client_bench import Asking, Bench, Router, client_here
from patience import PATIENCE, wait_while

from circusplug import CallError, CallTimeout, PluginStateError
from circusplug.testing import FakeCircusd

pytestmark = pytest.mark.usefixtures("the_owner_may_be_late", "clock_as_before")


ABOUT = {"name": "plugin:two"}


@pytest.fixture
def at_door(router: Router, fake_circusd: FakeCircusd) -> Iterator[Bench]:
    """A client that has a door."""
    fake_circusd.add_watcher("web")
    bench = Bench(fake_circusd.endpoint, router.endpoint)
    bench.call("numprocesses", name="web")
    yield bench
    bench.close()


@pytest.fixture(params=["other thread", "own thread"])
def ask_at_door(request: pytest.FixtureRequest, at_door: Bench) -> Callable[..., Asking]:
    def ask(timeout: float | None = PATIENCE, **properties: Any) -> Asking:
        def call() -> Any:
            return at_door.client.call("restart", {**ABOUT, **properties}, timeout)

        return Asking(call if request.param == "other thread" else lambda: at_door.on_owner(call))

    return ask


def test_what_waits_at_the_door_need_not_wait_when_the_plugin_stops(
    ask_at_door: Callable[..., Asking], at_door: Bench, router: Router
) -> None:
    asking = ask_at_door(waiting=True)
    assert router.take()[1]["properties"] == {**ABOUT, "waiting": True}
    at_door.client.stop_waiting()
    reply = asking.result()
    assert (reply["status"], type(reply["id"]), type(reply["time"])) == ("ok", int, float)
    assert at_door.call("numprocesses", name="web")["numprocesses"] == 1


def test_what_waits_at_the_door_has_its_deadline_and_its_reply(
    ask_at_door: Callable[..., Asking], at_door: Bench, router: Router
) -> None:
    asking = ask_at_door(100.0, waiting=True)
    router.take()
    at_door.pass_by(100.0)
    with pytest.raises(CallTimeout, match="no reply within 100 s"):
        asking.result()
    asking = ask_at_door(waiting=True)
    router.answer(*router.take(), said="done")
    assert asking.result()["said"] == "done"


def test_what_does_not_wait_for_the_work_is_answered_when_the_plugin_stops_as_well(
    at_door: Bench, router: Router
) -> None:
    asking = Asking(lambda: at_door.client.call("restart", ABOUT, PATIENCE))
    request = router.take()
    at_door.client.cast("restart", {**ABOUT, "waiting": True})
    cast = router.take()
    at_door.client.stop_waiting()
    later = Asking(lambda: at_door.client.call("restart", {**ABOUT, "waiting": True}, PATIENCE))
    third = router.take()
    assert third[1]["properties"] == {**ABOUT, "waiting": False}
    router.answer(*cast, status="error", reason="cannot be")
    router.answer(*request, said="first")
    router.answer(*third, said="third")
    assert (asking.result()["said"], later.result()["said"]) == ("first", "third")
    assert at_door.counters.casts_failed == 1


def test_what_could_not_be_sent_to_the_door_is_no_success_when_the_plugin_stops(
    router: Router, fake_circusd: FakeCircusd
) -> None:
    nobody = router.endpoint
    router.close()
    bench = Bench(fake_circusd.endpoint, nobody)
    asking = Asking(lambda: bench.client.call("restart", {**ABOUT, "waiting": True}, PATIENCE))
    door = bench.client._door
    assert door is not None
    wait_while(lambda: not door._unsent)
    bench.client.stop_waiting()
    with pytest.raises(PluginStateError, match="cannot send 'restart': the plugin stops"):
        asking.result()
    bench.close()


def test_without_a_descriptor_for_the_door_there_is_one_clear_error(
    ask_at_door: Callable[..., Asking], at_door: Bench, router: Router
) -> None:
    at_door.no_more_sockets = True
    with pytest.raises(CallError, match=r"restart name='plugin:two': Too many open files"):
        ask_at_door().result()
    at_door.no_more_sockets = False
    asking = ask_at_door()
    router.answer(*router.take())
    assert asking.result()["status"] == "ok"


def test_when_it_has_closed_nothing_goes_to_the_door(fake_circusd: FakeCircusd) -> None:
    with client_here(fake_circusd.endpoint, fake_circusd.endpoint) as (client, _, _):
        pass
    with pytest.raises(PluginStateError, match="not connected"):
        client.call("restart", ABOUT)
