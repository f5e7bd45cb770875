# The same facts asked of a FakeCircusd and of a real circusd. What passes here for both is
# what a test with the fake may rely on.

from __future__ import annotations

import json
import signal
from typing import Any

import pytest
from contract import SENTINEL, actions, content, new_circusd
from wire import Circusd, Wire

from circusplug._wire.commands import encode_command
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


@pytest.mark.parametrize(
    ("command", "properties", "errno", "reason"),
    [
        ("nope", {}, 2, "unknown command: 'nope'"),
        ("options", {"name": "absent"}, 3, "program absent not found"),
        ("options", {"name": "Absent"}, 3, "program Absent not found"),
        ("stop", {"name": "absent"}, 3, "program absent not found"),
        ("stop", {"name": "absent", "match": "simple"}, 3, "program absent not found"),
        ("stop", {"name": "single", "match": "odd"}, 3, "unknown match method odd"),
        ("signal", {"name": "absent", "signum": 1}, 3, "program absent not found"),
        ("rm", {"name": "absent"}, 3, "program absent not found"),
        ("incr", {}, 3, "message invalid 'name' is missing"),
        ("get", {"name": "single"}, 3, "message invalid 'keys' is missing"),
        ("get", {"name": "single", "keys": ["nope"]}, 3, "'nope' option not found"),
        ("set", {"name": "absent"}, 3, "message invalid 'options' is missing"),
        ("set", {"name": "single", "options": {"nope": 1}}, 3, "unknown key 'nope'"),
        ("set", {"name": "single", "options": 1}, 3, "'options' property should be an object"),
        (
            "set",
            {"name": "single", "options": {"numprocesses": "x"}},
            3,
            "'numprocesses' isn't an integer",
        ),
        ("add", {"name": "absent"}, 3, "message invalid 'cmd' is missing"),
        ("globaloptions", {"option": "nope"}, 3, "'nope' not an existing option"),
        ("stats", {"name": "single", "process": 1}, 3, "process 1 not found in 'single'"),
        ("kill", {"name": "absent", "waiting": True}, 6, "server error"),
    ],
)
def test_an_error_has_this_number_and_these_words(
    wire: Wire, command: str, properties: dict[str, Any], errno: int, reason: str
) -> None:
    reply = wire.call(command, **properties)
    assert (reply.pop("errno"), reply.pop("reason")) == (errno, reason)
    assert reply.pop("status") == "error"
    assert reply.pop("tb") is None
    assert reply.keys() == {"time", "id"}


@pytest.mark.parametrize(
    ("command", "properties"),
    [
        ("add", {"name": "SINGLE", "cmd": "true"}),
        ("get", {"name": "my app.v1", "keys": ["flapping.max_retry"]}),
        ("signal", {"name": "single", "signum": "bogus"}),
        ("list", {"name": 3}),
        ("numprocesses", {"name": None}),
    ],
)
def test_a_command_that_fails_inside_circusd_has_number_5(
    wire: Wire, command: str, properties: dict[str, Any]
) -> None:
    reply = wire.call(command, **properties)
    assert (reply["status"], reply["errno"]) == ("error", 5)


def test_kill_of_an_absent_watcher_is_ok_for_those_who_do_not_wait(wire: Wire) -> None:
    assert content(wire.call("kill", name="absent")) == {}


def test_topics_hold_the_res_name_and_commands_take_the_real_name(wire: Wire) -> None:
    wire.call("set", name="mY aPP.V1", options={"max_retry": 5}, waiting=True)
    assert [topic for topic, _ in wire.events_until(SENTINEL)] == ["watcher.my_app.v1.updated"]
    reply = wire.call("options", name="my_app.v1")
    assert reply["reason"] == "program my_app.v1 not found"


@pytest.mark.parametrize("sent", [7, "seven", None, 7.5, [7], {"seven": 7}])
def test_a_reply_echoes_the_id(wire: Wire, sent: Any) -> None:
    wire.send(json.dumps({"id": sent, "command": "numwatchers"}).encode())
    assert wire.receive()["id"] == sent


def test_a_reply_to_a_command_without_an_id_has_a_null_id(wire: Wire) -> None:
    wire.send(b'{"command": "numwatchers"}')
    assert wire.receive()["id"] is None


def test_a_frame_that_is_not_json_is_answered_with_number_1(wire: Wire) -> None:
    wire.send(b"\xff{")
    reply = wire.receive()
    assert (reply["status"], reply["errno"], reply["reason"]) == ("error", 1, "json invalid")
    assert reply["id"] is None


def test_commands_are_known_in_any_case(wire: Wire) -> None:
    assert content(wire.call("NumWatchers")) == {"numwatchers": 3}


@pytest.mark.parametrize("command", ["numwatchers", "nope"])
def test_a_cast_is_never_answered(wire: Wire, command: str) -> None:
    wire.cast(command)
    call_id = wire.request("numwatchers")
    assert wire.receive()["id"] == call_id
    assert wire.drain() == []


@pytest.mark.parametrize("command", ["numwatchers", "nope"])
def test_a_cast_of_a_plugin_of_ours_is_answered(wire: Wire, command: str) -> None:
    wire.send(encode_command(4711, command, {}, is_cast=True))
    assert wire.receive()["id"] == 4711


def test_a_cast_takes_effect(wire: Wire, job: str) -> None:
    for _ in range(50):
        wire.cast("incr", name=job)
        if wire.sub.poll(200):  # a real circusd that is busy drops it, and tells nobody
            break
    topic, _ = wire.event()
    assert topic == "watcher.the_job.spawn"


@pytest.mark.parametrize("frame", [b"", b" ", b"{}", b"3", b'{"command": 3}'])
def test_a_frame_that_is_no_command_is_not_answered(wire: Wire, frame: bytes) -> None:
    # circusd is left hard of hearing by it: it goes on to read when someone else comes along.
    wire.send(frame)
    call_id = wire.request("numwatchers")
    while not wire.dealer.poll(20):
        with wire.new_dealer() as other:
            other.send(b'{"command": "list"}')
            while not other.poll(200):  # as hard as it is to be heard
                other.send(b'{"command": "list"}')
    assert wire.receive()["id"] == call_id
    assert wire.drain() == []


@pytest.mark.parametrize("kind", ["fake", "real"])
def test_quit_is_answered_and_stops_the_watchers(kind: str) -> None:
    with new_circusd(kind) as circusd, Wire(circusd) as wire:
        wire.subscribe_with(SENTINEL)
        reply = wire.call("quit")
        seen = [wire.event()[0] for _ in range(5)]
        assert seen == [
            f"watcher.my_app.v1.{each}" for each in ("kill", "kill", "reap", "reap", "stop")
        ]
        assert content(reply) == {}
