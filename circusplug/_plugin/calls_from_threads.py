# The way of a call from another thread to the plugin's, which alone may touch the sockets.
#
# Owner: `submit` and `wait` are for any thread but the plugin's, the rest is the plugin's
# thread's. `_lock` guards `_open`, so that nothing is put into the queue after the last
# look into it. A call's future belongs to the thread that waits on it until it is served.

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import queue
import threading
from collections.abc import Callable

from .._errors import CallTimeout
from .._wire.commands import Reply
from .calls import NOT_CONNECTED, Call, cannot_send

#: How much longer than its deadline a call's thread waits for the plugin's thread to say so.
SLACK = 0.5

_BUSY = "the plugin's thread is busy, no reply"


class Handover:
    """A queue of calls for the plugin's thread.

    Args:
        post: Has a function called on the plugin's thread; from any thread.
        start: Sends a call on the plugin's thread; the call's `on_done` hears the outcome.
    """

    def __init__(
        self,
        post: Callable[[Callable[[], object]], object],
        start: Callable[[Call], object],
    ) -> None:
        self._post = post
        self._start = start
        self._queue: queue.SimpleQueue[tuple[Call, concurrent.futures.Future[Reply]]] = (
            queue.SimpleQueue()
        )
        self._lock = threading.Lock()
        self._open: bool | None = None  # not yet; and then once and for all
        self._why_closed = NOT_CONNECTED

    # From other threads.

    def submit(self, call: Call) -> concurrent.futures.Future[Reply]:
        """Hand a call over.

        Raises:
            PluginStateError: No call is taken any more, or not yet.
        """
        done: concurrent.futures.Future[Reply] = concurrent.futures.Future()
        with self._lock:
            if not self._open:
                raise cannot_send(call.command, self._why_closed)
            self._queue.put((call, done))
        self._post(self.serve_one)
        return done

    def wait(self, call: Call, done: concurrent.futures.Future[Reply]) -> Reply:
        """Wait for the outcome of a call that was handed over.

        Raises:
            CallError: Also one that was raised for the call on the plugin's thread.
            CallTimeout: The plugin's thread was too busy to send it, or to say how it went.
        """
        finished, _ = concurrent.futures.wait([done], call.remaining)
        if not finished and done.cancel():
            # Not sent, and never will be: the plugin's thread looks before it sends.
            raise call.timed_out("the plugin's thread is busy, command not sent")
        finished, _ = concurrent.futures.wait([done], _longest(call))
        if not finished:
            raise call.timed_out(_BUSY)
        return done.result()

    async def wait_async(self, call: Call, done: concurrent.futures.Future[Reply]) -> Reply:
        """As `wait`, on another thread's loop."""
        try:
            return await asyncio.wait_for(asyncio.wrap_future(done), _longest(call))
        except asyncio.TimeoutError as error:
            if isinstance(error, CallTimeout):
                raise
            raise call.timed_out(_BUSY) from None

    def close(self, why: str = "") -> None:
        """Refuse further calls at once, instead of at their deadline; from any thread."""
        with self._lock:
            self._open = False
            self._why_closed = why or self._why_closed

    # On the plugin's thread.

    def open(self) -> None:
        """Take calls from now on."""
        with self._lock:
            if self._open is None:
                self._open = True

    def serve_one(self) -> None:
        """Carry out the next call, if there is one."""
        with contextlib.suppress(queue.Empty):
            call, done = self._queue.get_nowait()
            if not done.set_running_or_notify_cancel():
                return  # its thread has given up
            call.on_done = functools.partial(_settle, done)
            try:
                self._start(call)
            except Exception as error:  # noqa: BLE001 - handed to the thread that waits
                done.set_exception(error)

    def serve_all(self) -> None:
        """Carry out all that are there."""
        while not self._queue.empty():
            self.serve_one()


def _longest(call: Call) -> float:
    """How long the thread of a call that is being carried out waits at most, in seconds."""
    return max(0.0, call.last_moment - call.now) + SLACK


def _settle(
    done: concurrent.futures.Future[Reply], reply: Reply | None, error: Exception | None
) -> None:
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(reply or {})
