# What SIGHUP does: the configuration is read again, or the circusd that belongs to the host reloads
# its watchers.
#
# Owner: each reload has a thread of its own, one at a time, as reading a file and importing what
# is new in it take time.

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from .._errors import CircusPlugError
from .._logs import logger


class Reloadable(Protocol):
    """A host; see `Arbiter`."""

    client: Any

    @property
    def has_circusd(self) -> bool:
        """Whether a circusd belongs to it."""

    def reload(self) -> list[str]:
        """Read the configuration again; what was done, a line each."""


class Reloads:
    """Reloads a host.

    Args:
        host: The host.
        after: What else is to be done then; returns what was done, a line each.
    """

    def __init__(self, host: Reloadable, after: Callable[[], list[str]] = list) -> None:
        self._host = host
        self._after = after
        self._reloading = threading.Lock()  # one after the other

    def begin(self) -> None:
        """Reload on another thread; returns at once."""
        thread = threading.Thread(target=self._reload_aside, name="circusplug-reload", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads: no reason for the host to end
            logger.error("not reloaded, all stays as it was: %s", error)

    def _reload_aside(self) -> None:
        try:
            self.run()
        except CircusPlugError:
            pass  # it has been logged
        except Exception:  # noqa: BLE001 - the function that reads may be anybody's
            logger.exception("not reloaded, all stays as it was")

    def run(self) -> None:
        """Reload, and log what came of it.

        Raises:
            CircusPlugError: Nothing came of it; it is logged, too.
        """
        try:
            with self._reloading:
                self._reload()
        except CircusPlugError as error:
            for line in str(error).splitlines():
                logger.error("not reloaded, all stays as it was: %s", line)
            raise

    def _reload(self) -> None:
        if self._host.has_circusd:
            self._host.client.call("reload")  # as Circus's arbiter does
            logger.info("the watchers are being reloaded")
        else:
            done = self._host.reload() + self._after()
            logger.info("reloaded: %s", "; ".join(done) or "nothing has changed")
