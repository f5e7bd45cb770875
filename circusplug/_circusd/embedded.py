# A circusd that belongs to a host in somebody's program: it starts while the host goes on, and
# tells how that went.
#
# Owner: the supervising thread starts and closes it; a thread of its own waits until circusd is
# ready.

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable

from .._errors import CircusdError, HostError
from .._logs import logger
from .process import CircusdProcess, describe_status
from .watcher_options import CircusdPlan


class EmbeddedCircusd:
    """A circusd with the watchers that a program gives; used once.

    Args:
        plan: What it shall run.
    """

    def __init__(self, plan: CircusdPlan) -> None:
        self._plan = plan
        self._closing = threading.Event()
        self._process = CircusdProcess(
            plan.text,
            source="watchers",
            grace=plan.grace,
            start_timeout=plan.start_timeout,
            holds_back=True,
        )
        self._thread: threading.Thread | None = None

    def start(
        self,
        on_up: Callable[[], object],
        on_failed: Callable[[str], object],
        on_quit: Callable[[], object],
    ) -> None:
        """Begin to start it; returns at once. Each function is called on some other thread.

        Args:
            on_up: Called when it answers.
            on_failed: Called with the reason if it does not come to that, or crashes later.
            on_quit: Called when it has ended because it was told to.

        Raises:
            HostError: Circus is not installed, or there is no process or thread left.
        """

        def ended(status: int | None) -> None:
            if self._closing.is_set():
                return
            if status == 0:
                logger.info("circusd was told to quit")
                on_quit()
            else:
                on_failed(f"circusd {describe_status(status)}")

        def wait() -> None:
            try:
                self._process.wait_ready(self._plan.start_timeout)
            except CircusdError as error:
                on_failed(str(error))
                return
            logger.info("circusd runs, process %s", self._process.pid)
            on_up()
            self._process.on_exit(ended)

        if importlib.util.find_spec("circus") is None:
            raise HostError("'watchers' need circus itself; pip install 'circusplug[circusd]'")
        try:
            self._process.start()
            thread = threading.Thread(target=wait, name="circusd-start", daemon=True)
            thread.start()
        except (CircusdError, RuntimeError) as error:
            raise HostError(str(error)) from None
        self._thread = thread

    def let_go(self) -> None:
        """Let it start its watchers, now that the plugins see their events."""
        self._process.let_go()

    def close(self) -> None:
        """Stop it and its watchers; returns when nothing of it is left."""
        self._closing.set()
        self._process.stop(self._plan.grace)
        if self._thread is not None:
            self._thread.join()
