# Ending a `handle_stop` that does not return, on the main thread: an interval timer raises in
# it, again and again until it has returned. On another thread (a host in the background that
# somebody else's thread stops) nothing can be done but to say where it hangs.
#
# Owner: the thread that calls `run`; its signal handler is called on the main thread, too.

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from .._logs import logger, plugin_stack

#: How long one `handle_stop` may take when the time for all of them is over, in seconds: for one
#: that behaves, on a machine that is busy.
_LEAST = 1.0
#: The same once one that came later has used that up: many that hang shall not hold up the host.
_LEAST_AFTERWARDS = 0.1
#: How long a `handle_stop` that was interrupted may take to clean up until it is interrupted
#: again, in seconds.
_AGAIN = 0.5
#: How often that is done before more is done to code that catches everything and tries again.
_GENTLY = 2
#: How long such code has then between two interruptions, in seconds.
_AT_LAST = 0.1


class StopOverrun(BaseException):
    """Raised inside a `handle_stop` whose time is over. Not an Exception, so as to get out."""


class StopGuard:
    """Runs `handle_stop` calls under a deadline.

    Args:
        seconds: How long one call may take, unless `begin` has set a deadline for all.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._deadline: float | None = None
        self._least = _LEAST
        self._running = False
        self._strikes = 0

    def begin(self, deadline: float) -> None:
        """All calls from now on have to end by `deadline`, in seconds of `time.monotonic`.

        Each has one second at least, until one of them has used that up.
        """
        self._deadline = deadline

    def run(self, call: Callable[[], object]) -> None:
        """Run a call; one that takes too long is ended by an exception, where that is possible.

        Raises:
            TimeoutError: The call took too long and was ended.
        """
        seconds, late = self.seconds, False
        if self._deadline is not None:
            left = self._deadline - time.monotonic()
            seconds, late = max(self._least, left), left <= 0
        self._strikes = 0
        try:
            with self._alarm(max(seconds, 0.001)):
                self._running = True
                try:
                    call()
                finally:
                    self._running = False
        except StopOverrun:
            raise TimeoutError(f"it did not return within {seconds:.3g} s") from None
        finally:
            if late and self._strikes:
                self._least = _LEAST_AFTERWARDS

    @contextlib.contextmanager
    def _alarm(self, seconds: float) -> Iterator[None]:
        """Interrupt what runs in the block when its time is over; undone at the end."""
        alone = threading.current_thread() is threading.main_thread()
        if not alone or signal.getitimer(signal.ITIMER_REAL)[0]:
            # Not the main thread, or its alarm is somebody else's, a test runner's for example.
            with self._report(seconds):
                yield
            return
        handler = signal.signal(signal.SIGALRM, self._interrupt)
        traced = sys.gettrace()
        signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, handler)
            if self._strikes > _GENTLY:
                sys.settrace(traced)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if not self._running:
            return  # it has returned this very moment
        self._strikes += 1
        if self._strikes == 1:
            _tell(frame)
        if self._strikes > _GENTLY:
            self._trace_one_of(frame)
            signal.setitimer(signal.ITIMER_REAL, _AT_LAST, _AT_LAST)
        raise StopOverrun

    def _trace_one_of(self, frame: FrameType | None) -> None:
        """Have the next line of one of the calls under way raise: each time of another one.

        Whichever of them catches everything, its own handler or its next round does not get far.
        """
        calls = []
        while frame is not None and frame.f_code is not StopGuard.run.__code__:
            calls.append(frame)
            frame = frame.f_back
        calls.reverse()
        sys.settrace(lambda *_: None)  # calls made from now on are left alone
        calls[self._strikes % len(calls)].f_trace = _raise_at_line

    @contextlib.contextmanager
    def _report(self, seconds: float) -> Iterator[None]:
        """Say where the calling thread hangs when its time is over."""
        ident = threading.get_ident()

        def tell() -> None:
            self._strikes += 1
            _tell(sys._current_frames().get(ident))

        timer = threading.Timer(seconds, tell)
        timer.daemon = True
        with contextlib.suppress(RuntimeError):  # no thread is left for it: then without
            timer.start()
        try:
            yield
        finally:
            timer.cancel()
            if timer.ident is not None:
                timer.join()


def _raise_at_line(frame: FrameType, event: str, argument: Any) -> Any:  # noqa: ARG001
    if event == "line":
        raise StopOverrun
    return _raise_at_line


def _tell(frame: FrameType | None) -> None:
    where = plugin_stack(frame) if frame is not None else ""
    logger.error("handle_stop takes too long; it is at\n%s", where)
