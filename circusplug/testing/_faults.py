# What a test can have go wrong with the replies of a FakeCircusd. The command takes effect all the
# same.
#
# Owner: the rules are the serving thread's; the methods hand them over and may be called from any.

from __future__ import annotations

from typing import Any

from ._core import Core
from ._hold import Hold
from ._script import Delivery


class Faults:
    """The faults of the wire; a base class of `FakeCircusd`."""

    _core: Core

    def silence(
        self, command: str | None = None, /, *, count: int | None = None, **properties: Any
    ) -> None:
        """Lose the replies to a command.

        Args:
            command: The command's name; None for any.
            count: How many replies; None for all to come.
            properties: Properties that the command must have.
        """
        self._core.add_fault(lambda _delivery: None, command, count, properties)

    def hold(
        self, command: str | None = None, /, *, count: int | None = None, **properties: Any
    ) -> Hold:
        """Keep the replies to a command until `Hold.release`; arguments as for `silence`."""
        return Hold(self._core, command, count, properties)

    def late(
        self, command: str | None, seconds: float, /, *, count: int | None = None, **properties: Any
    ) -> None:
        """Send the replies to a command *seconds* later; other arguments as for `silence`.

        Prefer `hold`, which needs no guess at how long something takes.
        """

        def later(delivery: Delivery) -> None:
            self._core.call_later(seconds, delivery.send)

        self._core.add_fault(later, command, count, properties)

    def wrong_id(
        self,
        command: str | None = None,
        /,
        *,
        count: int | None = 1,
        instead: bool = True,
        **properties: Any,
    ) -> None:
        """Answer with another id, as if a late reply to an earlier command arrived.

        Args:
            command: The command's name; None for any.
            count: How many replies; None for all to come.
            instead: False: the right reply follows at once.
            properties: Properties that the command must have.
        """

        def confuse(delivery: Delivery) -> None:
            right = delivery.reply.get("id")
            delivery.send(id=right - 1 if isinstance(right, int) else f"not {right}")
            if not instead:
                delivery.send()

        self._core.add_fault(confuse, command, count, properties)

    def garbage(
        self,
        command: str | None = None,
        /,
        *,
        frame: bytes = b"\xff not json",
        count: int | None = 1,
        instead: bool = True,
        **properties: Any,
    ) -> None:
        """Answer with *frame*; other arguments as for `wrong_id`."""

        def spoil(delivery: Delivery) -> None:
            delivery.send_frame(frame)
            if not instead:
                delivery.send()

        self._core.add_fault(spoil, command, count, properties)

    def clear_faults(self) -> None:
        """End all faults. What is held stays so until its release."""
        self._core.run(self._core.script.faults.clear)
