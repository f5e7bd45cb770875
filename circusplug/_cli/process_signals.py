# What signals mean to a process that circusplug owns, besides those that the host takes while it
# runs (_host/signals.py): before the host runs, and when it has ended.
#
# Owner: the main thread.

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from .. import _logs
from .._errors import HostError
from .._host.arbiter import Arbiter
from .._signals import Handler, ignore, take_signal


class _Signals:
    """Who has the say just now."""

    def __init__(self, arbiter: Arbiter) -> None:
        self._arbiter = arbiter
        self._host_has_it = False
        self._beside_host: int | None = None  # a signal that came when the host had no handlers

    @contextlib.contextmanager
    def host_has_it(self) -> Iterator[None]:
        """From now on it is the host that is to be stopped; once it has ended, nothing is."""
        self._host_has_it = True
        try:
            yield
        except HostError:
            if self._beside_host is not None:  # it was stopped before it began
                raise SystemExit(128 + self._beside_host) from None
            raise

    def end(self, number: int, frame: FrameType | None) -> None:
        """End the set-up, and what it has started with it."""
        if not self._host_has_it:
            raise SystemExit(128 + number)
        self._beside_host = number
        # On a thread: the main one may hold the lock that this takes.
        threading.Thread(target=self._arbiter.stop, daemon=True).start()

    def show_stacks(self, number: int, frame: FrameType | None) -> None:
        """Log what each thread does, and stop."""
        # On a thread: the main one may hold a lock that logging needs.
        threading.Thread(target=self._show_stacks, daemon=True).start()

    def reopen(self, number: int, frame: FrameType | None) -> None:
        """Open the log file anew."""
        threading.Thread(target=_logs.reopen, daemon=True).start()

    def _show_stacks(self) -> None:
        frames = sys._current_frames()
        for thread in threading.enumerate():
            stack = _logs.plugin_stack(frames.get(thread.ident or 0))
            _logs.logger.error("%s is at\n%s", thread.name, stack)
        self._arbiter.stop()


@contextlib.contextmanager
def signals_of_process(arbiter: Arbiter) -> Iterator[_Signals]:
    """Handle a process's signals for a ``with`` block in which a host is set up and run."""
    signals = _Signals(arbiter)
    handlers: dict[int, Handler] = {
        signal.SIGINT: signals.end,
        signal.SIGTERM: signals.end,
        signal.SIGHUP: ignore,
        signal.SIGQUIT: signals.show_stacks,
        signal.SIGUSR1: signals.reopen,
        signal.SIGUSR2: ignore,
    }
    # They stay when the block is over: what comes then shall not turn a clean end into another.
    for number, handler in handlers.items():
        take_signal(number, handler)
    try:
        yield signals
    finally:
        signals._host_has_it = True
