# What a FakeCircusd and a real circusd alike make of requests: errors, ids, frames that are no
# command, casts and quit.

from __future__ import annotations

import json
from typing import Any

import pytest
from contract import SENTINEL, content, new_circusd
from wire import Wire

from circusplug._wire.commands import encode_command


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
