# One command under way: what was asked, how long it may take, whom to tell the outcome.
#
# Owner: the plugin's thread, but for a Call that another thread makes: that thread lets go of it
# when it hands it over, and only reads it from then on.

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .._errors import CallTimeout, PluginStateError
from .._wire.commands import CALL_TIMEOUT, WAITING_TIMEOUT, Reply, error_from_reply
from .conflict_retry import FIRST_DELAY

if TYPE_CHECKING:
    from .channel import Channel

#: Why a call had no reply: there was no connection to send it over.
UNREACHABLE = "circusd cannot be reached"
#: Why a command is not sent before a plugin's start and after its end.
NOT_CONNECTED = "the plugin is not connected (not started yet, or stopped)"

#: The longest deadline, or patience, in seconds; longer ones are cut: libzmq counts milliseconds in
#: 31 bits, and a thread cannot wait for as long as one likes.
_LONGEST_TIMEOUT = 24 * 86400.0


class Call:
    """One command under way.

    Args:
        command: The command's name.
        properties: Its properties.
        timeout: How long it may take, in seconds from now; None: what is usual for it.
        patience: How long it is sent again after conflicts, in seconds from now, with a `timeout`
            for each try; None: as long as the one `timeout` allows.
        is_cast: Whether its sender waits only until it is sent.
        clock: The `time` of the plugin's loop.

    Attributes:
        channel: Where it was sent; None if it was not, or is to be sent again.
        conflict: circusd's reply, if that was a conflict and the command will be sent again.
        on_done: Told the outcome, once.
        last_moment: When it is over at the latest, by that clock.
        delay: How long to wait before it is sent again after the next conflict, in seconds.
        timer: Runs at the deadline, or when the command is to be sent again.
    """

    # What only some calls need; the others do not pay for setting it.
    channel: Channel | None = None
    conflict: Reply | None = None
    delay = FIRST_DELAY
    frame = b""
    id = 0
    on_done: Callable[[Reply | None, Exception | None], object] | None = None
    timer: asyncio.TimerHandle | None = None

    def __init__(
        self,
        command: str,
        properties: Mapping[str, Any],
        timeout: float | None = None,
        patience: float | None = None,
        is_cast: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.command = command
        self.properties = properties
        self.is_cast = is_cast
        self.patience = None if patience is None else min(patience, _LONGEST_TIMEOUT)
        # A cast with "waiting" or without need only be sent.
        self._limit({} if is_cast else properties, timeout, self.patience)
        self.last_moment = self.deadline + (self.patience or 0.0)

    def _limit(
        self, properties: Mapping[str, Any], timeout: float | None, patience: float | None
    ) -> None:
        self.timeout, self.deadline, self.patient_until = limits(
            properties, timeout, patience, self._clock()
        )

    def allow_reply(self) -> None:
        """Give a cast, now that it is sent, the time that its reply may take."""
        self.patience = CALL_TIMEOUT
        self._limit(self.properties, None, self.patience)

    @property
    def now(self) -> float:
        """What its clock says."""
        return self._clock()

    @property
    def remaining(self) -> float:
        """How long it may take still, in seconds."""
        return max(0.0, self.deadline - self._clock())

    def timed_out(self, reason: str) -> CallTimeout:
        """The error for a call that took too long."""
        return CallTimeout(self.command, self.properties, self.timeout, reason)


def limits(
    properties: Mapping[str, Any], timeout: float | None, patience: float | None, now: float
) -> tuple[float, float, float]:
    """How long a command may take, in seconds, and, by the clock that says *now*, when that is
    over and when it is no longer sent again after a conflict.
    """
    if timeout is None:
        timeout = WAITING_TIMEOUT if properties.get("waiting") else CALL_TIMEOUT
    if timeout > _LONGEST_TIMEOUT:
        timeout = _LONGEST_TIMEOUT
    deadline = now + timeout
    return timeout, deadline, deadline if patience is None else now + patience


def cannot_send(command: str, why: str = NOT_CONNECTED) -> PluginStateError:
    """The error for a command of a plugin that has no connection, or none any more."""
    return PluginStateError(f"cannot send {command!r}: {why}")


def not_waited_for(call_id: int) -> Reply:
    """The reply to a command that somebody else will see the end of."""
    return {"status": "ok", "time": time.time(), "id": call_id}


def raise_for_status(command: str, properties: Mapping[str, Any], reply: Reply) -> Reply:
    """Return a reply, or raise the error it tells.

    Raises:
        CallError: circusd answered with an error; CallConflict if trying again may help.
    """
    error = error_from_reply(command, properties, reply)
    if error is not None:
        raise error
    return reply
