# The circusd of a recording: what it answers at which moment.

from __future__ import annotations

import json
from typing import Any

import pytest

from circusplug.testing import Command
from circusplug.testing._recorded_circusd import RecordedCircusd, RecordedFleet
from circusplug.testing._recording import Event, Figures, Options, Record


class Circusd:
    """One that answers at the moment that `now` tells."""

    def __init__(self, *records: Record) -> None:
        self.now = 0.0
        self._recorded = RecordedCircusd(lambda: self.now)
        self._fleet = RecordedFleet(
            lambda *_: None,
            lambda: self._recorded.global_options,
            lambda: self.now,
            lambda *_: None,
        )
        self._recorded.coming.extend(records)

    def ask(self, command: str, **properties: Any) -> Any:
        return self._recorded.answer(self._fleet, Command(command, properties), properties)

    def pids(self, name: str = "web") -> Any:
        return self.ask("list", name=name)["pids"]


def event(at: float, topic: str, **payload: Any) -> Event:
    return Event(at, topic.encode(), json.dumps(payload).encode())


def spawn(at: float, pid: int) -> Event:
    return event(at, "watcher.web.spawn", process_pid=pid, time=at)


def figures(at: float, stats: dict[str, Any], **more: Any) -> Figures:
    told: dict[str, Any] = {"status": dict.fromkeys(stats, "active"), "dstats": {}, **more}
    return Figures(at, stats=stats, **told)


# Events.


@pytest.mark.parametrize(
    ("action", "left"), [("reap", [2]), ("kill", [2]), ("stop", []), ("updated", [1, 2])]
)
def test_processes_come_and_go_with_the_events(action: str, left: list[int]) -> None:
    circusd = Circusd(spawn(0, 1), spawn(0, 2), event(1, f"watcher.web.{action}", process_pid=1))
    assert circusd.pids() == [1, 2]
    circusd.now = 1.0
    assert circusd.pids() == left
    status = "stopped" if action == "stop" else "active"
    assert circusd.ask("status", name="web")["status"] == status


def test_a_watcher_is_active_from_its_start_or_its_first_process_on() -> None:
    circusd = Circusd(
        event(1, "watcher.a.start"), spawn(1, 1), event(1, "watcher.my.app.v1.updated")
    )
    circusd.now = 1.0
    statuses = circusd.ask("status")["statuses"]
    assert statuses == {"a": "active", "web": "active", "my.app.v1": "stopped"}


def test_each_process_has_a_number_and_an_age_of_its_own() -> None:
    circusd = Circusd(spawn(0, 11), spawn(4, 12))
    circusd.now = 10.0
    infos = circusd.ask("stats", name="web")["info"]
    assert {pid: (one["wid"], one["age"]) for pid, one in infos.items()} == {
        "11": (1, 10.0),
        "12": (2, 6.0),
    }


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        (b"watcher.gone.remove", b"{}"),
        (b"watcher.web", b"{}"),
        (b"", b""),
        (b"watcher.web.reap", b"no json"),
        (b"watcher.web.reap", b"[1]"),
        (b"watcher.web.reap", b'{"process_pid": [1]}'),
        (b"watcher.web.reap", b'{"process_pid": "x"}'),
        (b"watcher.web.reap", b"[" * 100_000),
    ],
)
def test_what_makes_no_sense_changes_nothing(topic: bytes, payload: bytes) -> None:
    circusd = Circusd(spawn(0, 1), Event(0, topic, payload))
    assert circusd.pids() == [1]
    assert circusd.ask("list")["watchers"] == ["web"]


# Options.


def test_options_are_those_that_were_told_last_over_circusd_s_own() -> None:
    circusd = Circusd(
        Options(0, {"web": {"cmd": "x", "gone": "1"}}, {"check_delay": 1, "endpoint": "e"}),
        Options(1, {"Web": {"cmd": "y"}}, {"check_delay": 2}),
    )
    assert circusd.ask("options", name="web")["options"]["cmd"] == "x"
    circusd.now = 1.0
    options = circusd.ask("options", name="web")["options"]
    assert (options["cmd"], options["graceful_timeout"], "gone" in options) == ("y", 30.0, False)
    assert circusd.ask("globaloptions")["options"] == {"check_delay": 2, "endpoint": "e"}
    assert circusd.ask("status")["statuses"] == {"Web": "stopped"}


