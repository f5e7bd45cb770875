# What is still to be delivered to one receiver: in order, one at a time, tried again with growing
# delays, in bounded memory.
#
# Owner: the plugin's thread; `left` may be asked when that is parked.

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ._delivery import Delivery, DeliveryError, deliver
from ._message import Message

#: How many messages wait for a receiver; if there are more, the oldest is given up.
LIMIT = 100
#: The longest delay before another try, in seconds.
_LONGEST_DELAY = 3600.0


@dataclass(frozen=True)
class Receiver:
    """Somebody or something that gets messages.

    Attributes:
        to: What it is, for messages.
        make: Makes a delivery of a message to it.
    """

    to: str
    make: Callable[[Message], Delivery]


class Outbox:
    """The messages that wait for a receiver.

    Args:
        receiver: Gets them.
        loop: The plugin's.
        logger: Says what was not delivered.
        deadline: How long a try may take, in seconds.
        retry_in: How long after a failure the first other try is, in seconds; then twice that.
        tries: How many tries a message has.
    """

    def __init__(
        self,
        receiver: Receiver,
        loop: Any,
        logger: logging.Logger,
        deadline: float,
        retry_in: float,
        tries: int,
    ) -> None:
        self.to = receiver.to
        self._make = receiver.make
        self._loop = loop
        self._logger = logger
        self._deadline = deadline
        self._retry_in = retry_in
        self._tries = tries
        self._messages: deque[Message] = deque()  # the first one is under way

    @property
    def left(self) -> int:
        """How many messages have not been delivered."""
        return len(self._messages)

    def put(self, message: Message) -> None:
        """Have a message delivered."""
        self._messages.append(message)
        if len(self._messages) == 1:
            self._loop.add_callback(self._empty)
        elif len(self._messages) > LIMIT:
            lost = self._messages[1]
            del self._messages[1]
            self._logger.error("%s: %r is not sent: %d messages wait", self.to, lost.subject, LIMIT)

    async def _empty(self) -> None:
        while self._messages:
            await self._send(self._messages[0])
            self._messages.popleft()

    async def _send(self, message: Message) -> None:
        delay = self._retry_in
        for left in reversed(range(self._tries)):
            try:
                await deliver(self._make(message), self._deadline)
            except DeliveryError as error:
                if error.final or not left:
                    self._logger.error("alert not sent: %s", error)
                    return
                self._logger.warning("alert not sent, next try in %g s: %s", delay, error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, max(self._retry_in, _LONGEST_DELAY))
            else:
                return
