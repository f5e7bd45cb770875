# Handlers of signals that a forked process does not inherit.
#
# Owner: the main thread, which is the only one that may set a signal handler.

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

#: The signals whose handlers a forked process must not inherit.
_taken: set[int] = set()


def take_signal(number: int, handler: Callable[[int, FrameType | None], object]) -> Any:
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
