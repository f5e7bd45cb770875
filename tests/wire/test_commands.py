# Commands, casts and replies as bytes.

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circusplug import CallConflict, CallError, CallTimeout
from circusplug._errors import describe_command
from circusplug._wire.commands import decode_reply, encode_command, error_from_reply


def test_a_call_is_one_json_object_with_id_command_and_properties() -> None:
    frame = encode_command(7, "incr", {"name": "web", "nb": 2})
    assert json.loads(frame) == {
        "id": 7,
        "command": "incr",
        "properties": {"name": "web", "nb": 2},
    }


def test_a_cast_says_that_it_is_one_in_words_that_let_circusd_answer() -> None:
    message = json.loads(encode_command(7, "stop", {"name": "café"}, is_cast=True))
    kind = message.pop("msg_type")
    assert kind != "cast"  # which circusd would not answer
    assert kind.endswith("cast")
    assert message == {"id": 7, "command": "stop", "properties": {"name": "café"}}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=30)
@given(properties=st.dictionaries(st.text(), _JSON, max_size=4))
def test_properties_arrive_as_they_were_given(properties: dict[str, Any]) -> None:
    for is_cast in (False, True):
        frame = encode_command(1, "set", properties, is_cast)
        assert json.loads(frame)["properties"] == properties


def _endless() -> dict[str, Any]:
    inner: dict[str, Any] = {}
    inner["inner"] = inner
    return inner


def _deep() -> list[Any]:
    outer: list[Any] = []
    for _ in range(100_000):
        outer = [outer]
    return outer


@pytest.mark.parametrize(
    "value", [object(), b"bytes", {1}, {(1, 2): 3}, _endless(), _deep()], ids=type
)
@pytest.mark.parametrize("cast", [False, True], ids=["call", "cast"])
def test_what_json_cannot_say_is_a_call_error_with_the_command(value: Any, cast: bool) -> None:
    properties = {"name": "web", "value": value}
    with pytest.raises(CallError, match="cannot be sent as JSON") as caught:
        encode_command(1, "set", properties, cast)
    assert (caught.value.command, caught.value.errno) == ("set", None)


def test_a_reply_is_a_json_object() -> None:
    assert decode_reply(b'{"id": 1, "status": "ok"}') == {"id": 1, "status": "ok"}


@pytest.mark.parametrize(
    "frame",
    [b"", b"not json", b"[]", b"1", b"null", b"\xff\xfe", b"{", b'{"a":' * 100_000],
    ids=lambda frame: repr(frame[:10]),
)
def test_what_is_no_json_object_is_no_reply(frame: bytes) -> None:
    assert decode_reply(frame) is None


@given(frame=st.binary())
def test_any_frame_is_a_reply_or_none(frame: bytes) -> None:
    reply = decode_reply(frame)
    assert reply is None or isinstance(reply, dict)


@pytest.mark.parametrize("status", ["ok", "active", "stopped", "Error", None])
def test_only_the_status_error_is_an_error(status: str | None) -> None:
    assert error_from_reply("status", {"name": "web"}, {"status": status, "errno": 3}) is None


@pytest.mark.parametrize(
    ("errno", "reason", "conflict"),
    [
        (1, "json invalid", False),
        (2, "unknown command: 'x'", False),
        (3, "program absent not found", False),
        (3, "arbiter is absent not found", False),  # the name of a watcher
        (5, "arbiter is already running watcher_restart command", True),
        (5, "arbiter is restarting...", True),
        (5, "command 'set': list index out of range", False),
        (None, "something", False),
    ],
)
def test_an_error_reply_becomes_the_error_that_fits(
    errno: int | None, reason: str, conflict: bool
) -> None:
    reply = {"status": "error", "errno": errno, "reason": reason, "tb": None, "id": 7}
    error = error_from_reply("incr", {"name": "web"}, reply)
    assert type(error) is (CallConflict if conflict else CallError)
    assert error is not None
    assert (error.errno, error.reason, error.reply) == (errno, reason, reply)
    assert error.retryable is conflict
    assert str(error) == f"incr name='web': {reason}"


def test_an_error_reply_that_says_little_is_an_error_too() -> None:
    error = error_from_reply("incr", {}, {"status": "error", "errno": "5"})
    assert error is not None
    assert (str(error), error.errno) == ("incr: unknown", None)


def test_a_command_in_a_message_keeps_its_values_short() -> None:
    text = describe_command("set", {"name": "web", "env": "x" * 1000})
    assert text.startswith("set name='web' env='xxx")
    assert text.endswith("...")
    assert len(text) < 100


@pytest.mark.parametrize(
    "name",
    ["password", "DB_PASSWD", "passphrase", "client_secret", "API_TOKEN", "key", "apiKey", "keys_"],
)
def test_secrets_are_masked_in_the_text_of_an_error_and_kept_in_its_properties(name: str) -> None:
    properties = {
        "name": "web",
        name: "hush",
        "env": {name: "hush", "PATH": "/bin"},
        "options": {"streams": [{name: "hush"}], "deep": _endless()},
    }
    error = CallError("add", properties, "no")
    assert "hush" not in str(error)
    assert "name='web'" in str(error)
    assert "'PATH': '/bin'" in str(error)
    assert error.properties == properties


def test_a_login_in_a_url_is_masked_in_the_text_of_an_error() -> None:
    env = {"DB": "postgres://me:hush@db/x"}
    text = describe_command("set", {"url": "redis://:hush@host", "options": {"env": env}})
    assert text == ("set url='redis://****@host' options={'env': {'DB': 'postgres://****@db/x'}}")


def test_the_keys_that_get_asks_for_are_no_secrets() -> None:
    text = describe_command("get", {"name": "web", "keys": ["numprocesses"]})
    assert text == "get name='web' keys=['numprocesses']"


@pytest.mark.parametrize("quote", ["", "it's "])
def test_the_message_that_circusd_repeats_when_a_command_fails_is_left_out(quote: str) -> None:
    sent = encode_command(1, "set", {"options": {"env": {"TOKEN": f"{quote}hush"}}})
    reason = f"command {sent!r}: invalid literal: 'two'"
    error = CallError("set", {}, reason, 5)
    assert str(error) == "set: invalid literal: 'two'"
    assert error.reason == reason


def test_a_timeout_tells_command_reason_and_deadline() -> None:
    error = CallTimeout("list", {"name": "web"}, 5.0, "circusd cannot be reached")
    assert str(error) == "list name='web': circusd cannot be reached within 5 s"
    assert error.reply is None
    assert error.retryable
