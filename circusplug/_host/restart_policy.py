# When to start a plugin again, after how long, and when to give up. A pure decision: the
# clock and the random source are arguments.

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from .._config.host_options import HostOptions


@dataclass(frozen=True)
class Decision:
    """What to do about a plugin that ended.

    Attributes:
        restart: Whether to start it again.
        delay: How long to wait before that, in seconds.
        gave_up: Whether it failed too often, which `host.critical` looks at.
    """

    restart: bool
    delay: float = 0.0
    gave_up: bool = False


class RestartPolicy:
    """Decides about the restarts of one plugin.

    The delay before the n-th restart in a row is drawn from 0 to
    ``restart_delay * 2 ** (n - 1)``, at most ``restart_delay_max`` ("full jitter": plugins
    that fell together do not get up together). A plugin that ran for ``restart_reset``
    seconds starts with a clean slate.
    """

    def __init__(
        self,
        options: HostOptions,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._options = options
        self._clock = clock
        self._draw = draw
        self._running_since: float | None = None
        self.failures = 0

    def running(self) -> None:
        """Note that the plugin runs: constructed, initialised, receiving."""
        self._running_since = self._clock()

    def ended(self, clean: bool) -> Decision:
        """Decide what follows the end of the plugin.

        Args:
            clean: It ended of its own accord (it called `stop`), and not by a failure.
        """
        options = self._options
        since, self._running_since = self._running_since, None
        if since is not None and self._clock() - since >= options.restart_reset:
            self.failures = 0
        if clean:
            if options.restart != "always":
                return Decision(False)
            # Not a failure, so nothing adds up; the delay keeps it from spinning.
            return Decision(True, self._delay(1))
        if options.restart == "never":
            return Decision(False, gave_up=True)
        self.failures += 1
        if options.max_restarts >= 0 and self.failures > options.max_restarts:
            return Decision(False, gave_up=True)
        return Decision(True, self._delay(self.failures))

    def _delay(self, attempt: int) -> float:
        options = self._options
        # Past 2 ** 60 the longest delay is reached in any case, and a float would overflow.
        ceiling = options.restart_delay * 2.0 ** min(attempt - 1, 60)
        return self._draw() * min(ceiling, options.restart_delay_max)
