# The thread of one plugin, as seen by the thread that starts and stops it.
#
# Owner: the thread that stops it, the main thread as a rule: everything here is called there.

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

from .._logs import logger, plugin_stack
from .worker import Worker

#: How long a plugin may always take to park, in seconds: one that is idle needs a moment, too.
PARK_WAIT = 0.25
#: How long a cancelled coroutine handler, and at least a thread's end, is waited for, in seconds.
_SHORT_WAIT = 0.5
#: How long the thread of a plugin that has stopped may take to end if there is time, in seconds.
#: It only closes its sockets, which takes long on a busy machine alone.
_END_WAIT = 5.0


class PluginThread:
    """A thread on which a worker lives, and its stop in two steps.

    Args:
        worker: The worker.
        live: What the thread does; the worker's `run` is in it.
    """

    def __init__(self, worker: Worker, live: Callable[[], object]) -> None:
        self._worker = worker
        self._grace_end: float | None = None
        # A daemon, because one that is stuck must not keep the process from ending.
        self._thread = threading.Thread(target=live, name=f"plugin:{worker.name}", daemon=True)

    def start(self) -> None:
        """Start it.

        Raises:
            RuntimeError: There is no thread left for it.
        """
        self._thread.start()

    def begin_stop(self, grace: float, deadline: float) -> None:
        """Ask the worker to finish the event in hand; returns at once.

        Args:
            grace: How long that may take, in seconds.
            deadline: When it shall be over at the latest, in seconds of `time.monotonic`; a
                plugin that is idle always has the moment that it needs.
        """
        now = time.monotonic()
        end = max(now + PARK_WAIT, min(now + grace, deadline))
        self._grace_end = end if self._grace_end is None else min(end, self._grace_end)
        self._worker.park()

    def finish_stop(self, deadline: float, run_handle_stop: Callable[[], object]) -> bool:
        """Wait for the event in hand, run `handle_stop` on the calling thread, join.

        Args:
            deadline: When all of it shall be over, in seconds of `time.monotonic`.
            run_handle_stop: Runs the plugin's `handle_stop`, under a deadline of its own.

        Returns:
            False if the thread had to be left behind.
        """
        worker = self._worker
        if not self._wait_parked(deadline):
            logger.error(
                "%s is still busy and is left behind; it is at\n%s", worker.name, self.stack()
            )
            worker.client.refuse("the plugin's thread is stuck and was left behind")
            worker.abandon()
        run_handle_stop()
        worker.end()
        if not worker.abandoned:
            self._thread.join(max(_SHORT_WAIT, min(deadline - time.monotonic(), _END_WAIT)))
            if self._thread.is_alive():
                logger.error(
                    "%s has stopped, but its thread does not end and is left behind; it is at\n%s",
                    worker.name,
                    self.stack(),
                )
        return not self._thread.is_alive()

    def _wait_parked(self, deadline: float) -> bool:
        parked = self._worker.parked
        if parked.wait(max(0.0, (self._grace_end or 0.0) - time.monotonic())):
            return True
        self._worker.cancel_in_hand()
        return parked.wait(max(0.0, min(_SHORT_WAIT, deadline - time.monotonic())))

    @property
    def thread(self) -> threading.Thread | None:
        """The thread, while it runs."""
        return self._thread if self._thread.is_alive() else None

    def stack(self) -> str:
        """What it is doing, as a traceback; empty if it does not run."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        return plugin_stack(frame) if frame is not None else ""