def test_a_watcher_known_by_its_events_keeps_its_processes_under_its_real_name() -> None:
    circusd = Circusd(event(0, "watcher.my_app.start"), Options(0, {"My App": {}}, {}))
    circusd._recorded.coming.insert(1, event(0, "watcher.my_app.spawn", process_pid=7))
    assert circusd.ask("status")["statuses"] == {"My App": "active"}
    assert circusd.pids("my app") == [7]


# Figures.


def test_figures_put_everything_in_its_place() -> None:
    told = {"web": {"1": {"wid": 4, "started": 2.0, "cpu": 5, "age": 99}}, "db": {}}
    circusd = Circusd(
        spawn(0, 9),
        event(0, "watcher.gone.start"),
        figures(3, told, status={"web": "stopping", "db": "active"}),
    )
    circusd.now = 5.0
    assert circusd.ask("status")["statuses"] == {"web": "stopping", "db": "active"}
    info = circusd.ask("stats", name="web")["info"]
    assert {pid: (one["wid"], one["age"], one["cpu"]) for pid, one in info.items()} == {
        "1": (4, 3.0, 5)
    }
    circusd._recorded.coming.append(spawn(5, 2))
    assert circusd.ask("stats", name="web")["info"]["2"]["wid"] == 5


def test_a_process_that_is_told_of_oddly_is_left_out_or_has_what_there_is() -> None:
    odd = {"x": {}, "2": "No such process (stopped?)", "3": {"create_time": 1.0}}
    circusd = Circusd(figures(0, {"web": odd}))
    circusd.now = 4.0
    assert circusd.pids() == [3]
    assert circusd.ask("stats", name="web")["info"]["3"]["age"] == 3.0


def test_circusd_s_own_figures_stay_where_a_record_has_none() -> None:
    circusd = Circusd(figures(0, {}, dstats={"pid": 5}), figures(1, {}))
    for circusd.now in (0.0, 1.0):
        assert circusd.ask("dstats")["info"] == {"pid": 5}


@pytest.mark.parametrize("command", ["stats", "STATS"])
def test_the_figures_that_are_nearer_are_told_and_of_two_as_near_the_older_ones(
    command: str,
) -> None:
    circusd = Circusd(*(figures(at, {"web": {"1": {"cpu": at}}}) for at in (0, 10, 20)))
    found = []
    for circusd.now in (0.0, 5.0, 5.5, 14.0, 16.0):
        found.append(circusd.ask(command, name="web")["info"]["1"]["cpu"])
    assert found == [0, 0, 10, 10, 20]


def test_a_process_that_has_ended_has_no_figures_left_when_its_number_comes_again() -> None:
    circusd = Circusd(
        figures(0, {"web": {"1": {"cpu": 7}}}),
        event(1, "watcher.web.reap", process_pid=1),
        spawn(2, 1),
    )
    circusd.now = 2.0
    assert circusd.ask("stats", name="web")["info"]["1"]["cpu"] == 0.0


# Orders.


def test_orders_are_refused_as_circusd_does_and_change_nothing() -> None:
    circusd = Circusd(Options(0, {"web-1": {"numprocesses": 2}, "web-2": {}}, {}))
    assert circusd.ask("incr", name="web-1") == {"status": "ok", "numprocesses": 3}
    assert circusd.ask("incr", name="web-1", nb=4) == {"status": "ok", "numprocesses": 6}
    assert circusd.ask("stop", name="web-*", match="glob")["numprocesses"] == 3
    assert circusd.ask("stop", name="web-*")["status"] == "error"
    assert circusd.ask("reload") == {"status": "ok"}
    assert circusd.ask("add", name="new", cmd="true") == {"status": "ok"}
    for command, properties in (("add", {"name": "new"}), ("incr", {}), ("rm", {"name": "new"})):
        assert circusd.ask(command, **properties)["status"] == "error"
    assert circusd.ask("list")["watchers"] == ["web-1", "web-2"]
