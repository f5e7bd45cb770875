# Whether both of circusd's endpoints are where the configuration says, looked at once for all
# plugins of a host: which of the two sockets stands, and for how long. A circusd that comes late
# has neither, or a moment later both; a wrong endpoint leaves one alone.
#
# Owner: a thread of its own, which makes, uses and closes two sockets, and ends once both stand.

from __future__ import annotations

import contextlib
import enum
import threading
import time
from typing import Any

import zmq

from .._logs import logger
from .._plugin.event_connection import RENEW_INTERVAL
from .._plugin.owner import tell_no_circusd
from .._wire.endpoints import Link, configure_link, next_event

#: How long one socket may stand alone, or be of another kind, until it is told, in seconds: longer
#: than it takes until the other one of a circusd on another machine is tried again.
ALONE_WAIT = 10.0

_MONITORED = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
)


class _State(enum.Enum):
    ABSENT = "absent"  # or no ZMQ socket: a proxy may stand there before circusd does
    GREETED = "greeted"  # it has accepted, and has not yet said what it is
    OTHER = "other"  # a ZMQ socket that is not of the kind that is needed
    STANDS = "stands"


#: What an event makes of a state. Where the kinds do not fit, whichever end sees it first ends the
#: connection: this one without an error, the other as a proxy does without a circusd behind it.
_NEXT = {
    **{(int(zmq.EVENT_HANDSHAKE_SUCCEEDED), state): _State.STANDS for state in _State},
    **{(int(zmq.EVENT_CLOSED), state): _State.ABSENT for state in _State},
    (int(zmq.EVENT_CONNECTED), _State.ABSENT): _State.GREETED,
    (int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL), _State.GREETED): _State.ABSENT,
    (int(zmq.EVENT_DISCONNECTED), _State.GREETED): _State.OTHER,
    (int(zmq.EVENT_DISCONNECTED), _State.STANDS): _State.ABSENT,
}


class _Probe:
    """One socket that is only connected, and what is known of its other end."""

    def __init__(
        self, stack: contextlib.ExitStack, context: zmq.Context[Any], kind: int, endpoint: str
    ) -> None:
        self.state = _State.ABSENT
        self._endpoint = endpoint
        self._socket = stack.enter_context(context.socket(kind))
        configure_link(self._socket, endpoint)
        address = f"inproc://check-{self._socket.FD}"
        self._socket.monitor(address, int(_MONITORED))
        self.monitor = stack.enter_context(context.socket(zmq.PAIR))
        self.monitor.connect(address)
        self._socket.connect(endpoint)

    def look(self) -> _State:
        """Take in what there is to be known right now."""
        while self.monitor.poll(0):
            self.state = _NEXT.get((next_event(self.monitor), self.state), self.state)
        return self.state

    def renew(self) -> None:
        """Connect anew to an end of another kind, where libzmq does not try again by itself."""
        if self.state is _State.OTHER:
            with contextlib.suppress(zmq.ZMQError):
                self._socket.disconnect(self._endpoint)
            self._socket.connect(self._endpoint)


class EndpointCheck:
    """Tells once if there is no circusd yet, and once if an endpoint must be wrong.

    Args:
        link: What is connected to.
        endpoint: What to call its command endpoint: as in the configuration.
        pubsub_endpoint: The same for its events.
    """

    def __init__(self, link: Link, endpoint: str, pubsub_endpoint: str) -> None:
        self._link = link
        self._names = endpoint, pubsub_endpoint
        self._context: zmq.Context[Any] = zmq.Context()
        self._thread = threading.Thread(target=self._run, name="circusplug-endpoints", daemon=True)

    def start(self) -> None:
        """Begin to look; of sockets inside the process there is nothing to be seen."""
        if not self._link.pubsub_endpoint.startswith("inproc:"):
            with contextlib.suppress(RuntimeError):  # no thread is left: then nothing is told
                self._thread.start()

    def close(self) -> None:
        """Look no more; from any thread."""
        self._context.term()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        with contextlib.suppress(zmq.ZMQError), contextlib.ExitStack() as stack:
            commands = _Probe(stack, self._context, zmq.DEALER, self._link.endpoint)
            events = _Probe(stack, self._context, zmq.SUB, self._link.pubsub_endpoint)
            self._watch(commands, events)

    def _watch(self, commands: _Probe, events: _Probe) -> None:
        poller = zmq.Poller()
        for probe in (commands, events):
            poller.register(probe.monitor, zmq.POLLIN)
        alone_since: float | None = None
        missed_at: float | None = time.monotonic() + self._link.connect_wait
        renew_at = time.monotonic() + RENEW_INTERVAL
        told = False
        while (states := (commands.look(), events.look())) != (_State.STANDS, _State.STANDS):
            now = time.monotonic()
            problem = self._describe(*states)
            alone_since = None if problem is None else alone_since or now
            if alone_since is not None and now >= alone_since + ALONE_WAIT and not told:
                told = True
                logger.error("%s", problem)
            if missed_at is not None and now >= missed_at:
                missed_at = None
                if problem is None:
                    tell_no_circusd(logger, *self._names)
            if now >= renew_at:
                renew_at = now + RENEW_INTERVAL
                commands.renew()
                events.renew()
            alone_until = None if told or alone_since is None else alone_since + ALONE_WAIT
            times = (missed_at, alone_until, renew_at)
            due = min(moment for moment in times if moment is not None)
            poller.poll(max(1, int((due - now) * 1000) + 1))

    def _describe(self, commands: _State, events: _State) -> str | None:
        """What is wrong with the endpoints; None if that cannot be said."""
        endpoint, pubsub_endpoint = self._names
        if commands is _State.OTHER and events is _State.OTHER:
            return (
                f"'endpoint' ({endpoint}) and 'pubsub_endpoint' ({pubsub_endpoint}) look swapped: "
                "nobody takes commands at the first, and nobody publishes events at the second; "
                "write them the other way round"
            )
        if commands is _State.STANDS:
            other = ", where something else is" if events is _State.OTHER else ""
            return (
                f"circusd takes commands at {endpoint}, but publishes no events at "
                f"{pubsub_endpoint}{other}: 'pubsub_endpoint' is wrong; write that of circusd's "
                "file, which 'circusctl globaloptions' shows"
            )
        if events is _State.STANDS:
            other = ", where something else is" if commands is _State.OTHER else ""
            return (
                f"events are published at {pubsub_endpoint}, but nobody takes commands at "
                f"{endpoint}{other}: 'endpoint' is wrong; write that of circusd's file"
            )
        for state, name, where in (
            (commands, "endpoint", endpoint),
            (events, "pubsub_endpoint", pubsub_endpoint),
        ):
            if state is _State.OTHER:
                return (
                    f"'{name}' is wrong: {where} is no such socket of circusd's; write that of "
                    "circusd's file"
                )
        return None
