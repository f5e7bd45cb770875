# circusd's command language, from the side of who answers: no sockets.

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circusplug._control.language import (
    Answer,
    Handler,
    RefusedError,
    Request,
    answer,
    matching,
    read_request,
    reply_frame,
)

NAMES = ["plugin:Web", "plugin:web.log", "plugin:mail"]


def handlers(said: list[Any]) -> Mapping[str, Handler[list[Any]]]:
    def note(subject: list[Any], properties: Mapping[str, Any]) -> Answer:
        subject.append(properties)
        return {"noted": len(subject)}

    def refuse(_: list[Any], properties: Mapping[str, Any]) -> Answer:
        raise RefusedError("not this one", 42)

    def later(_: list[Any], properties: Mapping[str, Any]) -> Answer:
        return Future()

    return {"note": (note, ("name",)), "refuse": (refuse, ()), "later": (later, ())}


def ask(command: str, properties: Any) -> Any:
    return answer(handlers([]), [], command, properties)


def test_a_request_is_read_with_all_that_it_says() -> None:
    frame = b'{"id": "7", "command": "Stop", "properties": {"name": "a"}, "msg_type": "cast"}'
    assert read_request(frame) == Request("Stop", {"name": "a"}, "7", "cast")
    assert read_request(b'{"command": "list"}') == Request("list", {}, None, None)


@pytest.mark.parametrize(("kind", "wants"), [(None, True), ("cast", False), ("anything", True)])
def test_nobody_waits_for_the_reply_to_a_cast(kind: Any, wants: bool) -> None:
    assert Request("list", {}, 1, kind).wants_reply is wants


@pytest.mark.parametrize(
    "frame", [b"{", b"\xff\xfe\x00", b"nonsense", b"[" * 100_000, b'{"id": 1' + b"0" * 5000 + b"}"]
)
def test_what_is_not_json_is_answered_with_circusds_error(frame: bytes) -> None:
    reply = read_request(frame)
    assert isinstance(reply, dict)
    assert (reply["status"], reply["errno"], reply["id"]) == ("error", 1, None)
    assert reply["reason"] == "json invalid"


@pytest.mark.parametrize(
    "frame", [b"", b"  \n", b"3", b"null", b"[]", b"{}", b'{"command": 3}', b'{"command": null}']
)
def test_what_is_no_command_gets_no_answer(frame: bytes) -> None:
    assert read_request(frame) is None


@given(st.binary(max_size=200))
def test_no_frame_trips_the_reader_up(frame: bytes) -> None:
    assert isinstance(read_request(frame), Request | dict | None)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_no_properties_trip_the_answer_up(properties: Any) -> None:
    for command in ("note", "refuse", "later", "absent"):
        reply = ask(command, properties)
        if isinstance(reply, Future):
            continue
        assert reply["status"] in ("ok", "error")
        json.loads(reply_frame(reply, properties))


def test_a_command_is_found_in_any_case_and_answered_with_ok() -> None:
    assert ask("NOTE", {"name": "a"}) == {"status": "ok", "noted": 1}


def test_an_unknown_command_has_circusds_number_and_a_hint() -> None:
    reply = answer(handlers([]), [], "noet", {}, lambda command: f" ({command}?)")
    assert (reply["errno"], reply["reason"]) == (2, "unknown command: 'noet' (noet?)")  # type: ignore[index]


def test_a_missing_property_and_a_refusal_are_errors_with_their_numbers() -> None:
    reply = ask("note", {})
    assert (reply["errno"], reply["reason"]) == (3, "message invalid 'name' is missing")
    assert ask("refuse", {}) == {
        "status": "error",
        "reason": "not this one",
        "tb": None,
        "errno": 42,
    }


def test_what_a_handler_trips_over_is_an_error_of_the_command() -> None:
    assert ask("note", None)["errno"] == 5


def test_an_endless_name_is_not_repeated_in_full() -> None:
    assert len(ask("x" * 1_000_000, {})["reason"]) < 200


def test_an_answer_that_comes_later_is_handed_on() -> None:
    assert isinstance(ask("later", {}), Future)


@pytest.mark.parametrize(
    ("wanted", "match", "found"),
    [
        ("plugin:web", "simple", ["plugin:Web"]),
        ("PLUGIN:WEB", "glob", ["plugin:Web"]),
        ("plugin:w*", "glob", ["plugin:Web", "plugin:web.log"]),
        ("*", "glob", NAMES),
        ("plugin:w*", "simple", []),
        ("plugin:web.log", "glob", ["plugin:web.log"]),
        ("plugin:(web|mail)$", "regex", ["plugin:Web", "plugin:mail"]),
        ("web", "regex", []),
        ("", "glob", []),
    ],
)
def test_names_match_as_circusd_matches_them(wanted: str, match: str, found: list[str]) -> None:
    assert matching(NAMES, wanted, match) == found


@pytest.mark.parametrize(
    ("wanted", "match", "says"),
    [
        ("(", "regex", "is no pattern"),
        ("a", "fuzzy", "unknown match method fuzzy"),
        (["a"], "glob", "is no text"),
        (None, "simple", "is no text"),
        ("a", ["glob"], "unknown match method"),
    ],
)
def test_a_name_or_a_way_to_match_without_sense_is_refused(
    wanted: Any, match: Any, says: str
) -> None:
    with pytest.raises(RefusedError, match=says):
        matching(NAMES, wanted, match)
