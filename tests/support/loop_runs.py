# How a test runs a loop.

from __future__ import annotations

from patience import PATIENCE

from circusplug._loop.plugin_loop import PluginLoop


def run(loop: PluginLoop) -> None:
    """Run until something stops the loop, but not for ever."""
    limit = loop.call_later(PATIENCE, loop.stop)
    loop.start()
    assert loop.time() < limit.when(), "nothing has stopped the loop"
    limit.cancel()
