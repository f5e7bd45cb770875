# Orders to a host: what somebody wants done on its supervising thread, and until when he waits.
#
# Owner: who gives an order makes it and waits on its future; all else is the supervising thread's.

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .._logs import logger
from .managed_plugin import ManagedPlugin
from .supervisor import Supervisor


class Order(NamedTuple):
    """Something to be done on the supervising thread, and where its outcome goes.

    Attributes:
        action: Returns what the order returns, and the plugins that have to settle before.
    """

    action: Callable[[Supervisor], tuple[Any, Sequence[ManagedPlugin]]]
    done: concurrent.futures.Future[Any]


class PendingOrder:
    """An order that is done as soon as its plugins have settled.

    Attributes:
        look_at: When to look again if no news comes before, in seconds of `time.monotonic`.
    """

    def __init__(
        self, done: concurrent.futures.Future[Any], value: Any, plugins: Sequence[ManagedPlugin]
    ) -> None:
        self.done = done
        self.look_at: float | None = None
        self._value = value
        self._plugins = list(plugins)

    def is_over(self, now: float) -> bool:
        """Tell who waits for it, if all its plugins have settled by now."""
        while self._plugins and self._plugins[-1].settled(now):
            self._plugins.pop()
        if self._plugins:
            self.look_at = self._plugins[-1].settles_by
            return False
        self.done.set_result(self._value)
        return True


def log_failure(done: concurrent.futures.Future[Any]) -> None:
    """Tell of an order that failed and that nobody waits for."""
    error = done.exception()
    if error is not None:
        logger.error("what a plugin asked of its host was not done: %s", error)
