# What the supervisor and the two kinds of runner say to each other. A runner is one life of
# one plugin, on a thread or in a process; a restart makes a new one.

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from .._config.specs import HostConfig, PluginSpec
from .._status import Counters
from .._wire.endpoints import Link


class Kind(enum.Enum):
    """What a runner tells its supervisor."""

    RUNNING = "running"
    STOP_ASKED = "stop asked"
    TOO_MANY_ERRORS = "too many errors"
    STALLED = "stalled"
    ENDED = "ended"


@dataclass(frozen=True)
class Notice:
    """One message from a runner to its supervisor.

    Attributes:
        runner: Whose it is; one of a life that is over already is left alone.
        kind: What happened.
        error: What went wrong, in one line; None for an end that is clean.
        permanent: Whether it would go wrong again: an option does not fit.
    """

    runner: Runner
    kind: Kind
    error: str | None = None
    permanent: bool = False


@dataclass(frozen=True)
class Surroundings:
    """What every runner of a host gets.

    Attributes:
        config: The host's configuration.
        link: What to connect to: circusd, or the near ends of a tunnel to it.
        notify: Takes a runner's notices, from any thread.
        activity: Called by a plugin's thread when it has something to do, so that the
            watch for stalls is kept only while there is anything to watch; or None.
        guard: Runs `handle_stop`, and ends it when the host's deadline for stopping is over.
    """

    config: HostConfig
    link: Link
    notify: Callable[[Notice], object]
    activity: Callable[[], object] | None = None
    guard: Callable[[Callable[[], object]], object] = lambda call: call()


class Runner(Protocol):
    """One life of one plugin. All of it is called on the supervising thread."""

    spec: PluginSpec
    counters: Counters

    def prepare(self) -> None:
        """Do ahead of `start` what runs no code of the plugin's; returns at once.

        If it is not to be started after all, it wants to be stopped.
        """

    def start(self, connect_wait: float) -> None:
        """Start; RUNNING or ENDED is notified later.

        Args:
            connect_wait: How long it waits for its connection before it goes on, in seconds.
        """

    def wait_ready(self, timeout: float) -> bool:
        """Wait until it runs or has ended; False if it does neither within `timeout` seconds."""

    def park(self) -> None:
        """Ask it to finish the event in hand and stop receiving; returns at once."""

    def rush(self, limit: float) -> None:
        """Ask it to stop within `limit` seconds, be it its turn or not; returns at once."""

    def stop(self, grace: float, limit: float) -> bool:
        """Stop it: `handle_stop`, then the end. False if it had to be left behind.

        Args:
            grace: How long the event in hand may take, in seconds.
            limit: How long all of it may take, in seconds.
        """

    def abandon(self) -> None:
        """Give up on one that does not start: end it by force, or leave it behind."""

    def stack(self) -> str:
        """What its thread is doing, as a traceback; empty if it cannot be told."""

    def refresh(self) -> threading.Event | None:
        """Ask for fresh counters; returns what is set once they are there, if they are not."""

    def ping(self) -> None:
        """Measure its loop's lag, for its counters; returns at once."""

    def run_handle_stop(self) -> None:
        """Give a life that failed the chance to clean up what its constructor made."""

    @property
    def failure(self) -> str | None:
        """Why it ended, in one line; None if it runs, or ended of its own accord."""

    @property
    def running(self) -> bool:
        """Whether it is initialised and receives."""

    @property
    def connected(self) -> bool:
        """Whether its event socket is connected."""

    @property
    def last_error(self) -> str | None:
        """The last thing that went wrong in it, in one line."""

    @property
    def thread(self) -> threading.Thread | None:
        """The thread it runs on, if it is one of this process."""

    @property
    def pid(self) -> int | None:
        """The process it runs in."""

    @property
    def busy_since(self) -> float:
        """When its callback in hand began, in seconds of `time.monotonic`; 0.0 if none runs."""

    @property
    def instance(self) -> object | None:
        """The plugin itself, if it lives in this process."""
