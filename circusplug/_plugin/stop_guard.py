# Ending a `handle_stop` that does not return, when it runs on the main thread: a timer makes
# the main thread's own signal handler raise inside it. Without signals (a host in the
# background) nothing can be done but to say where it hangs.
#
# Owner: the supervising thread sets `_within`; the timer's thread only reads it.

from __future__ import annotations

import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable

from .._logs import logger

#: How long one `handle_stop` may take when the time for all of them is over, in seconds: for one
#: that behaves, on a machine that is busy.
_LEAST = 1.0
#: The same once one that came later has used that up: many that hang shall not hold up the host.
_LEAST_AFTERWARDS = 0.1


class StopOverrun(BaseException):
    """Raised inside a `handle_stop` whose time is over. Not an Exception, so as to get out."""


class StopGuard:
    """Runs `handle_stop` calls under the host's deadline for stopping.

    Args:
        seconds: How long one call may take, unless `begin` has set a deadline for all.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._deadline: float | None = None
        self._least = _LEAST
        self._within = False
        self._took_too_long = False
        self._overrun = False
        self._runs_on: int | None = None
        self.can_interrupt = False

    def begin(self, seconds: float) -> None:
        """All calls from now on have to end within `seconds`.

        Each has one second at least, until one of them has used that up.
        """
        self.seconds = seconds
        self._deadline = time.monotonic() + seconds

    def run(self, call: Callable[[], object]) -> None:
        """Run a call; one that takes too long is ended by an exception, where that is possible.

        Raises:
            TimeoutError: The call took too long and was ended.
        """
        seconds, late = self.seconds, False
        if self._deadline is not None:
            left = self._deadline - time.monotonic()
            seconds, late = max(self._least, min(seconds, left)), left <= 0
        thread = threading.current_thread()
        timer = threading.Timer(seconds, self._time_is_over, (thread,))
        timer.daemon = True
        self._took_too_long = False
        self._within = True
        self._runs_on = threading.get_ident()
        try:
            timer.start()
            call()
        except StopOverrun:
            raise TimeoutError(f"handle_stop did not return within {seconds:.3g} s") from None
        finally:
            self._within = False
            timer.cancel()
            timer.join()
            if late and self._took_too_long:
                self._least = _LEAST_AFTERWARDS

    @property
    def running_here(self) -> bool:
        """Whether such a call is under way on the calling thread."""
        return self._within and self._runs_on == threading.get_ident()

    def _time_is_over(self, thread: threading.Thread) -> None:
        self._took_too_long = True
        frame = sys._current_frames().get(thread.ident or 0)
        where = "".join(traceback.format_stack(frame)).rstrip() if frame else ""
        logger.error("a handle_stop takes too long; it is at\n%s", where)
        if self._within and self.can_interrupt and thread is threading.main_thread():
            self._overrun = True
            signal.pthread_kill(thread.ident or 0, signal.SIGTERM)

    def on_signal(self) -> bool:
        """To be asked by the signal handler first: whether the signal was the guard's.

        Raises:
            StopOverrun: It was, and the call still runs.
        """
        overrun, self._overrun = self._overrun, False
        if overrun and self._within:
            raise StopOverrun
        return overrun
