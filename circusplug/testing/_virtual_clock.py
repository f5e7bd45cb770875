# The clock of a test that does not wait: it stands, until the test has it go on, and goes from one
# thing that is due to the next. What is due is a timer of the plugin, or on the agenda here.
#
# Owner: `advance`, `settle` and `at` belong to the thread that made the clock, the test's; `reach`
# and `begin` to the plugin's. `_changed` guards everything but plain reads.

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from typing import Protocol

from circusplug._errors import PluginStateError

#: What the time of day is when the clock starts, in seconds since the epoch: 2027-01-15, 8:00 UTC.
EPOCH = 1_800_000_000.0

#: How long the clock may stand for one and the same thing, in real seconds.
PATIENCE = 5.0


class Member(Protocol):
    """The plugin that lives by a clock."""

    def wake(self) -> None:
        """Have its thread look at the clock again; from any thread."""

    def waits_for(self) -> str:
        """What is under way; from any thread."""


class VirtualClock:
    """A clock that stands until it is told to go on.

    Attributes:
        now: What it says, in seconds since it was made.
        asked: How often the test has asked the plugin to come to rest.

    Args:
        epoch: What the time of day is when it is made, in seconds since 1970.
    """

    def __init__(self, epoch: float = EPOCH) -> None:
        self.now = 0.0
        self._epoch = epoch
        self.asked = 0
        self._rested = 0
        self._end = 0.0
        self._begun = self._advancing = False
        self._changed = threading.Condition()
        self._agenda: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._member: Member | None = None
        self._owner = threading.get_ident()

    def wall_time(self) -> float:
        """The time of day by this clock, in seconds since the epoch."""
        return self._epoch + self.now

    def at(self, moment: float, action: Callable[[], object]) -> None:
        """Have something done when the clock says *moment*; from any thread.

        What the plugin has to do at that moment comes first.

        Raises:
            ValueError: That moment has passed.
        """
        with self._changed:
            if not moment >= self.now:
                raise ValueError(f"at {moment!r} s is too late, the clock says {self.now:g} s")
            heapq.heappush(self._agenda, (float(moment), next(self._numbers), action))

    # On the test's thread.

    def advance(self, seconds: float) -> None:
        """Go on, and return when all that is due by then is done.

        Raises:
            ValueError: The number is negative.
            PluginStateError: It is called by what `at` has given to do.
            AssertionError: The plugin does not come to rest.
        """
        if not seconds >= 0:
            raise ValueError(f"the clock only goes forward, not by {seconds!r} s")
        if self._advancing:
            raise PluginStateError("the clock is being advanced already")
        self._advancing = True
        try:
            end = self.now + seconds
            self.settle()
            while True:
                self._go(end)
                with self._changed:
                    if not self._agenda or self._agenda[0][0] > self.now:
                        return
                    action = heapq.heappop(self._agenda)[2]
                action()
        finally:
            self._advancing = False

    def settle(self) -> None:
        """Wait until the plugin has dealt with all that has happened so far.

        On any thread but the test's this returns at once.

        Raises:
            AssertionError: It does not come to rest.
        """
        if threading.get_ident() == self._owner:
            self._go(self.now)

    def _go(self, end: float) -> None:
        """Let the plugin go on to *end*, or to what is on the agenda before that."""
        with self._changed:
            self._end = end
            self.asked += 1
            if self._member is not None:
                self._member.wake()
            before, rests = None, False
            while not rests and before != self.now:  # as long as it goes on, it is not stuck
                before = self.now
                rests = self._changed.wait_for(self._at_rest, PATIENCE)
            if self._member is None:
                self.now = max(self.now, self._limit())
            self._end = self.now  # whatever wakes the plugin while the test acts
            what = self._member.waits_for() if self._member is not None else ""
        if not rests:
            raise AssertionError(
                f"the clock stands at {self.now:g} s, {PATIENCE:g} s in vain: {what}"
            )

    def _at_rest(self) -> bool:
        return self._member is None or (self._begun and self._rested >= self.asked)

    def _limit(self) -> float:
        return min(self._end, self._agenda[0][0]) if self._agenda else self._end

    # The plugin's side.

    def join(self, member: Member) -> None:
        """A plugin's life by this clock begins: while it starts, it moves the clock itself."""
        with self._changed:
            self._member, self._begun = member, False

    def leave(self, member: Member) -> None:
        """Its life is over, or goes on by the real clock."""
        with self._changed:
            if self._member is member:
                self._member = None
                self._changed.notify_all()

    def begin(self) -> None:
        """It has started, and the clock stands from now on."""
        with self._changed:
            self._begun = True
            self._end = max(self._end, self.now)

    def reach(self, asked: int, due: float) -> bool:
        """Go on to *due*, if it is time for that: the plugin is at rest until then.

        Args:
            asked: What the attribute said before the plugin looked whether it is at rest.
            due: When the plugin has something to do.

        Returns:
            False if the clock stands before *due*, and nothing but the test changes that.
        """
        with self._changed:
            if self.asked != asked:
                return True  # it looks once more
            if self._begun:
                limit = self._limit()
                reached = due <= limit
                self.now = max(self.now, due if reached else limit)
                if not reached:
                    self._rested = asked
                    self._changed.notify_all()
                return reached
            if not self._agenda or self._agenda[0][0] >= due:
                if due == float("inf"):
                    return False
                self.now = max(self.now, due)
                return True
            self.now, _, action = heapq.heappop(self._agenda)
        action()
        return True
