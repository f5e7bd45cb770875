# What to do about errors that plugins made for other surroundings run into.

from __future__ import annotations

import os
import traceback


def hint_for(error: BaseException) -> str:
    """What to do about a plugin's exception, in one sentence; empty if nothing is known of it."""
    if isinstance(error, ValueError) and "signal only works in main thread" in str(error):
        return (
            "a plugin runs on a thread, where Python allows no signal.signal; use "
            "self.loop.add_signal_handler(number, function)"
        )
    if isinstance(error, TypeError) and _raised_by_periodic_callback(error):
        return (
            "the third argument of Tornado's PeriodicCallback was the loop up to Tornado 4, and "
            "is 'jitter' now; leave it out"
        )
    return ""


def _raised_by_periodic_callback(error: TypeError) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return False
    last = frames[-1]
    return last.name == "_update_next" and last.filename.endswith(
        os.path.join("tornado", "ioloop.py")
    )
