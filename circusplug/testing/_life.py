# What the processes of one watcher do by themselves, as a script tells it. Only data, and what
# follows from the moment.
#
# Owner: the serving thread.

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from ._process import DEFAULT_MEMORY


@dataclass(frozen=True)
class Span:
    """Something that holds for some time.

    Attributes:
        value: A rate, a share or a size.
        begin: From when on, in seconds since the script began.
        end: Until when.
    """

    value: float = 0.0
    begin: float = 0.0
    end: float = math.inf

    def holds(self, moment: float) -> bool:
        """Whether *moment* lies in it."""
        return self.begin <= moment < self.end

    def overlap(self, begin: float, end: float) -> float:
        """For how many seconds between two moments it holds."""
        return max(0.0, min(end, self.end) - max(begin, self.begin))


@dataclass
class Life:
    """How the processes of one watcher live.

    Attributes:
        stop_seconds: How long one goes on after it was asked to end; then it exits with 0.
        ends: At what age one ends by itself, in seconds, and with what exit code.
        failing: When none can be started.
        leaks: How much memory one loses, in bytes a second.
        memory: How much it has to begin with, in bytes.
        cpu: How much of a processor it takes, in percent.
        moment: Tells how long ago the script began, in seconds.
    """

    stop_seconds: float = 0.0
    ends: list[tuple[float, int]] = field(default_factory=list)
    failing: list[Span] = field(default_factory=list)
    leaks: list[Span] = field(default_factory=list)
    memory: list[Span] = field(default_factory=list)
    cpu: list[Span] = field(default_factory=list)
    moment: Callable[[], float] = lambda: 0.0

    @property
    def can_start(self) -> bool:
        """Whether a process can be started now."""
        return not any(span.holds(self.moment()) for span in self.failing)

    def memory_of(self, age: float) -> float:
        """How much memory a process of that age has now, in bytes."""
        now = self.moment()
        leaked = sum(span.value * span.overlap(now - age, now) for span in self.leaks)
        return _latest(self.memory, now, DEFAULT_MEMORY) + leaked

    def cpu_now(self) -> float:
        """How much of a processor each process takes now, in percent."""
        return _latest(self.cpu, self.moment(), 0.0)


def _latest(spans: list[Span], moment: float, default: float) -> float:
    """The value of the last of *spans* that holds."""
    return next((span.value for span in reversed(spans) if span.holds(moment)), default)
