# The seam between the host and a plugin: what a runner is, and what it tells its supervisor. A
# runner is one life of one plugin, on a thread or in a process; a restart makes a new one.

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from .._config.specs import HostConfig, PluginSpec
from .._plugin.status import Counters
from .._plugin.worker import Worker
from .._wire.endpoints import Link


class Kind(enum.Enum):
    """What a runner tells its supervisor.

    Each comes at most once in a life, but STALLED.
    """

    #: Its class is imported and its constructor has begun: the next plugin may start.
    BEGUN = "begun"
    #: It is initialised and receives.
    RUNNING = "running"
    #: Its `handle_init` failed while circusd could not be reached. It waits for the connection
    #: and then ends with `Notice.retry`.
    WAITING = "waiting"
    #: It wants to be stopped: it called its own `stop`.
    STOP_ASKED = "stop asked"
    #: `host.max_errors` is reached, and `host.on_error` says to act on that.
    TOO_MANY_ERRORS = "too many errors"
    #: One of its callbacks runs for longer than `host.stall_timeout`.
    STALLED = "stalled"
    #: What `begin_stop` asked for is done as far as it can be: `finish_stop` will not wait.
    PARKED = "parked"
    #: Its life is over.
    ENDED = "ended"


@dataclass(frozen=True)
class Notice:
    """One message from a runner to its supervisor.

    Attributes:
        runner: Whose it is; one of a life that is over already is left alone.
        kind: What happened.
        error: What went wrong, in one line; None for an end that is clean. The stack for STALLED.
        permanent: Whether it would go wrong again: an option does not fit.
        retry: Whether it is no failure: circusd was away, and is back.
    """

    runner: Runner
    kind: Kind
    error: str | None = None
    permanent: bool = False
    retry: bool = False


def never_mind(name: str, what: object) -> None:
    """A hook that does nothing."""


@dataclass(frozen=True)
class Hooks:
    """What a host calls for plugins on threads, for whoever wants to know; see `testing`.

    Attributes:
        on_constructed: Told of each plugin that was made on a thread, by its name.
        on_exception: Told of each exception of a plugin on a thread: of its constructor, its
            handlers, callbacks and timers, and of `handle_stop`.
        make_worker: Makes what runs a plugin on a thread; takes what `Worker` takes.
    """

    on_constructed: Callable[[str, object], object] = never_mind
    on_exception: Callable[[str, BaseException], object] = never_mind
    make_worker: Callable[..., Worker] = Worker


NO_HOOKS = Hooks()


@dataclass(frozen=True)
class Surroundings:
    """What every runner of a host gets.

    Attributes:
        config: The host's configuration.
        link: What to connect to: circusd, or the near ends of a tunnel to it.
        notify: Takes a runner's notices, from any thread.
        activity: Called by a plugin's thread when it has something to do, so that the
            watch for stalls is kept only while there is anything to watch; or None.
        guard: Runs `handle_stop`, and ends it when the time for stopping is over.
        hooks: What else to tell somebody.
    """

    config: HostConfig
    link: Link
    notify: Callable[[Notice], object]
    activity: Callable[[], object] | None = None
    guard: Callable[[Callable[[], object]], object] = lambda call: call()
    hooks: Hooks = NO_HOOKS


class Runner(Protocol):
    """One life of one plugin. All of it is called on the supervising thread.

    Attributes:
        hands_over: Whether the next stop shall save the plugin's state for a new life.
        saved: That state, once it has stopped; None if there is none.
    """

    spec: PluginSpec
    counters: Counters
    hands_over: bool
    saved: Any

    def start(self) -> None:
        """Start; returns at once, and what comes of it is notified."""

    def begin_stop(self, deadline: float) -> None:
        """Ask it to stop; returns at once. PARKED or ENDED is notified.

        One on a thread finishes the event in hand, for which it has ``host.graceful_timeout``,
        and waits for `finish_stop`. One in a process stops altogether, `handle_stop` included.
        Asked again, the earlier deadline counts.

        Args:
            deadline: When all of the stop shall be over, in seconds of `time.monotonic`.
        """

    def finish_stop(self, deadline: float) -> bool:
        """End the stop that `begin_stop` began: wait, run `handle_stop`, wait for the end.

        Args:
            deadline: When all of it shall be over, in seconds of `time.monotonic`. A plugin
                that behaves always has the moment that it needs.

        Returns:
            False if it had to be left behind.
        """

    def abandon(self) -> None:
        """Give up on one that does not start: end it by force, or leave it behind."""

    def stack(self) -> str:
        """What its thread is doing, as a traceback; empty if it cannot be told."""

    def refresh(self) -> threading.Event | None:
        """Ask for fresh counters; returns what is set once they are there, if they are not."""

    def measure_lag(self) -> None:
        """Measure its loop's lag, for its counters; returns at once."""

    def log_level_changed(self) -> None:
        """Take in that the whole log may have another level."""

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
    def awaits_circusd(self) -> bool:
        """Whether it is past its constructor, and circusd is not there yet."""

    @property
    def last_error(self) -> str | None:
        """The last thing that went wrong in it, in one line."""

    @property
    def thread(self) -> threading.Thread | None:
        """The thread it runs on, if it is one of this process and has not ended."""

    @property
    def pid(self) -> int | None:
        """The process it runs in; None if it does not run."""

    @property
    def busy_since(self) -> float:
        """When its callback in hand began, in seconds of `time.monotonic`; 0.0 if none runs."""

    @property
    def instance(self) -> object | None:
        """The plugin itself, if it lives in this process."""
