# One command under way, and the DEALER socket that it goes through.
#
# Owner: both belong to the plugin's thread, but for a Call that another thread makes: that
# thread lets go of it when it hands it over, and only reads it from then on.

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import zmq

from .._errors import CallTimeout, PluginStateError
from .._wire.commands import CALL_TIMEOUT, WAITING_TIMEOUT, Reply, decode_reply, error_from_reply

#: Why a call had no reply: there was no connection to send it over.
UNREACHABLE = "circusd cannot be reached"

#: The longest deadline in seconds; longer ones are cut: libzmq counts milliseconds in 31 bits.
_LONGEST_TIMEOUT = 24 * 86400.0

#: As a plain int: looking up an enum's member costs as much as asking for the option.
_RCVMORE = int(zmq.RCVMORE)


class Call:
    """One command under way: what was asked, until when, on which channel, whom to tell.

    Args:
        command: The command's name.
        properties: Its properties.
        timeout: How long it may take, in seconds from now; None: what is usual for it.
        wants_reply: Whether it is a call, and not a cast.
    """

    # What only some calls need; the others do not pay for setting it.
    frame = b""
    channel: Channel | None = None
    on_done: Callable[[Reply | None, Exception | None], object] | None = None
    timer: asyncio.TimerHandle | None = None

    def __init__(
        self,
        command: str,
        properties: Mapping[str, Any],
        timeout: float | None,
        wants_reply: bool = True,
    ) -> None:
        self.command = command
        self.properties = properties
        self.timeout = seconds_for(properties, timeout)
        self.wants_reply = wants_reply
        self.deadline = time.monotonic() + self.timeout
        self.id = 0

    @property
    def remaining(self) -> float:
        """How long it may take still, in seconds."""
        return max(0.0, self.deadline - time.monotonic())

    def timed_out(self, reason: str) -> CallTimeout:
        """The error for a call that took too long."""
        return CallTimeout(self.command, self.properties, self.timeout, reason)


class Channel:
    """One DEALER socket, the calls open on it, and those it could not send yet."""

    __slots__ = ("calls", "receive_limit", "send_limit", "socket", "unsent")

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self.socket = socket
        self.calls: dict[int, Call] = {}
        self.unsent: dict[int, Call] = {}
        # What SNDTIMEO and RCVTIMEO are set to, in milliseconds: setting them costs, and
        # they are nearly always the same.
        self.send_limit = self.receive_limit = -1

    @property
    def open_calls(self) -> list[Call]:
        """The calls that wait for a reply, or to be sent."""
        return [*self.calls.values(), *self.unsent.values()]

    def limit_send(self, seconds: float) -> None:
        """Let a send take so long."""
        milliseconds = int(seconds * 1000)
        if self.send_limit != milliseconds:
            self.socket.setsockopt(zmq.SNDTIMEO, milliseconds)
            self.send_limit = milliseconds

    def limit_receive(self, seconds: float) -> None:
        """Let a receive take so long."""
        milliseconds = int(seconds * 1000)
        if self.receive_limit != milliseconds:
            self.socket.setsockopt(zmq.RCVTIMEO, milliseconds)
            self.receive_limit = milliseconds

    def receive(self, flags: int = 0) -> Reply | None:
        """One reply, or None for what is none: not JSON, or more than one frame.

        Raises:
            zmq.Again: There is none within the limit.
        """
        socket = self.socket
        frame = socket.recv(flags)
        if socket.getsockopt(_RCVMORE):
            while socket.getsockopt(_RCVMORE):
                socket.recv()
            return None
        return decode_reply(frame)

    def call_for(self, reply: Reply) -> Call | None:
        """The open call that a reply belongs to."""
        reply_id = reply.get("id")
        return self.calls.get(reply_id) if isinstance(reply_id, int) else None


def seconds_for(properties: Mapping[str, Any], timeout: float | None) -> float:
    """How long a call may take, in seconds: what was asked for, or what is usual."""
    if timeout is None:
        return WAITING_TIMEOUT if properties.get("waiting") else CALL_TIMEOUT
    return min(timeout, _LONGEST_TIMEOUT)


def cannot_send(command: str, why: str) -> PluginStateError:
    """The error for a command of a plugin that has no connection, or none any more."""
    return PluginStateError(f"cannot send {command!r}: {why}")


def raise_for_status(command: str, properties: Mapping[str, Any], reply: Reply) -> Reply:
    """Return a reply, or raise the error it tells.

    Raises:
        CallError: circusd answered with an error; CallConflict if trying again may help.
    """
    error = error_from_reply(command, properties, reply)
    if error is not None:
        raise error
    return reply
