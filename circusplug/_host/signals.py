# The signals of a host that runs on the main thread: SIGINT and SIGTERM stop it, a second
# SIGINT ends the process at once, SIGHUP reads the configuration again. A SIGHUP because the
# terminal is gone is an end.
#
# Owner: the main thread, which is the only one that Python runs signal handlers on.

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from .._signals import SecondInterrupt, handling


class HostSignals:
    """Turns signals into calls, for as long as `installed` lasts.

    Args:
        on_stop: Called for SIGINT and SIGTERM; must be fit for a signal handler.
        on_reload: Called for SIGHUP; the same.
    """

    def __init__(self, on_stop: Callable[[], object], on_reload: Callable[[], object]) -> None:
        self._on_stop = on_stop
        self._on_reload = on_reload
        self._second_interrupt = SecondInterrupt()
        self._had_terminal = False

    @contextlib.contextmanager
    def installed(self, wakeup_fd: int) -> Iterator[None]:
        """Handle signals where that is possible, on the main thread; undone at the end.

        Args:
            wakeup_fd: Gets a byte for each signal, which ends the wait of who reads it.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._had_terminal = _has_terminal()
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        with handling(dict.fromkeys(numbers, self._handle)):
            wakeup = signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)
            try:
                yield
            finally:
                signal.set_wakeup_fd(wakeup)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP and not (self._had_terminal and not _has_terminal()):
            self._on_reload()
            return
        if number == signal.SIGINT:
            self._second_interrupt()
        self._on_stop()


def _has_terminal() -> bool:
    """Whether this process has a terminal that could be opened."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
