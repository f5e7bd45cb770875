# What a test tells a FakeCircusd to do otherwise: replies of the test's own, and faults in
# their delivery. Also the answer to a command when the test says nothing. Everything here
# happens on the serving thread, so nothing needs a lock.

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from circusplug._control.language import Answer, Handler, answer
from circusplug._wire.commands import Reply

from ._fleet import Fleet
from ._orders import ORDERS
from ._queries import QUERIES

_HANDLERS: Mapping[str, Handler[Fleet]] = {**QUERIES, **ORDERS}


@dataclass(frozen=True)
class Command:
    """A command that a FakeCircusd received.

    Attributes:
        command: Its name as sent, e.g. ``"incr"``.
        properties: What was sent with it, read-only.
        id: The id that the reply echoes; None if there was none.
        cast: Whether it was cast: nobody waits for the reply, which a plugin's `cast` gets.
    """

    command: str
    properties: Mapping[str, Any] = field(default_factory=dict, hash=False)
    id: Any = field(default=None, hash=False)
    cast: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "properties", MappingProxyType(dict(self.properties)))


#: A reply dict, or a function from the command's properties to one.
ReplySource = Reply | Callable[[Mapping[str, Any]], Reply]


@dataclass
class Delivery:
    """A reply about to be sent.

    Attributes:
        reply: The whole reply.
        send_frame: Sends a frame to the one who asked.
    """

    reply: Reply
    send_frame: Callable[[bytes], None]

    def send(self, **changes: Any) -> None:
        """Send the reply, with *changes* made to it."""
        self.send_frame(json.dumps({**self.reply, **changes}).encode())


#: Deals with a delivery in some wrong way.
Fault = Callable[[Delivery], None]


@dataclass
class Rule:
    """Something to do for certain commands.

    Attributes:
        command: The command's name, or None for any.
        match: Properties that the command must have, with their values.
        count: For how many commands it still holds; None is without end.
        source: The reply, if the rule gives one.
        fault: What happens to the reply, if the rule says so.
    """

    command: str | None
    match: Mapping[str, Any]
    count: int | None = None
    source: ReplySource | None = None
    fault: Fault | None = None

    def takes(self, command: Command) -> bool:
        """Whether the rule holds for *command*; counts it if so."""
        if self.count == 0 or not matches(command, self.command, None, self.match):
            return False
        if self.count is not None:
            self.count -= 1
        return True


class Script:
    """The rules of one FakeCircusd; of two that hold for a command, the newer one counts."""

    def __init__(self) -> None:
        self.replies: list[Rule] = []
        self.faults: list[Rule] = []

    def answer(self, fleet: Fleet, command: Command, properties: Any) -> Answer:
        """Return the reply to *command*, without its id and time; it may be to come."""
        for rule in reversed(self.replies):
            if rule.source is not None and rule.takes(command):
                source = rule.source
                reply = source(command.properties) if callable(source) else source
                return {"status": "ok", **reply}
        return answer(_HANDLERS, fleet, command.command, properties)

    def fault_for(self, command: Command) -> Fault | None:
        """Return the fault that the reply to *command* meets, or None."""
        for rule in reversed(self.faults):
            if rule.takes(command):
                return rule.fault
        return None


def matches(
    command: Command, name: str | None, cast: bool | None, properties: Mapping[str, Any]
) -> bool:
    """Whether *command* has that name and kind (None: any) and at least these properties."""
    if name is not None and command.command.lower() != name.lower():
        return False
    if cast is not None and command.cast != cast:
        return False
    return all(
        key in command.properties and command.properties[key] == value
        for key, value in properties.items()
    )
