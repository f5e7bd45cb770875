# Replies that a test keeps back and lets go when it likes.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._core import Core
from ._script import Delivery


class Hold:
    """Replies that a `FakeCircusd` keeps back."""

    def __init__(
        self, core: Core, command: str | None, count: int | None, properties: Mapping[str, Any]
    ) -> None:
        self._core = core
        self._released = False
        self._kept: list[Delivery] = []
        core.add_fault(self._keep, command, count, properties)

    @property
    def count(self) -> int:
        """How many replies are kept now."""
        return len(self._kept)

    def wait(self, count: int = 1, timeout: float = 5.0) -> None:
        """Wait until *count* replies or more are kept.

        Raises:
            AssertionError: It took longer than *timeout* seconds.
        """
        self._core.wait(
            lambda: self.count >= count or None,
            timeout,
            lambda: f"{count} replies to hold, there are {self.count}",
        )

    def release(self) -> None:
        """Send the replies kept, in order, and keep no further ones."""
        self._core.run(self._send_all)

    def _keep(self, delivery: Delivery) -> None:
        if self._released:
            delivery.send()
        else:
            self._kept.append(delivery)
            self._core.notify()

    def _send_all(self) -> None:
        self._released = True
        kept, self._kept = self._kept, []
        for delivery in kept:
            delivery.send()
