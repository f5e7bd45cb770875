# A plugin without a host: `start()` called by hand on the main thread, by a stock circusd or by
# Circus's own circus-plugin. The contract is that of a host: `handle_init` on a thread just
# started, `handle_stop` on the main thread before the join, and all of it within bounds.
#
# Owner: the main thread. Its signal handlers, the plugin's thread and whoever calls `stop` put
# words into `_news`.

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from .._logs import speaking
from .._loop.mailbox import Mailbox
from .._signals import Handler, SecondInterrupt, handling, is_free, relay
from .owner import Owner
from .plugin_thread import PluginThread
from .stop_guard import StopGuard
from .worker import STOP_WAIT, Worker

#: How long the event in hand may take when a stop was asked for, in seconds: what
#: `host.graceful_timeout` is by default.
GRACEFUL_TIMEOUT = 5.0
#: How long all of a stop may take, in seconds: what `stop_timeout` is by default, and far below
#: the 30 s after which circusd kills.
STOP_TIMEOUT = 10.0


class Standalone(Owner):
    """Runs one plugin on a thread of its own and stops it on this, the main thread.

    Args:
        worker: The plugin's.
        live: Lives the plugin's life on the thread that calls it.
        stop: The plugin's `stop`, which runs `handle_stop`.
    """

    def __init__(
        self, worker: Worker, live: Callable[[], object], stop: Callable[[], object]
    ) -> None:
        self._worker = worker
        self._live = live
        self._stop = stop
        self._ended_by: BaseException | None = None
        self._interrupted = False
        self._news: Mailbox[str | int] = Mailbox()
        self._second_interrupt = SecondInterrupt()

    def run(self) -> None:
        """Run the plugin until it is stopped, by SIGTERM or Ctrl-C for example.

        Raises:
            KeyboardInterrupt: It was stopped by Ctrl-C; the plugin has stopped cleanly.
            BaseException: What has ended the plugin's life, if it was no stop.
        """
        self._worker.owner = self
        self._worker.stopper = threading.get_ident()
        thread = PluginThread(self._worker, self._live_on_thread)
        handlers: dict[int, Handler] = {
            signal.SIGTERM: self._on_term,
            signal.SIGINT: self._on_interrupt,
        }
        free = {number: handler for number, handler in handlers.items() if is_free(number)}
        with contextlib.ExitStack() as stack:
            stack.callback(self._news.close)
            # A signal may come in on any thread; the byte that it writes wakes this one.
            before = signal.set_wakeup_fd(self._news.wakeup_fd, warn_on_full_buffer=False)
            stack.callback(signal.set_wakeup_fd, before)
            stack.enter_context(handling(free))
            stack.enter_context(relay.served(self._news.put))
            stack.enter_context(speaking(self._worker.name))
            thread.start()
            try:
                while isinstance(news := self._news.get(), int):
                    relay.install(news)  # which the plugin wants to hear of
            except BaseException as error:  # noqa: BLE001 - a signal handler of somebody else's
                self._ended_by = error
            deadline = time.monotonic() + STOP_TIMEOUT
            guard = StopGuard(STOP_TIMEOUT)
            guard.begin(deadline)
            thread.begin_stop(GRACEFUL_TIMEOUT, deadline)
            thread.finish_stop(deadline, lambda: self._run_handle_stop(guard))
        if self._ended_by is not None:
            raise self._ended_by
        if self._interrupted:
            raise KeyboardInterrupt

    def _run_handle_stop(self, guard: StopGuard) -> None:
        try:
            guard.run(self._stop)
        except TimeoutError as error:
            self._worker.logger.error("%s", error)
        except BaseException as error:  # noqa: BLE001 - raised when all is closed
            self._ended_by = self._ended_by or error

    def _live_on_thread(self) -> None:
        try:
            with speaking(self._worker.name):
                self._live()
        except BaseException as error:  # noqa: BLE001 - raised on the main thread
            self._ended_by = self._ended_by or error
        finally:
            self._news.put("ended")

    def _on_term(self, number: int, frame: FrameType | None) -> None:
        self._news.put("stop")

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        self._interrupted = True
        self._second_interrupt()
        self._news.put("stop")

    def stop_requested(self) -> None:
        """Stop it; from any thread. Waits for the end, but on its own thread and on this one."""
        self._news.put("stop")
        here = threading.get_ident()
        if here == self._worker.stopper or self._worker.in_plugin_thread:
            return
        if not self._worker.ended.wait(STOP_WAIT):
            self._worker.logger.error("still busy %g s after stop() was called", STOP_WAIT)
