# The same facts asked of a FakeCircusd and of a real circusd: what commands answer, what they do
# and which events they publish. What passes here for both is what a test with the fake may rely on.

from __future__ import annotations

import signal
from typing import Any

import pytest
from contract import SENTINEL, actions, content
from wire import Circusd, Wire

from circusplug.testing._model import DEFAULT_OPTIONS

PROCESS_KEYS = {
    *("mem_info1", "mem_info2", "cpu", "mem", "ctime", "pid", "username", "nice"),
    *("create_time", "age", "cmdline", "children"),
}


def test_list_names_the_watchers_in_lower_case_and_in_order(wire: Wire) -> None:
    assert content(wire.call("list")) == {"watchers": ["my app.v1", "sentinel", "single"]}


def test_list_of_a_watcher_gives_its_process_ids(wire: Wire, job: str) -> None:
    reply = content(wire.call("list", name=job))
    assert list(reply) == ["pids"]
    assert [type(pid) for pid in reply["pids"]] == [int, int]


def test_status_names_the_watchers_as_configured(wire: Wire) -> None:
    statuses = {"My App.v1": "active", "Single": "stopped", SENTINEL: "stopped"}
    assert content(wire.call("status")) == {"statuses": statuses}


def test_status_of_one_watcher_takes_the_place_of_ok(wire: Wire) -> None:
    assert wire.call("status", name="Single").keys() == {"status", "time", "id"}
    assert wire.call("status", name="Single")["status"] == "stopped"
    assert wire.call("status", name="My App.v1")["status"] == "active"


def test_stats_gives_figures_by_watcher_and_process_id(wire: Wire) -> None:
    infos = content(wire.call("stats"))["infos"]
    assert infos.keys() == {"My App.v1", "Single", SENTINEL}
    assert infos["Single"] == {}
    assert len(infos["My App.v1"]) == 2
    for pid, info in infos["My App.v1"].items():
        assert info.keys() == PROCESS_KEYS | {"started", "wid"}
        assert str(info["pid"]) == pid
        assert [type(info[key]) for key in ("cpu", "mem", "mem_info1")] == [float, float, str]
        assert (info["cmdline"], info["children"]) == ("sleep", [])
    assert sorted(info["wid"] for info in infos["My App.v1"].values()) == [1, 2]


def test_stats_of_one_watcher_repeats_the_name_as_it_was_asked(wire: Wire) -> None:
    reply = content(wire.call("stats", name="MY app.v1"))
    assert reply.keys() == {"name", "info"}
    assert reply["name"] == "MY app.v1"
    assert len(reply["info"]) == 2


def test_stats_of_one_process(wire: Wire, job: str) -> None:
    pid = wire.call("list", name=job)["pids"][0]
    reply = content(wire.call("stats", name=job, process=pid))
    assert reply.keys() == {"process", "info"}
    assert (reply["process"], reply["info"]["pid"]) == (pid, pid)


def test_dstats_gives_circusds_own_figures(wire: Wire) -> None:
    reply = content(wire.call("dstats"))
    assert reply.keys() == {"info"}
    assert reply["info"].keys() == PROCESS_KEYS


def test_options_holds_all_options_and_free_ones_as_strings(wire: Wire) -> None:
    options = content(wire.call("options", name="My App.v1"))["options"]
    options.pop("__name__", None)  # a stray of circusd's ini reader
    assert options.keys() == DEFAULT_OPTIONS.keys() | {"flapping.max_retry"}
    assert options["flapping.max_retry"] == "3"
    assert options["numprocesses"] == 2
    for key in DEFAULT_OPTIONS.keys() - {"numprocesses", "graceful_timeout", "working_dir"}:
        assert options[key] == DEFAULT_OPTIONS[key], key
    assert type(options["graceful_timeout"]) is float


def test_get_returns_the_options_asked_for(wire: Wire) -> None:
    reply = content(wire.call("get", name="My App.v1", keys=["numprocesses", "cmd"]))
    assert reply == {"options": {"numprocesses": 2, "cmd": "sleep 1000"}}


def test_globaloptions_tells_the_endpoints(wire: Wire, circusd: Circusd) -> None:
    options = content(wire.call("globaloptions"))["options"]
    assert options.keys() == {
        *("endpoint", "pubsub_endpoint", "stats_endpoint", "check_delay", "multicast_endpoint")
    }
    assert options["endpoint"] == circusd.endpoint
    assert options["pubsub_endpoint"] == circusd.pubsub_endpoint
    one = content(wire.call("globaloptions", option="endpoint"))
    assert one == {"options": {"endpoint": circusd.endpoint}}


