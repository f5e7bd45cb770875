# Orders to a host: what somebody wants done on its supervising thread, and until when he waits.
#
# Owner: who gives an order makes it and waits on its future; all else is the supervising thread's.

from __future__ import annotations

import concurrent.futures
import time
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


class _Pending(NamedTuple):
    done: concurrent.futures.Future[Any]
    value: Any
    plugins: list[ManagedPlugin]
    imported: bool

    def is_over(self, now: float) -> bool:
        while self.plugins and self.plugins[-1].settled(now, self.imported):
            self.plugins.pop()
        return not self.plugins


class PendingOrders:
    """Orders that are done as soon as their plugins have settled."""

    def __init__(self) -> None:
        self._orders: list[_Pending] = []

    def add(
        self,
        done: concurrent.futures.Future[Any],
        value: Any,
        plugins: Sequence[ManagedPlugin],
        imported: bool = False,
    ) -> None:
        """Have a future get a value when plugins have settled; see `ManagedPlugin.settled`."""
        self._orders.append(_Pending(done, value, list(plugins), imported))

    def settle(self) -> None:
        """Tell those who wait for plugins that have settled by now."""
        now = time.monotonic()
        over = [order for order in self._orders if order.is_over(now)]
        self._orders = [order for order in self._orders if order.plugins]
        for order in over:
            order.done.set_result(order.value)

    def next_look(self) -> float | None:
        """When `settle` is due if no news comes before, in seconds of `time.monotonic`."""
        times = [order.plugins[-1].settles_by(order.imported) for order in self._orders]
        return min((moment for moment in times if moment is not None), default=None)

    def give_up(self) -> list[concurrent.futures.Future[Any]]:
        """Forget all; returns the futures of those who still wait."""
        waiting = [order.done for order in self._orders]
        self._orders = []
        return waiting


def log_failure(done: concurrent.futures.Future[Any]) -> None:
    """Tell of an order that failed and that nobody waits for."""
    error = done.exception()
    if error is not None:
        logger.error("what a plugin asked of its host was not done: %s", error)
