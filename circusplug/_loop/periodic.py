# A callback that repeats on a plugin's loop.
#
# Owner: the loop's thread. `start` and `stop` may be called from any thread; they only set
# `_running` and hand the rest over.

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable

from .plugin_loop import PluginLoop


class Periodic:
    """Calls back every so many seconds, until stopped; made by `CircusPlugin.periodic`.

    A coroutine function is awaited before the next call is due. A call that overruns its
    period makes the ones it overlapped be left out; it does not shift the others.
    """

    def __init__(self, loop: PluginLoop, callback: Callable[[], object], seconds: float) -> None:
        if not seconds > 0:
            raise ValueError(f"a period must be more than 0 seconds, not {seconds!r}")
        self._loop = loop
        self._callback = callback
        self._seconds = seconds
        self._running = False
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Future[object] | None = None

    @property
    def running(self) -> bool:
        """Whether it will call back again."""
        return self._running

    def start(self) -> None:
        """Call back from now on, first in one period; nothing happens if it runs already."""
        if not self._running:
            self._running = True
            self._loop.post(self._begin)

    def stop(self) -> None:
        """Do not call back any more; may be called twice."""
        self._running = False
        self._loop.post(self._cancel)

    def _begin(self) -> None:
        if self._running and self._timer is None:
            self._due = self._loop.time()
            if self._task is None:
                self._schedule()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._begin()  # it may have been started again meanwhile

    def _schedule(self) -> None:
        missed = (self._loop.time() - self._due) // self._seconds
        self._due += (max(0.0, missed) + 1) * self._seconds
        self._timer = self._loop.call_at(self._due, self._run)

    def _run(self) -> None:
        self._timer = None
        if not self._running or self._loop.settling:
            return
        try:
            result = self._callback()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the next still comes
            self._report(error)
            result = None
        if inspect.isawaitable(result):
            self._task = asyncio.ensure_future(result, loop=self._loop)
            self._task.add_done_callback(self._awaited)
        elif self._running:
            self._schedule()

    def _awaited(self, task: asyncio.Future[object]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._report(error)
        if self._running:
            self._schedule()

    def _report(self, error: BaseException) -> None:
        self._loop.call_exception_handler(
            {"message": f"periodic {_name_of(self._callback)}", "exception": error}
        )


def _name_of(callback: Callable[[], object]) -> str:
    return getattr(callback, "__qualname__", None) or repr(callback)