def test_numwatchers_and_numprocesses_count(wire: Wire) -> None:
    assert content(wire.call("numwatchers")) == {"numwatchers": 3}
    assert content(wire.call("numprocesses")) == {"numprocesses": 2}
    one = content(wire.call("numprocesses", name="MY APP.v1"))
    assert one == {"numprocesses": 2, "watcher_name": "MY APP.v1"}


def test_listsockets_is_empty_without_sockets(wire: Wire) -> None:
    assert content(wire.call("listsockets")) == {"sockets": []}


@pytest.mark.parametrize(
    ("command", "properties", "expected"),
    [
        ("start", {}, []),
        ("stop", {}, ["kill", "kill", "reap", "reap", "stop"]),
        ("incr", {}, ["spawn"]),
        ("incr", {"nb": 2}, ["spawn", "spawn"]),
        ("decr", {}, ["kill"]),
        ("decr", {"nb": 5}, ["kill", "kill"]),
        ("set", {"options": {"max_retry": 7}}, ["updated"]),
        ("set", {"options": {"numprocesses": 3}}, ["updated", "spawn"]),
        ("set", {"options": {"numprocesses": 1, "max_retry": 7}}, ["updated", "updated", "kill"]),
        (
            "set",
            {"options": {"env": {"A": "1"}}},
            ["updated", "spawn", "spawn", "kill", "kill", "reload"],
        ),
        ("reload", {}, ["spawn", "spawn", "kill", "kill", "reload"]),
        ("reload", {"sequential": True}, ["kill", "reap", "spawn"] * 2 + ["reload"]),
        (
            "reload",
            {"graceful": False},
            ["kill", "kill", "reap", "reap", "stop", "spawn", "spawn", "start"],
        ),
        ("restart", {}, ["kill", "kill", "reap", "reap", "stop", "spawn", "spawn", "start"]),
        ("rm", {}, ["remove", "kill", "kill", "reap", "reap", "stop"]),
        ("rm", {"nostop": True}, ["remove"]),
        ("signal", {"signum": 0}, []),
        ("kill", {"pid": 1}, []),
    ],
)
def test_a_command_publishes_these_events(
    wire: Wire, job: str, command: str, properties: dict[str, Any], expected: list[str]
) -> None:
    assert wire.call(command, name=job, waiting=True, **properties)["status"] == "ok"
    assert actions(wire.events_until(SENTINEL)) == expected


def test_add_and_start_publish_add_spawn_start(wire: Wire) -> None:
    assert content(wire.call("add", name="New One", cmd="sleep 1000", waiting=True)) == {}
    assert actions(wire.events_until(SENTINEL), "new_one") == ["add"]
    assert wire.call("status", name="new one")["status"] == "stopped"
    wire.call("start", name="NEW ONE", waiting=True)
    assert actions(wire.events_until(SENTINEL), "new_one") == ["spawn", "start"]
    wire.call("rm", name="New One", waiting=True)


def test_a_stopped_watcher_takes_a_new_size_silently_and_starts_with_it(
    wire: Wire, job: str
) -> None:
    wire.call("stop", name=job, waiting=True)
    wire.events_until(SENTINEL)
    assert content(wire.call("incr", name=job, waiting=True)) == {"numprocesses": 3}
    assert wire.events_until(SENTINEL) == []
    wire.call("start", name=job, waiting=True)
    assert actions(wire.events_until(SENTINEL)) == ["spawn", "spawn", "spawn", "start"]


def test_a_reload_starts_a_stopped_watcher(wire: Wire, job: str) -> None:
    wire.call("stop", name=job, waiting=True)
    wire.events_until(SENTINEL)
    wire.call("reload", name=job, waiting=True)
    assert actions(wire.events_until(SENTINEL)) == ["spawn", "spawn", "start", "reload"]


def test_decr_kills_the_oldest_process(wire: Wire, job: str) -> None:
    oldest, newest = sorted(wire.call("list", name=job)["pids"])
    wire.call("decr", name=job, waiting=True)
    ((_, payload),) = wire.events_until(SENTINEL)
    assert payload["process_pid"] == oldest
    assert wire.call("list", name=job)["pids"] == [newest]


