# circusd's command language, from the side of who answers: requests in, replies out. A host's
# control endpoint and the fake circusd of the test kit both speak it by this. No sockets.
#
# Owner: none, it holds nothing.

from __future__ import annotations

import fnmatch
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from .._errors import COMMAND_ERROR, INVALID_JSON, MESSAGE_ERROR, UNKNOWN_COMMAND, CircusdError
from .._wire.commands import CAST, Reply
from .._wire.events import load_json

#: circusd's number for a command that failed while its sender was waiting.
SERVER_ERROR = 6
#: How much of an unknown name is repeated.
_LONGEST_NAME = 100

Properties = Mapping[str, Any]
#: A reply without its id and time, or one that comes later.
Answer = Reply | Future[Reply]
Subject = TypeVar("Subject")
#: A command's function, and the properties that it insists on.
Handler = tuple[Callable[[Subject, Properties], Answer], tuple[str, ...]]


class RefusedError(CircusdError):
    """A command that is answered with an error.

    Attributes:
        reason: The answer's words.
        errno: circusd's error number.
    """

    def __init__(self, reason: str, errno: int = MESSAGE_ERROR) -> None:
        super().__init__(reason)
        self.reason = reason
        self.errno = errno


@dataclass(frozen=True)
class Request:
    """A command as it was received.

    Attributes:
        command: Its name as sent.
        properties: What was sent with it; nobody has looked at it yet.
        id: What the reply echoes; None if there was none.
        kind: Its ``msg_type``.
    """

    command: str
    properties: Any
    id: Any = None
    kind: Any = None

    @property
    def wants_reply(self) -> bool:
        """Whether anybody waits for a reply; nobody does for a cast as Circus sends it."""
        return bool(self.kind != CAST)


def read_request(frame: bytes) -> Request | Reply | None:
    """Read a request.

    Returns:
        The request; or the whole reply, if it is not JSON; or None for what circusd does not
        answer either: an empty frame, and JSON that is no command.
    """
    if not frame.strip():
        return None
    try:
        said = load_json(frame)
    except ValueError:
        return {**error_reply("json invalid", INVALID_JSON), "time": time.time(), "id": None}
    name = said.get("command") if isinstance(said, dict) else None
    if not isinstance(name, str):
        return None
    return Request(name, said.get("properties", {}), said.get("id"), said.get("msg_type"))


def answer(
    handlers: Mapping[str, Handler[Subject]],
    subject: Subject,
    command: str,
    properties: Any,
    hint: Callable[[str], str] = lambda _: "",
) -> Answer:
    """Carry out a command and return the reply to it, without its id and time; never raises.

    Args:
        handlers: The commands that there are, by lower-cased name.
        subject: What the handlers act on.
        command: The command's name, in any case.
        properties: Its properties.
        hint: What to say besides of an unknown command.
    """
    handler = handlers.get(command.lower())
    if handler is None:
        reason = f"unknown command: {shortened(command)!r}{hint(command)}"
        return error_reply(reason, UNKNOWN_COMMAND)
    function, required = handler
    try:
        for name in required:
            if name not in properties:
                raise RefusedError(f"message invalid {name!r} is missing")
        outcome = function(subject, properties)
    except RefusedError as refusal:
        return error_reply(refusal.reason, refusal.errno)
    except Exception as error:  # noqa: BLE001 - what properties of any type make it trip over
        # circusd doesn't check its properties either, and answers with what it tripped over.
        return error_reply(f"command {command!r}: {error}", COMMAND_ERROR)
    return outcome if isinstance(outcome, Future) else {"status": "ok", **outcome}


def error_reply(reason: str, errno: int) -> Reply:
    """The reply for an error."""
    return {"status": "error", "reason": reason, "tb": None, "errno": errno}


def shortened(sent: Any) -> str:
    """What somebody sent, as an answer repeats it."""
    text = str(sent)
    return text if len(text) <= _LONGEST_NAME else text[:_LONGEST_NAME] + "..."


def reply_frame(reply: Reply, request_id: Any) -> bytes:
    """A reply as it is sent."""
    return json.dumps({"time": time.time(), "id": request_id, **reply}).encode()


def matching(names: Iterable[str], wanted: str, match: Any = "glob") -> list[str]:
    """The names that `wanted` means, in any case: by ``simple``, ``glob`` or ``regex`` match.

    Raises:
        RefusedError: There is no such way to match, or no sense in the pattern.
    """
    if not isinstance(wanted, str):
        raise RefusedError(f"command: name {shortened(wanted)} is no text", COMMAND_ERROR)
    lowered = wanted.lower()
    if match == "simple":
        return [name for name in names if name.lower() == lowered]
    if match not in ("glob", "regex"):
        raise RefusedError(f"unknown match method {shortened(match)}")
    try:
        pattern = re.compile(fnmatch.translate(lowered) if match == "glob" else lowered)
    except re.error as error:
        reason = f"command: {shortened(wanted)!r} is no pattern: {error}"
        raise RefusedError(reason, COMMAND_ERROR) from None
    return [name for name in names if pattern.match(name.lower())]
