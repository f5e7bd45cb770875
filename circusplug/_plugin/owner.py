# What a worker and whoever runs it have to do with each other: the phases of a plugin's life, what
# the worker calls on the plugin, and what it tells its owner.

from __future__ import annotations

import enum
import logging
from collections.abc import Callable
from typing import Any, Protocol

from .._errors import CircusPlugError
from .._logs import Repeats
from .._wire.endpoints import Link
from .receiver import Frames


class Phase(enum.Enum):
    """Where in its life a plugin is; it only ever goes down this list."""

    NEW = "new"
    STARTING = "starting"
    WAITING = "waiting"
    RUNNING = "running"
    PARKED = "parked"
    ENDED = "ended"


class CircusdAway(CircusPlugError):
    """`handle_init` failed while circusd could not be reached, and it is worth another try."""


class Hooks(Protocol):
    """What a worker calls on a plugin; all of it on the thread of `Worker.run`."""

    def handle_init(self) -> Any: ...
    def initialize(self) -> Any: ...
    def handle_recv(self, data: Frames) -> Any: ...
    def handle_connect(self) -> Any: ...
    def handle_reconnect(self) -> Any: ...


def tell_no_circusd(logger: logging.Logger, endpoint: str, pubsub_endpoint: str) -> None:
    """Log that plugins go on without a circusd."""
    logger.warning(
        "no circusd at %s yet (events: %s); going on, and receiving once it is there",
        endpoint,
        pubsub_endpoint,
    )


def tell_garbage(repeats: Repeats, logger: logging.Logger, topic: bytes) -> None:
    """Log that a message was no event, at growing distances."""
    text = "not an event, left out: message that begins with %r"
    repeats.log_warning(logger, "garbage", text, topic[:80])


def tell_too_large(logger: logging.Logger, link: Link) -> None:
    """Log that the connection was ended over an event that is too large."""
    logger.error(
        "the connection to %s was ended by what came: an event of more than host.max_message (%d "
        "bytes), or what is no message of ZMQ's; it is lost, and so is what was published since",
        link.pubsub_endpoint,
        link.max_message,
    )


class Owner:
    """What a worker tells whoever runs it, on the worker's thread; here little is done."""

    def phase_entered(self, phase: Phase) -> None:
        """A new phase of its life has begun."""

    def initialized(self) -> None:
        """`handle_init` and `initialize` have returned, and no event was handled yet."""

    def exception_contained(self, error: BaseException, what: str) -> None:
        """The plugin has raised an exception, which is logged and counted."""

    def stop_requested(self) -> None:
        """The plugin wants to be stopped."""

    def circusd_missed(self, logger: logging.Logger, link: Link) -> None:
        """It goes on without a connection, which may come later."""
        tell_no_circusd(logger, link.endpoint, link.pubsub_endpoint)

    def run_own_stop(self, stop: Callable[[], object]) -> None:
        """Run the `stop` of a plugin that nobody waits for any longer."""
        stop()
