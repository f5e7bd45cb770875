# What a process, or a watcher, may use, and whether it has been beyond that for too long. No
# sockets, no clock.

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from circusplug import SpecError
from circusplug.options import Amount, Percent, Seconds, option

from ._processes import Usage
from ._watchers import in_events


@dataclass(frozen=True)
class LimitOptions:
    """What may be used; empty: any amount."""

    max_cpu: Percent | None = option(90, meaning="the most CPU", unit="percent of one CPU")
    min_cpu: Percent | None = option(None, meaning="the least CPU", unit="percent of one CPU")
    max_mem: Amount | None = option(
        "90 %", meaning="the most memory, of the machine's or as a size"
    )
    min_mem: Amount | None = option(None, meaning="the least memory")
    health_threshold: Percent | None = option(75, meaning="the most of the mean of CPU and memory")
    max_files: int | None = option(None, minimum=1, meaning="the most open files")
    max_threads: int | None = option(None, minimum=1, meaning="the most threads")
    max_age: Seconds | None = option(None, above=0, meaning="the longest that a process may run")
    max_count: int = option(
        3, minimum=0, meaning="how many looks in a row may be beyond a limit; the next one acts"
    )
    over_for: Seconds | None = option(
        None, meaning="for how long a limit may be passed, instead of max_count"
    )

    def __post_init__(self) -> None:
        if (self.min_cpu or 0) > (self.max_cpu or float("inf")):
            raise SpecError("'min_cpu' is more than 'max_cpu'", key="min_cpu")

    def passed(self, most: Usage, least: Usage) -> Iterator[tuple[str, str]]:
        """The limits that are passed: a name for figures, and a text.

        Args:
            most: The most that one of several processes uses, of each.
            least: The least.
        """
        bounds = (
            ("over_cpu", "CPU", most.cpu, self.max_cpu, "%"),
            ("over_files", "number of open files", most.files, self.max_files, ""),
            ("over_threads", "number of threads", most.threads, self.max_threads, ""),
            ("over_age", "age", most.age, self.max_age, "s"),
            ("over_health", "mean of CPU and memory", _health(most), self.health_threshold, "%"),
            ("over_memory", "memory", *_pick(most, self.max_mem)),
        )
        for name, what, value, limit, unit in bounds:
            if limit and value is not None and value > limit:
                yield name, f"{what} of {_shown(value, unit)} is over {_shown(limit, unit)}"
        if self.min_cpu is not None and least.cpu is not None and least.cpu <= self.min_cpu:
            yield "under_cpu", f"CPU of {least.cpu:.4g} % is not over {self.min_cpu:.4g} %"
        value, limit, unit = _pick(least, self.min_mem)
        if limit is not None and value is not None and value < limit:
            yield "under_memory", f"memory of {_shown(value, unit)} is under {_shown(limit, unit)}"


def _shown(value: float, unit: str) -> str:
    return f"{value / 2**20:.4g}M" if unit == "bytes" else f"{value:.4g} {unit}".rstrip()


def _pick(usage: Usage, amount: Amount | None) -> tuple[float | None, float | None, str]:
    """A memory figure in the unit of its limit, the limit, and the unit."""
    if amount is not None and amount.bytes is not None:
        return usage.memory, amount.bytes, "bytes"
    return usage.memory_percent, amount.percent if amount is not None else None, "%"


def _health(usage: Usage) -> float | None:
    if usage.cpu is None or usage.memory_percent is None:
        return None
    return (usage.cpu + usage.memory_percent) / 2.0


class Patience:
    """Since when, and for how many looks in a row, limits are passed.

    Args:
        max_count: How many looks in a row may be.
        over_for: For how many seconds it may be, instead.
    """

    def __init__(self, max_count: int, over_for: float | None) -> None:
        self._max_count = max_count
        self._over_for = over_for
        self._passed: dict[tuple[str, int], dict[str, tuple[float, int]]] = {}

    def look(self, who: tuple[str, int], passed: set[str], now: float) -> set[str]:
        """Take in which limits somebody passes at one moment; those for which it is enough."""
        before = self._passed.get(who, {})
        counts = {
            name: (before.get(name, (now, 0))[0], before.get(name, (now, 0))[1] + 1)
            for name in passed
        }
        enough = {name for name, (since, count) in counts.items() if self._over(now - since, count)}
        self._passed[who] = {} if enough else counts
        return enough

    def keep(self, present: set[tuple[str, int]]) -> None:
        """Forget all others."""
        for who in self._passed.keys() - present:
            del self._passed[who]

    def begin(self, watcher: str) -> None:
        """Begin anew with a watcher, named as in events: it was started."""
        self._passed = {
            who: passed for who, passed in self._passed.items() if in_events(who[0]) != watcher
        }

    def _over(self, seconds: float, count: int) -> bool:
        if self._over_for is not None:
            return count > 1 and seconds >= self._over_for
        return count > self._max_count
