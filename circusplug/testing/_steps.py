# Work of circusd's that takes time: coroutines that wait for processes to end and for pauses to
# pass. What need not wait is done at once, by whoever starts it.
#
# Owner: the serving thread of the fake circusd, which alone starts them and has them go on.

from __future__ import annotations

from collections.abc import Coroutine, Generator, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Pending(Future[T]):
    """Something that is to come, which a coroutine here may await."""

    def __await__(self) -> Generator[Pending[Any], None, T]:
        if not self.done():
            yield self
        return self.result()


def run(steps: Coroutine[Pending[Any], None, T]) -> Pending[T]:
    """Run a coroutine as far as it goes at once, and on when that has come what it awaits.

    Returns:
        Its outcome.
    """
    outcome: Pending[T] = Pending()

    def go(_: object = None) -> None:
        try:
            awaited = steps.send(None)
        except StopIteration as end:
            outcome.set_result(end.value)
        except Exception as error:  # noqa: BLE001 - for who awaits it
            outcome.set_exception(error)
        else:
            awaited.add_done_callback(go)

    go()
    return outcome


async def all_of(pending: Iterable[Pending[T]]) -> list[T]:
    """Wait for all, and return what came of each."""
    return [await each for each in [*pending]]
