# How long a test waits, and how it waits for what nobody tells of.

from __future__ import annotations

import time
from collections.abc import Callable

#: How long anything in a test may take before the test fails, in seconds: far longer than a busy
#: machine needs, as it only ever passes when something is broken.
PATIENCE = 40.0


def wait_while(holds: Callable[[], object], pause: float = 0.005) -> None:
    """Look again and again for as long as something holds; fail when `PATIENCE` is over.

    The *pause* between two looks, in seconds, leaves the processor to those who are waited for.
    """
    deadline = time.monotonic() + PATIENCE
    while holds():
        assert time.monotonic() < deadline, "still as it was"
        time.sleep(pause)
