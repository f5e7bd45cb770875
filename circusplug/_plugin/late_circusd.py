# A plugin whose `handle_init` needs a circusd that is not there: was that why it failed, and the
# wait for the connection.
#
# Owner: the plugin's thread; any thread may call `give_up`.

from __future__ import annotations

from .._errors import CallTimeout
from .._loop.plugin_loop import PluginLoop
from .calls import UNREACHABLE
from .event_connection import Connection

#: How long a plugin waits before it is started again if its events are connected, and only its
#: commands do not get through, in seconds: a call that fails at once must not spin.
_RETRY_WAIT = 1.0


def is_away(connection: Connection, error: BaseException) -> bool:
    """Whether circusd cannot be reached, as far as can be seen when `error` was raised."""
    return not connection.look() or _is_unreachable(error)


def _is_unreachable(error: BaseException | None) -> bool:
    """Whether an error is, or comes from, that of a command that could not be sent."""
    while error is not None:
        if isinstance(error, CallTimeout) and error.reason.startswith(UNREACHABLE):
            return True
        error = error.__cause__ or error.__context__
    return False


class Wait:
    """Waits for a connection, on a loop of its own: nothing of the plugin runs meanwhile."""

    def __init__(self) -> None:
        self._given_up = False
        self._loop: PluginLoop | None = None

    def until_up(self, connection: Connection) -> None:
        """Wait until it stands, or `give_up` was called."""
        loop = self._loop = PluginLoop()
        try:
            connection.watch(loop, lambda up: loop.stop() if up else None)
            if connection.up:
                loop.call_later(_RETRY_WAIT, loop.stop)
            if not self._given_up:
                loop.run_forever()
        finally:
            connection.unwatch()
            loop.close()

    def give_up(self) -> None:
        """End the wait, be it that of before or after; from any thread."""
        self._given_up = True
        loop = self._loop
        if loop is not None:
            loop.stop_threadsafe()
