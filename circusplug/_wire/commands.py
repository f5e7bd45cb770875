# Commands and casts to circusd, and its replies, as bytes. No zmq, no threads, no clock.
#
# A request is one JSON frame {"id", "command", "properties"}; with "msg_type": "cast" no
# reply is ever sent. A reply echoes the id and holds "status" and "time".

from __future__ import annotations

import json
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii as _quote
from typing import Any

from .._errors import COMMAND_ERROR, CallConflict, CallError
from .events import load_json

#: circusd's own defaults.
DEFAULT_ENDPOINT = "tcp://127.0.0.1:5555"
DEFAULT_PUBSUB_ENDPOINT = "tcp://127.0.0.1:5556"
DEFAULT_CHECK_DELAY = 5.0

#: How long a call waits for its reply, in seconds.
CALL_TIMEOUT = 5.0
#: The same for a call with ``waiting=True``, which circusd answers when the work is done:
#: twice the 30 s that circusd gives a process to stop, by default.
WAITING_TIMEOUT = 60.0

Reply = dict[str, Any]

_encode = json.JSONEncoder(separators=(",", ":")).encode


def encode_call(call_id: int, command: str, properties: Mapping[str, Any]) -> bytes:
    """Encode a command that wants a reply.

    Raises:
        CallError: A property cannot be said in JSON.
    """
    try:
        # Most properties are text, for which there is no need of a whole encoder.
        fields = ",".join([f"{_quote(key)}:{_quote(value)}" for key, value in properties.items()])
        head = f'{{"id":{call_id},"command":{_quote(command)},"properties":'
        return f"{head}{{{fields}}}}}".encode()
    except TypeError:
        return _to_frame(
            {"id": call_id, "command": command, "properties": properties}, command, properties
        )


def encode_cast(command: str, properties: Mapping[str, Any]) -> bytes:
    """Encode a command that wants no reply.

    Raises:
        CallError: A property cannot be said in JSON.
    """
    return _to_frame(
        {"command": command, "msg_type": "cast", "properties": properties}, command, properties
    )


def _to_frame(message: Mapping[str, Any], command: str, properties: Mapping[str, Any]) -> bytes:
    try:
        return _encode(message).encode()
    except (TypeError, ValueError) as error:
        raise CallError(command, properties, f"cannot be sent as JSON: {error}") from None


def decode_reply(frame: bytes) -> Reply | None:
    """Decode a reply frame; None if it is not a JSON object."""
    try:
        reply = load_json(frame)
    except (ValueError, RecursionError):
        return None
    return reply if isinstance(reply, dict) else None


def error_from_reply(command: str, properties: Mapping[str, Any], reply: Reply) -> CallError | None:
    """Turn an error reply into the exception for it; None if the reply is no error."""
    if reply.get("status") != "error":
        return None
    errno = reply.get("errno")
    reason = str(reply.get("reason", "unknown"))
    # A failing command has the same errno as a conflict, and only the words differ: "arbiter
    # is already running watcher_restart command", "arbiter is restarting...".
    conflict = errno == COMMAND_ERROR and reason.startswith("arbiter is ")
    error_class = CallConflict if conflict else CallError
    return error_class(
        command, properties, reason, errno if isinstance(errno, int) else None, reply
    )
