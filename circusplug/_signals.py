# Signal handlers that a forked process does not inherit, and what a second Ctrl-C means.
#
# Owner: the main thread, which is the only one that may set a signal handler.

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

#: Two SIGINTs closer together than this, in seconds, are one: `timeout -s INT` sends one
#: signal twice, to the process and to its group. On a busy machine they drift apart.
_SAME_SIGNAL = 0.2

Handler = Callable[[int, FrameType | None], object]

#: The signals whose handlers a forked process must not inherit.
_taken: set[int] = set()


def take_signal(number: int, handler: Handler) -> Any:
    """Handle a signal in this process, but in no process that is forked from it.

    A plugin's helper process would otherwise not end when it is told to, but tell us.

    Returns:
        The handler before, for `give_back_signal`.
    """
    _hook_forks()
    _taken.add(number)
    return signal.signal(number, handler)


def give_back_signal(number: int, before: Any) -> None:
    """Put back the handler that `take_signal` returned; None is one that is not Python's."""
    signal.signal(number, before if before is not None else signal.SIG_DFL)
    _taken.discard(number)


@contextlib.contextmanager
def handling(handlers: Mapping[int, Handler]) -> Iterator[None]:
    """Handle signals for a ``with`` block, as `take_signal` does."""
    before = {number: take_signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            give_back_signal(number, handler)


def is_free(number: int) -> bool:
    """Whether a signal does what it does when nobody has said anything."""
    return signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


class SecondInterrupt:
    """To be called for each SIGINT: the second one ends the process at once."""

    def __init__(self) -> None:
        self._first = 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        if self._first and now - self._first > _SAME_SIGNAL:
            if select.select([], [2], [], 0)[1]:  # not where nobody reads
                os.write(2, b"interrupted twice: ending at once\n")
            os._exit(130)
        self._first = self._first or now


def ignore(number: int, frame: FrameType | None) -> None:
    """Let a signal pass. Unlike SIG_IGN, programs that are started do not inherit it."""


@functools.cache
def _hook_forks() -> None:
    os.register_at_fork(after_in_child=_forget)


def _forget() -> None:
    for number in _taken:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)
    if _taken:
        signal.set_wakeup_fd(-1)
    _taken.clear()
