# The DEALER socket that a plugin's commands go through, and the commands that were sent over it.
#
# Owner: the plugin's thread.

from __future__ import annotations

import time
from collections.abc import Callable

import zmq

from .._wire.commands import Reply, decode_reply
from .._wire.endpoints import MAX_MESSAGE
from .calls import Call
from .status import Counters

#: As plain ints: looking up an enum's member costs as much as asking for the option.
_NOBLOCK = int(zmq.NOBLOCK)
_RCVMORE = int(zmq.RCVMORE)


class Channel:
    """One DEALER socket.

    Args:
        socket: The socket.
        counters: Where to count replies that are too large.
        max_message: The largest reply that is accepted, in bytes.
        clock: The `time` of the plugin's loop, which all deadlines are told by.

    Attributes:
        calls: The calls that wait for a reply, or for being sent again after a conflict, by id.
        watched: Whether the loop watches the socket for reading, and for writing.
    """

    __slots__ = (
        "_clock",
        "_counters",
        "_max_message",
        "_receive_limit",
        "_send_limit",
        "calls",
        "socket",
        "watched",
    )

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        counters: Counters,
        max_message: int = MAX_MESSAGE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.socket = socket
        self._counters = counters
        self._max_message = max_message
        self.calls: dict[int, Call] = {}
        self.watched = (False, False)
        # What SNDTIMEO and RCVTIMEO are set to, in milliseconds: setting them costs, and
        # they are nearly always the same.
        self._send_limit = self._receive_limit = -1

    def send(self, frame: bytes, until: float) -> None:
        """Send; if there is no connection, wait for one.

        Raises:
            zmq.Again: There is none by that time.
        """
        try:
            self.socket.send(frame, _NOBLOCK)
        except zmq.Again:
            milliseconds = max(0, int((until - self._clock()) * 1000))
            if self._send_limit != milliseconds:
                self.socket.setsockopt(zmq.SNDTIMEO, milliseconds)
                self._send_limit = milliseconds
            self.socket.send(frame)

    def receive(self, until: float) -> Reply | None:
        """Wait for one reply; None for what is none: not JSON, or more than one frame.

        Raises:
            zmq.Again: There is none by that time.
        """
        milliseconds = int((until - self._clock()) * 1000)
        if milliseconds < 0:
            raise zmq.Again
        if self._receive_limit != milliseconds:
            self.socket.setsockopt(zmq.RCVTIMEO, milliseconds)
            self._receive_limit = milliseconds
        return self.receive_now(0)

    def receive_now(self, flags: int = _NOBLOCK) -> Reply | None:
        """The same, without waiting."""
        socket = self.socket
        frame = socket.recv(flags)
        if socket.getsockopt(_RCVMORE):
            while socket.getsockopt(_RCVMORE):
                socket.recv()
            return None
        reply = decode_reply(frame)
        if len(frame) > self._max_message:
            self._counters.too_large += 1
            return reply and too_large(reply.get("id"), len(frame), self._max_message)
        return reply


def too_large(reply_id: object, size: int, limit: int) -> Reply:
    """What a call gets in the place of a reply that is larger than is accepted."""
    reason = f"its reply of {size} bytes is larger than host.max_message ({limit} bytes)"
    return {"id": reply_id, "status": "error", "reason": reason}
