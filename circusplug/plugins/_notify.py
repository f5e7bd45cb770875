# Messages by the library apprise, to whatever it knows. It is imported only if it is asked for.
#
# Owner: the thread that `run` is called on; apprise ends by its own time-outs.

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from circusplug import SpecError

from ._delivery import DeliveryError, Receiver
from ._message import Message

if TYPE_CHECKING:
    from apprise import NotifyBase


def notify_receivers(urls: Sequence[str]) -> Iterator[Receiver]:
    """The receivers that some URLs name, which are secrets.

    Raises:
        SpecError: apprise does not know such a URL.
    """
    import apprise

    for number, url in enumerate(urls, 1):
        with _overheard():  # it would log the URL
            target = apprise.Apprise.instantiate(url)
        if target is None:
            text = f"'notify': URL number {number} is none that apprise knows"
            raise SpecError(text, key="notify")
        to = f"notify {number} ({url.partition(':')[0]})"
        yield Receiver(to, functools.partial(NotifyDelivery, to, target))


class NotifyDelivery:
    """Sends a message by apprise.

    Args:
        to: Where, for messages.
        target: What apprise has made of the URL.
        message: The message.
    """

    def __init__(self, to: str, target: NotifyBase, message: Message) -> None:
        self.to = to
        self._target = target
        self._message = message

    def run(self) -> None:
        from apprise import NotifyType

        kind = NotifyType.SUCCESS if self._message.is_good else NotifyType.WARNING
        with _overheard() as said:
            # Not `Apprise.notify`, which has threads of its own that stay.
            done = self._target.notify(self._message.text, self._message.subject, kind)
        if not done:
            raise DeliveryError(said[0] if said else "apprise could not send it")

    def abort(self) -> None:
        """Nothing to do: apprise's own time-outs end it."""


@contextlib.contextmanager
def _overheard() -> Iterator[list[str]]:
    """Take what apprise says on this thread, instead of having it in the log."""

    def listen(record: logging.LogRecord) -> bool:
        if record.thread == own and record.levelno >= logging.WARNING:
            said.append(record.getMessage())
        return record.thread != own

    said: list[str] = []
    own, logger = threading.get_ident(), logging.getLogger("apprise")
    logger.addFilter(listen)
    try:
        yield said
    finally:
        logger.removeFilter(listen)
