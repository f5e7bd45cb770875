# The counters of one plugin, and what the host tells of it. Data only.
#
# Owner: a plugin's thread writes its counters; anyone may read them. Each is an int, a float or a
# tuple that is replaced as a whole, so a reader sees either the old value or the new one.

from __future__ import annotations

import dataclasses
import threading
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate

#: What lags are sorted by: the longest of each bucket, in seconds; the last bucket has no bound.
LAG_BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)


@dataclass(slots=True)
class Counters:
    """What a plugin has done, since its first start.

    Attributes:
        received: Events received.
        handled: Events whose `handle_recv` returned.
        errors: Exceptions in handlers, callbacks and timers.
        calls: Commands and casts sent; one that is sent again after a conflict counts again.
        conflicts: Times that circusd refused a command because it was busy with another one.
        casts_failed: Casts that circusd did not carry out, or did not answer.
        reconnects: Times that circusd came back after the connection was lost.
        garbage: Messages received that are no events.
        too_large: Messages larger than `host.max_message`, which are lost. An event ends the
            connection, so what circusd publishes in the second after it is lost, too.
        restarts: Times that the host started a new instance after the first.
        stalls: Callbacks that ran longer than `host.stall_timeout`.
        lag: Longest delay seen between handing a callback to the plugin's loop and its
            running, in seconds; looked at only while the host is busy.
        lag_sum: All such delays together, in seconds.
        lag_counts: How many of them there were, by length; see `LAG_BOUNDS`.
    """

    received: int = 0
    handled: int = 0
    errors: int = 0
    calls: int = 0
    conflicts: int = 0
    casts_failed: int = 0
    reconnects: int = 0
    garbage: int = 0
    too_large: int = 0
    restarts: int = 0
    stalls: int = 0
    lag: float = 0.0
    lag_sum: float = 0.0
    lag_counts: tuple[int, ...] = (0,) * (len(LAG_BOUNDS) + 1)

    def note_lag(self, seconds: float) -> None:
        """Count one delay; on the plugin's thread."""
        bucket = bisect_left(LAG_BOUNDS, seconds)
        before = self.lag_counts
        self.lag_counts = (*before[:bucket], before[bucket] + 1, *before[bucket + 1 :])
        self.lag_sum += seconds
        self.lag = max(self.lag, seconds)

    @property
    def lag_buckets(self) -> dict[str, int]:
        """How many delays were at most so long, as Prometheus counts: by the bound in seconds."""
        bounds = [*map(str, LAG_BOUNDS), "+Inf"]
        return dict(zip(bounds, accumulate(self.lag_counts), strict=True))

    def copy(self) -> Counters:
        """The values of this moment."""
        return dataclasses.replace(self)


@dataclass(frozen=True)
class PluginStatus:
    """One plugin as the host sees it at one moment.

    Attributes:
        name: Its name in the host, without ``plugin:``.
        use: Dotted name of its class.
        state: ``inactive``, ``starting``, ``waiting`` (for circusd, which its `handle_init`
            needs), ``running``, ``stalled``, ``stopping``, ``stopped``, ``backoff`` (waiting
            for its restart), ``failed`` (given up) or ``abandoned`` (stopped, but its thread
            does not end).
        isolated: Whether it has a process of its own.
        counters: What it has done.
        last_error: The last thing that went wrong, in one line, or None.
        thread: The thread it runs on; None for an isolated one, and when it does not run.
        pid: The process it runs in, or None when it does not run.
        connected: Whether its event socket is connected to circusd.
        started: When the life in it was started, in seconds since 1970; None when it does not
            run.
    """

    name: str
    use: str
    state: str
    isolated: bool = False
    counters: Counters = field(default_factory=Counters)
    last_error: str | None = None
    thread: threading.Thread | None = field(default=None, compare=False)
    pid: int | None = None
    connected: bool = False
    started: float | None = None
