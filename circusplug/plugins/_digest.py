# Decides when troubles are told: together, not too often, and when all is well again. No sockets,
# no threads; whoever calls says what time it is.

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ._troubles import Trouble


@dataclass
class _Held:
    trouble: Trouble
    due: float
    fresh: bool  # it waits for others to come, and for nothing else


class Digest:
    """The troubles that are still to be told, and what was told of lately.

    Args:
        batch: For how many seconds troubles are collected to be told together.
        quiet: For how many seconds the same kind of trouble of the same watcher is held back.
        well_again: After how many seconds without trouble that is told; 0: never.
    """

    def __init__(self, batch: float, quiet: float, well_again: float) -> None:
        self._batch = batch
        self._quiet = quiet
        self._well_again = well_again
        self._held: dict[tuple[str, str], _Held] = {}  # by watcher and kind
        self._quiet_until: dict[tuple[str, str], float] = {}
        self._well_at: dict[str, float] = {}
        self._told_of: set[str] = set()

    def take(self, trouble: Trouble, now: float, wait: float = 0.0) -> None:
        """Take in a trouble.

        Args:
            trouble: What has happened.
            now: The time, in seconds, of any clock that never goes back.
            wait: How long it is held back at first, in seconds; a start of the watcher ends it.
        """
        if self._well_again:
            self._well_at[trouble.watcher] = math.inf if trouble.stopped else now + self._well_again
        key = trouble.watcher, trouble.kind
        held = self._held.get(key)
        if held is not None:
            held.trouble = replace(trouble, count=held.trouble.count + 1)
            return
        quiet_until = self._quiet_until.get(key, now)
        due = max(quiet_until, now + wait + self._batch)
        self._held[key] = _Held(trouble, due, fresh=not wait and quiet_until <= now)

    def note(self, watcher: str, action: str, now: float) -> None:
        """Take in what has become of a watcher: ``start``, ``stop`` or ``remove``."""
        if action != "stop":
            self._held.pop((watcher, "gave_up"), None)
        if action == "remove":
            self._well_at.pop(watcher, None)
            self._told_of.discard(watcher)
        elif watcher in self._well_at:
            self._well_at[watcher] = math.inf if action == "stop" else now + self._well_again

    def next_due(self) -> float:
        """When there is something to tell; infinite if there is nothing."""
        moments = (held.due for held in self._held.values())
        return min(*moments, *self._well_at.values(), math.inf, math.inf)

    def take_due(self, now: float) -> list[Trouble]:
        """Take out what is to be told now, as one message."""
        well = {watcher for watcher, moment in self._well_at.items() if moment <= now}
        some = well or any(held.due <= now for held in self._held.values())
        told = {
            key: held.trouble
            for key, held in self._held.items()
            if held.due <= now or key[0] in well or (some and held.fresh)
        }
        self._quiet_until = {key: end for key, end in self._quiet_until.items() if end > now}
        for key in told:
            del self._held[key]
            self._told_of.add(key[0])
            if self._quiet:
                self._quiet_until[key] = now + self._quiet
        for watcher in well:
            del self._well_at[watcher]
        what = f"is well again: no trouble for {self._well_again:g} s"
        good = [Trouble("well_again", watcher, what) for watcher in sorted(well & self._told_of)]
        self._told_of -= well
        return [*told.values(), *good]

    def rest(self) -> list[Trouble]:
        """What has not been told, but for what is not sure yet."""
        return [held.trouble for key, held in self._held.items() if key[1] != "gave_up"]
