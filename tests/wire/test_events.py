# From the frames of an event to an Event, with bytes alone.

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from circusplug import CircusPlugError, Event, EventError
from circusplug._wire.events import parse_event, split_topic


@pytest.mark.parametrize(
    ("topic", "parts"),
    [
        (b"watcher.web.spawn", ("web", "spawn")),
        (b"watcher.my_app.v1.reap", ("my_app.v1", "reap")),
        (b"watcher.plugin:logger.spawn", ("plugin:logger", "spawn")),
        (b"watcher.watcher.spawn", ("watcher", "spawn")),
        (b"watcher.a..spawn", ("a.", "spawn")),
        (b"watcher.a b.hook_failure", ("a b", "hook_failure")),
        ("watcher.café.spawn".encode(), ("café", "spawn")),
        (b"watcher.\xff.spawn", ("\ufffd", "spawn")),
    ],
)
def test_a_topic_is_split_at_its_first_dot_and_at_its_last(
    topic: bytes, parts: tuple[str, str]
) -> None:
    assert split_topic(topic) == parts


@pytest.mark.parametrize(
    "topic",
    [
        b"",
        b".",
        b"..",
        b"watcher",
        b"watcher.",
        b"watcher.web",
        b"watcher.web.",
        b"watcher..spawn",
        b"watchers.web.spawn",
        b"stats.web.spawn",
        b" watcher.web.spawn",
    ],
)
def test_another_topic_is_refused_and_the_error_holds_it(topic: bytes) -> None:
    with pytest.raises(EventError) as caught:
        split_topic(topic)
    assert caught.value.topic == topic
    assert isinstance(caught.value, CircusPlugError)
    assert isinstance(caught.value, ValueError)


_NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
_ACTIONS = _NAMES.filter(lambda name: "." not in name)


@given(name=_NAMES, action=_ACTIONS)
@example(name="..", action="x")
def test_whatever_the_name_is_it_comes_out_of_the_topic_again(name: str, action: str) -> None:
    assert split_topic(f"watcher.{name}.{action}".encode()) == (name, action)


def test_an_event_has_what_circusd_said() -> None:
    payload = {"process_pid": 7, "exit_code": -9, "time": 12.5}
    event = parse_event(b"watcher.my_app.v1.reap", json.dumps(payload).encode())
    assert (event.watcher, event.action, event.time, event.pid) == ("my_app.v1", "reap", 12.5, 7)
    assert event.payload == payload


@pytest.mark.parametrize(
    ("payload", "time", "pid"),
    [
        ({}, 0.0, None),
        ({"time": 3}, 3.0, None),
        ({"time": "now", "process_pid": "7"}, 0.0, None),
        ({"time": None, "process_pid": None}, 0.0, None),
    ],
)
def test_time_and_pid_are_there_whatever_the_payload(
    payload: dict[str, Any], time: float, pid: int | None
) -> None:
    event = parse_event(b"watcher.web.start", json.dumps(payload).encode())
    assert (event.time, event.pid) == (time, pid)


@pytest.mark.parametrize(
    "payload",
    [b"", b"not json", b"[1]", b"7", b"null", b'"text"', b"\xff", b"{", b'{"a": ' * 100_000],
    ids=lambda payload: repr(payload[:10]),
)
def test_a_payload_that_is_no_json_object_is_refused_and_the_error_holds_it(payload: bytes) -> None:
    with pytest.raises(EventError) as caught:
        parse_event(b"watcher.web.spawn", payload)
    assert (caught.value.topic, caught.value.payload) == (b"watcher.web.spawn", payload)


@given(topic=st.binary() | _NAMES.map(lambda name: f"watcher.{name}".encode()), payload=st.binary())
@example(topic=b"watcher.web.spawn", payload=b'{"time": 1' + b"0" * 400 + b"}")
@example(topic=b"watcher.web.spawn", payload=b'{"time": NaN}')
def test_any_two_frames_are_an_event_or_an_event_error(topic: bytes, payload: bytes) -> None:
    try:
        event = parse_event(topic, payload)
    except EventError:
        return
    assert isinstance(event.time, float)


def test_an_event_is_frozen_and_does_not_share_its_payload() -> None:
    payload = {"process_pid": 7}
    event = Event("web", "spawn", payload)
    payload["process_pid"] = 8
    assert event.pid == 7
    with pytest.raises(TypeError):
        event.payload["process_pid"] = 8  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.watcher = "other"  # type: ignore[misc]


def test_equal_events_are_equal_and_hash_alike() -> None:
    one, other = (Event("web", "spawn", {"process_pid": 7}, 1.0) for _ in range(2))
    assert one == other
    assert len({one, other}) == 1
    assert one != Event("web", "spawn", {"process_pid": 8}, 1.0)


@pytest.mark.parametrize(("watcher", "action"), [("", "spawn"), ("web", ""), ("web", "a.b")])
def test_an_event_that_cannot_be_is_refused(watcher: str, action: str) -> None:
    with pytest.raises(EventError, match="no circusd event"):
        Event(watcher, action)
