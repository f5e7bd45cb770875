# Who drains a flood just now. Each `recv` of pyzmq lets the interpreter's lock go, so when many
# plugins drain at once, every event costs two switches between threads. Instead one of them at a
# time has the turn; the others sleep meanwhile, and their events wait in libzmq.
#
# The turn is for the interpreter, of which a process has one; so there is one `turn` a process.
#
# Owner: any plugin's thread, for its own place in line, but `cancel`, which any thread may call.
# `_lock` guards the line and the holder.

from __future__ import annotations

import collections
import os
import threading
import time

#: After how long the next in line takes the turn from one that does not give it up, in seconds: a
#: handler that blocks after all. It is three times what a slice with the turn lasts.
LIMIT = 0.01


class Place:
    """A plugin's place in line."""

    #: Set by `Turn.cancel`: it does not wait any more.
    cancelled = False

    def __init__(self) -> None:
        self.gate = threading.Lock()
        self.gate.acquire()


class Turn:
    """One turn, handed on in the order of asking."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: collections.deque[Place] = collections.deque()
        self._holder: Place | None = None
        self._since = 0.0

    def take(self, place: Place) -> bool:
        """Wait for the turn; the longest wait is `LIMIT` for each that stands before.

        Returns:
            False if it was cancelled instead.
        """
        with self._lock:
            if place.cancelled:
                return False
            if self._holder is None:
                self._hold(place)
                return True
            self._line.append(place)
            before = len(self._line)
        while not place.gate.acquire(timeout=LIMIT * before):
            with self._lock:
                if place not in self._line:
                    continue  # handed on, or cancelled, this very moment: the gate is open
                before = self._line.index(place) + 1
                if before == 1 and time.monotonic() - self._since >= LIMIT:
                    self._line.popleft()
                    self._hold(place)
                    return True
        return self._holder is place

    def cancel(self, place: Place) -> None:
        """End its wait, and let it never wait again; from any thread."""
        with self._lock:
            place.cancelled = True
            if place in self._line:
                self._line.remove(place)
                place.gate.release()

    def give(self, place: Place) -> bool:
        """Hand the turn on; False if it was taken away before."""
        with self._lock:
            if self._holder is not place:
                return False
            if self._line:
                following = self._line.popleft()
                self._hold(following)
                following.gate.release()
            else:
                self._holder = None
            return True

    def _hold(self, place: Place) -> None:
        self._holder = place
        self._since = time.monotonic()


turn = Turn()
#: A forked process has none of the threads that stand in line, or hold the lock.
os.register_at_fork(after_in_child=turn.__init__)  # type: ignore[misc]
