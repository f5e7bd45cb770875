# What is still to be delivered to one receiver: in order, one at a time, tried again with growing
# delays, in bounded memory.
#
# Owner: the plugin's thread; `left` may be asked when that is parked.

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

from ._alert_options import AlertOptions
from ._delivery import DeliveryError, Receiver, deliver
from ._message import Message

#: How many messages wait for a receiver; if there are more, the oldest is given up.
LIMIT = 100
#: The longest delay before another try, in seconds.
_LONGEST_DELAY = 3600.0


class Outbox:
    """The messages that wait for a receiver.

    Args:
        receiver: Gets them.
        options: How long a try may take, how many there are, and when the second one is.
        loop: The plugin's.
        logger: Says what was not delivered.
    """

    def __init__(
        self, receiver: Receiver, options: AlertOptions, loop: Any, logger: logging.Logger
    ) -> None:
        self.to = receiver.to
        self._make = receiver.make
        self._options = options
        self._loop = loop
        self._logger = logger
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
        delay = self._options.retry_in
        for left in reversed(range(self._options.tries)):
            try:
                await deliver(self._make(message), self._options.deadline)
            except DeliveryError as error:
                if error.final or not left:
                    self._logger.error("alert not sent: %s", error)
                    return
                self._logger.warning("alert not sent, next try in %g s: %s", delay, error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, max(self._options.retry_in, _LONGEST_DELAY))
            else:
                return