def test_events_carry_the_process_id_the_time_and_the_exit_code(wire: Wire, job: str) -> None:
    pids = set(wire.call("list", name=job)["pids"])
    wire.call("stop", name=job, waiting=True)
    events = wire.events_until(SENTINEL)
    kills, reaps, (stop,) = (
        [payload for topic, payload in events if topic == f"watcher.the_job.{action}"]
        for action in ("kill", "reap", "stop")
    )
    assert {payload["process_pid"] for payload in kills} == pids
    assert {payload["process_pid"] for payload in reaps} == pids
    assert all(payload.keys() == {"process_pid", "time"} for payload in kills)
    assert all(payload.keys() == {"process_pid", "time", "exit_code"} for payload in reaps)
    assert {payload["exit_code"] for payload in reaps} == {-signal.SIGTERM}
    assert stop.keys() == {"time"}


@pytest.mark.parametrize(("command", "kills"), [("kill", 1), ("signal", 0)])
def test_a_killed_process_is_replaced(wire: Wire, job: str, command: str, kills: int) -> None:
    pid = wire.call("list", name=job)["pids"][0]
    wire.call(command, name=job, signum="TERM", pid=pid, waiting=True)
    events = [wire.event()]
    while not events[-1][0].endswith(".spawn"):
        events.append(wire.event())
    seen = actions(events)
    assert seen.count("kill") == kills
    # A real circusd may miss the reap of a process that it finds gone.
    assert set(seen) <= {"kill", "reap", "spawn"}
    assert events[-1][1]["process_pid"] != pid


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("start", {"started": 0, "kept": 2}),
        ("restart", {"stopped": 2, "started": 2, "kept": 0}),
        ("reload", {"stopped": 2, "started": 2, "kept": 0}),
    ],
)
def test_waiting_tells_which_processes_came_and_went(
    wire: Wire, job: str, command: str, keys: dict[str, int]
) -> None:
    info = content(wire.call(command, name=job, waiting=True))["info"]
    assert {key: len(pids) for key, pids in info.items()} == keys
    assert content(wire.call("start", name=job)) == {}


def test_waiting_for_a_stop_brings_an_empty_info(wire: Wire, job: str) -> None:
    assert content(wire.call("stop", name=job, waiting=True)) == {"info": None}


@pytest.mark.parametrize("command", ["incr", "decr"])
def test_the_new_size_is_told_to_those_who_wait_only(wire: Wire, job: str, command: str) -> None:
    expected = 3 if command == "incr" else 1
    assert content(wire.call(command, name=job, waiting=True)) == {"numprocesses": expected}
    assert content(wire.call(command, name=job)) == {}


@pytest.mark.parametrize("command", ["incr", "decr"])
def test_a_singleton_keeps_its_size(wire: Wire, command: str) -> None:
    assert content(wire.call(command, name="single")) == {"numprocesses": 1, "singleton": True}


def test_a_started_add_tells_the_processes_at_the_top_level(wire: Wire) -> None:
    reply = wire.call("add", name="New", cmd="sleep 1000", start=True, waiting=True)
    reply = content(reply)
    wire.call("rm", name="New", waiting=True)
    assert reply.keys() == {"started", "kept"}
    assert (len(reply["started"]), reply["kept"]) == (1, [])


def test_start_and_stop_take_a_pattern(wire: Wire, job: str) -> None:
    wire.call("stop", name="the*", waiting=True)
    assert wire.call("status", name=job)["status"] == "stopped"
    wire.call("start", name="^THE.j", match="regex", waiting=True)
    assert wire.call("status", name=job)["status"] == "active"


def test_stop_of_several_watchers_stops_each(wire: Wire, job: str) -> None:
    wire.call("add", name="the other", cmd="sleep 1000", start=True, waiting=True)
    wire.events_until(SENTINEL)
    assert content(wire.call("stop", name="the *", waiting=True)) == {}
    events = wire.events_until(SENTINEL)
    wire.call("rm", name="the other", waiting=True)
    for name, kills in (
        ("the_job", ["kill", "kill", "reap", "reap"]),
        ("the_other", ["kill", "reap"]),
    ):
        own = [event for event in events if event[0].startswith(f"watcher.{name}.")]
        assert actions(own, name) == [*kills, "stop"]
