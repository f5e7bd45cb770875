# Finding callbacks that run too long in an isolated plugin's process. The main thread looks, as a
# host does for its threads. A callback that keeps the interpreter's lock (a C function that
# computes) stops that thread as well; so while there is something to watch, a timer of
# `faulthandler`, which needs no lock, writes the stack to a pipe if no look comes in time.
#
# Owner: the main thread; `activity` is called by the plugin's.

from __future__ import annotations

import faulthandler
from collections.abc import Callable, Iterable

from .._runners.runner import Runner
from .._runners.stall_watch import StallWatch

#: How much longer than `stall_timeout` the process may keep still: a look may come late.
_SLACK = 1.25


class ChildStallWatch:
    """Watches the one plugin of this process.

    Args:
        stall_timeout: How long a callback may run, in seconds; 0: for ever.
        pipe: Where the stack goes if the main thread does not come to look.
        wake: Told ``"watch"`` when `begin` is to be called on the main thread.
    """

    def __init__(self, stall_timeout: float, pipe: int, wake: Callable[[str], object]) -> None:
        self._longest = stall_timeout * _SLACK
        self._pipe = pipe
        self._wake = wake
        self._watch = StallWatch(self._woken)
        self.activity = self._watch.activity

    def _woken(self) -> None:
        self._wind_up()  # here on the plugin's thread: the main one may not come to it any more
        self._wake("watch")

    def begin(self, runner: Runner | None) -> None:
        """Look at intervals from now on."""
        if runner is not None:
            self._watch.begin([runner])

    @property
    def next_look(self) -> float | None:
        """When to call `look`, in seconds of `time.monotonic`; None while all is quiet."""
        return self._watch.next_look

    def look(self, runner: Runner) -> Iterable[str]:
        """Where the plugin's thread is, if a callback has begun to run for too long."""
        due = self._watch.next_look
        stacks = [runner.stack() for _ in self._watch.look([runner])]
        if self._watch.next_look is None:
            if due is not None:
                faulthandler.cancel_dump_traceback_later()
        elif self._watch.next_look != due:
            self._wind_up()
        return stacks

    def _wind_up(self) -> None:
        if self._longest > 0:
            faulthandler.dump_traceback_later(self._longest, file=self._pipe)
