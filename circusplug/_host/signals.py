# The signals of a host that runs on the main thread: SIGINT and SIGTERM stop it, a second
# SIGINT ends the process at once, SIGHUP reads the configuration again.
#
# Owner: the main thread, which is the only one that Python runs signal handlers on.

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from .._plugin.stop_guard import StopGuard
from .._signals import give_back_signal, take_signal

#: Two SIGINTs closer together than this, in seconds, are one: `timeout -s INT` sends one
#: signal twice, to the process and to its group. On a busy machine they drift apart.
_SAME_SIGNAL = 0.2


class HostSignals:
    """Turns signals into calls, for as long as `installed` lasts.

    Args:
        guard: Ends a `handle_stop` by way of SIGTERM, so it is asked first.
        on_stop: Called for SIGINT and SIGTERM; must be fit for a signal handler.
        on_reload: Called for SIGHUP; the same.
    """

    def __init__(
        self, guard: StopGuard, on_stop: Callable[[], object], on_reload: Callable[[], object]
    ) -> None:
        self._guard = guard
        self._on_stop = on_stop
        self._on_reload = on_reload
        self._interrupted_at = 0.0

    @contextlib.contextmanager
    def installed(self, wakeup_fd: int) -> Iterator[None]:
        """Handle signals where that is possible, on the main thread; undone at the end.

        Args:
            wakeup_fd: Gets a byte for each signal, which ends the wait of who reads it.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: take_signal(number, self._handle)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }
        wakeup = signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)
        self._guard.can_interrupt = True
        try:
            yield
        finally:
            self._guard.can_interrupt = False
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                give_back_signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM and self._guard.on_signal():
            return
        if number == signal.SIGHUP:
            self._on_reload()
            return
        if number == signal.SIGINT:
            now = time.monotonic()
            if self._interrupted_at and now - self._interrupted_at > _SAME_SIGNAL:
                if select.select([], [2], [], 0)[1]:  # not where nobody reads
                    os.write(2, b"interrupted twice: ending at once\n")
                os._exit(130)
            self._interrupted_at = self._interrupted_at or now
        self._on_stop()
