# The stop of a whole host: its plugins one after the other, in reverse order of their start, so
# that a logger that started first sees the others go.
#
# Owner: the thread that stops the host, which is the main thread for `Arbiter.start()`.

from __future__ import annotations

import time
from collections.abc import Iterable

from .._plugin.plugin_thread import PARK_WAIT
from .managed_plugin import ManagedPlugin


def stop_all(plugins: Iterable[ManagedPlugin], deadline: float) -> None:
    """Stop plugins in reverse order.

    Once one has used up its time, the others share what is left: all of them are asked to stop
    at once, and those in processes of their own do so at the same time.

    Args:
        plugins: In the order of their start.
        deadline: When all of it shall be over, in seconds of `time.monotonic`.

    Raises:
        KeyboardInterrupt: One came meanwhile. It has not cost the other plugins their stop.
    """
    everyone = list(plugins)
    hurry = False
    interrupted: KeyboardInterrupt | None = None
    while everyone:
        plugin = everyone.pop()
        began = time.monotonic()
        if not plugin.begin_stop(deadline):
            if plugin.state != "failed":
                plugin.stop()
            continue
        try:
            plugin.finish_stop()
        except KeyboardInterrupt as error:
            # A host in the background has no signal handlers. A second one gets through.
            interrupted = error
            plugin.finish_stop()
        grace = min(plugin.spec.host.graceful_timeout, deadline - began)
        if not hurry and time.monotonic() - began >= max(grace, PARK_WAIT):
            hurry = True
            for other in everyone:
                other.begin_stop(deadline)
    if interrupted is not None:
        raise interrupted
