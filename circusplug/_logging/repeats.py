# What goes wrong again and again, in the log: in full once, then as a count at growing distances.
#
# Owner: the plugin's thread.

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from .._errors import describe
from .stacks import place_of

#: How many different exceptions are remembered; beyond, the one that is longest ago is forgotten.
REMEMBERED = 100
#: When an exception was last told of so long ago, in seconds, it is told in full again: the
#: line that did so may be in a file that was rotated away.
FULL_AGAIN = 3600.0


def is_milestone(count: int) -> bool:
    """Whether a count is 1, 10, 100 and so on: the growing distances."""
    return str(count).rstrip("0") == "1"


class Repeats:
    """Keeps a plugin that fails at each event from filling the log with tracebacks.

    The same exception is one of the same type that comes from the same line of the plugin in
    the same handler, whatever its text. It is logged in full the first time, then as one line
    the 10th, 100th, 1000th time, and in full again once an hour has passed without either. By
    counts a flood makes few lines, and by the clock each day's log has the traceback.

    Args:
        clock: Seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[tuple[str, str, str], tuple[int, float]] = {}

    def log_exception(self, logger: logging.Logger, what: str, error: BaseException) -> None:
        """Log that something failed, unless that is told often enough; never raises.

        Args:
            logger: Where to.
            what: What failed, e.g. ``handle_recv``.
            error: The exception.
        """
        key = (f"{type(error).__module__}.{type(error).__qualname__}", what, place_of(error))
        count, in_full = self._count(key)
        if in_full:
            times = f" ({count} times so far)" if count > 1 else ""
            logger.error("%s failed%s: %s", what, times, describe(error), exc_info=error)
        elif count:
            logger.error("%s failed %d times so far, as above: %s", what, count, describe(error))

    def log_warning(self, logger: logging.Logger, what: str, text: str, *args: Any) -> None:
        """Log a warning, unless that is told often enough.

        Args:
            logger: Where to.
            what: Which warnings are the same one, whatever their text.
            text: The warning, as for `logging`.
            args: What is put into it.
        """
        count, _ = self._count(("", what, ""))
        if count > 1:
            text, args = f"{text} (%d times so far)", (*args, count)
        if count:
            logger.warning(text, *args)

    def _count(self, key: tuple[str, str, str]) -> tuple[int, bool]:
        """Count one more; returns how many there are, 0 if that is not to be told, and whether
        to tell it in full.
        """
        now = self._clock()
        count, told = self._seen.pop(key, (0, now))
        count += 1
        in_full = count == 1 or now - told >= FULL_AGAIN
        is_told = in_full or is_milestone(count)
        self._seen[key] = count, now if is_told else told
        if len(self._seen) > REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return count if is_told else 0, in_full
