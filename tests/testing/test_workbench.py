# The workbench of `circusplug dev`, beside what is tested with the command.

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hosts import all_run
from patience import PATIENCE

from circusplug import CircusPlugin
from circusplug._config.specs import PluginSpec
from circusplug._errors import PluginStateError
from circusplug.testing import Deed, FakeCircusd
from circusplug.testing._notes import Notes
from circusplug.testing._workbench import Workbench, _AtFake, at_circusd, at_fake_circusd


def test_a_plugin_that_is_busy_ends_nothing_and_what_it_did_is_told() -> None:
    def busy(_: float) -> None:
        raise AssertionError("the clock stands at 0 s, 5 s in vain: the plugin is busy")

    deeds: list[Deed] = []
    notes = Notes(lambda: 0.0, deeds.append)
    parts: list[Any] = [
        None,
        SimpleNamespace(arbiter=None, name="a"),
        SimpleNamespace(advance=busy),
    ]
    bench = _AtFake(notes, *cast(Any, parts))
    notes.add("log", "a line")
    bench.tick()
    assert [deed.text for deed in deeds] == ["a line"]


class Orders(CircusPlugin):
    """Tells circusd what to do in each way that there is."""

    topics = ("other.",)

    async def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        self.call("list")
        self.call("incr", name="web")
        self.cast("decr", name="web")
        await self.call_async("reload", name="web")
        raise ValueError("odd")

    def handle_stop(self) -> None:
        self.logger.info("over")


def test_all_that_is_done_to_a_given_circusd_is_told_up_to_the_end() -> None:
    deeds: list[Deed] = []
    with FakeCircusd(["web"]) as circusd:
        ends = circusd.endpoint, circusd.pubsub_endpoint
        spec = PluginSpec.from_options({"use": Orders, "name": "mine"})
        with at_circusd(spec, *ends, deeds.append) as bench:
            bench.arbiter.wait(all_run, PATIENCE)
            circusd.wait_subscribed(1, PATIENCE)
            circusd.publish("other", "spawn", time=1)
            bench.arbiter.wait(lambda now: now["mine"].counters.errors == 1, PATIENCE)
            bench.tick()
            assert "over" not in [deed.text for deed in deeds]
            assert bench.status.state == "running"
    told = [(deed.kind, deed.text) for deed in deeds]
    assert told == [
        ("event", 'watcher.other.spawn {"time": 1}'),
        ("command", "incr name='web'"),
        ("command", "decr name='web' (cast)"),
        ("command", "reload name='web'"),
        ("error", "ValueError: odd"),
        ("log", "over"),
    ]
    assert deeds == sorted(deeds, key=lambda deed: deed.at)


def test_a_fake_circusd_has_the_time_of_day_and_what_is_done_at_the_end_is_told() -> None:
    deeds: list[Deed] = []
    spec = PluginSpec.from_options({"use": Orders, "name": "mine"})
    with at_fake_circusd(spec, "web has 1 process", deeds.append) as bench:
        told = bench.arbiter.instance("mine").now()
        assert abs(told - time.time()) < 3600
    assert [deed.text for deed in deeds] == ["over"]


def test_a_given_circusd_does_what_it_does() -> None:
    bench = Workbench(Notes(lambda: 0.0, lambda _: None))
    for order in (
        lambda: bench.publish("web", "reap", {}),
        lambda: bench.advance(1.0),
        bench.lose_replies,
        bench.stop_circusd,
    ):
        with pytest.raises(PluginStateError, match="a circusd that was given does what it does"):
            order()
