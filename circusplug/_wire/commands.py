# Commands and casts to circusd, and its replies, as bytes. No zmq, no threads, no clock.
#
# A request is one JSON frame {"id", "command", "properties"}. A reply echoes the id and holds
# "status" and "time". circusd never answers a request with "msg_type": "cast", so a cast of ours
# has another "msg_type", which circusd does not look at.

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

#: The "msg_type" of a cast that circusd does not answer, as Circus sends it.
CAST = "cast"
#: The "msg_type" of a cast that circusd answers.
ANSWERED_CAST = "answered cast"

Reply = dict[str, Any]

_encode = json.JSONEncoder(separators=(",", ":")).encode


def encode_command(
    command_id: int, command: str, properties: Mapping[str, Any], is_cast: bool = False
) -> bytes:
    """Encode a command that circusd answers.

    Raises:
        CallError: A property cannot be said in JSON.
    """
    kind = f'"msg_type":"{ANSWERED_CAST}",' if is_cast else ""
    head = f'{{"id":{command_id},{kind}"command":{_quote(command)},"properties":'
    try:
        # Most properties are text, for which there is no need of a whole encoder.
        fields = ",".join([f"{_quote(key)}:{_quote(value)}" for key, value in properties.items()])
        return f"{head}{{{fields}}}}}".encode()
    except TypeError:
        pass
    try:
        return f"{head}{_encode(properties)}}}".encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise CallError(command, properties, f"cannot be sent as JSON: {error}") from None


def decode_reply(frame: bytes) -> Reply | None:
    """Decode a reply frame; None if it is not a JSON object."""
    try:
        reply = load_json(frame)
    except ValueError:
        return None
    return reply if isinstance(reply, dict) else None


def is_conflict(reply: Reply) -> bool:
    """Whether circusd did nothing, because it is busy with a command that excludes this one."""
    # A failing command has the same errno, and only the words differ: "arbiter is already running
    # watcher_restart command", "arbiter is restarting...".
    return (
        reply.get("status") == "error"
        and reply.get("errno") == COMMAND_ERROR
        and str(reply.get("reason")).startswith("arbiter is ")
    )


def error_from_reply(command: str, properties: Mapping[str, Any], reply: Reply) -> CallError | None:
    """Turn an error reply into the exception for it; None if the reply is no error."""
    if reply.get("status") != "error":
        return None
    errno = reply.get("errno")
    error_class = CallConflict if is_conflict(reply) else CallError
    return error_class(
        command,
        properties,
        str(reply.get("reason", "unknown")),
        errno if isinstance(errno, int) else None,
        reply,
    )
