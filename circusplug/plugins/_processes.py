# What processes use: as circusd's ``stats`` tells it, and as psutil measures it where they run on
# this machine, which tells more, and of children rightly. A recording keeps what was measured.
#
# Owner: the plugin's thread.

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any
from urllib.parse import urlsplit

from circusplug import CircusPlugin

_UNITS = {"B": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
#: Where a recording of circusd's ``stats`` has what was measured of a process.
_MEASURED = "measured"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
#: By how much what two look-ups say of one process's start may differ, in seconds.
_SAME_START = 1.0


@dataclass(frozen=True)
class Usage:
    """What a process uses, or several together; None: it is not known.

    Attributes:
        pid: Its process id.
        cpu: Percent of one CPU.
        memory: Bytes that are in memory.
        memory_percent: The same, in percent of the machine's memory.
        files: How many files it has open.
        threads: How many threads it has.
        age: For how long it runs, in seconds.
    """

    pid: int
    cpu: float | None = None
    memory: float | None = None
    memory_percent: float | None = None
    files: float | None = None
    threads: float | None = None
    age: float | None = None

    def plus(self, others: Iterable[Usage]) -> Usage:
        """This one and others together; the age is this one's."""
        several = (self, *others)

        def total(name: str) -> float | None:
            known = [getattr(one, name) for one in several if getattr(one, name) is not None]
            return sum(known) if known else None

        names = ("cpu", "memory", "memory_percent", "files", "threads")
        return Usage(self.pid, age=self.age, **{name: total(name) for name in names})


class Meter:
    """Measures processes that circusd tells of.

    Args:
        local: Whether they run on this machine, so that they can be measured here.
        pss: Whether memory that processes share counts for each in part only.
    """

    def __init__(self, local: bool, pss: bool = False) -> None:
        self._pss = pss
        self._psutil: Any = None
        self._known: dict[int, Any] = {}  # psutil's, by pid: they count CPU from look to look
        self._measured: set[int] = set()
        if local:
            with contextlib.suppress(ImportError):
                import psutil

                self._psutil = psutil

    @classmethod
    def of_plugin(cls, plugin: CircusPlugin, pss: bool = False) -> Meter:
        """One for the processes of a plugin's circusd; those of a recording are gone."""
        return cls(is_local(plugin.endpoint, plugin.ssh_server) and not plugin.replaying, pss)

    def of(self, info: Mapping[str, Any]) -> Usage:
        """What one process uses.

        Args:
            info: What circusd tells of it.
        """
        told = Usage(
            info["pid"],
            number(info.get("cpu")),
            number(info.get("mem_info1")),
            number(info.get("mem")),
            age=number(info.get("age")),
        )
        return self._measure(info, told) or _recorded(info, told) or told

    def to_record(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """What circusd tells of one process, and what is measured, for `of` to read elsewhere."""
        noted = self._with_measured(info)
        noted["children"] = [self._with_measured(child) for child in self._family(info)]
        return noted

    def _with_measured(self, info: Mapping[str, Any]) -> dict[str, Any]:
        measured = self._measure(info, Usage(info["pid"]))
        if measured is None:
            return dict(info)
        figures = asdict(measured)
        del figures["pid"]
        return {**info, _MEASURED: figures}

    def children_of(self, info: Mapping[str, Any]) -> list[Usage]:
        """What each process uses that one has started."""
        return [self.of(child) for child in _children(info)]

    def family_of(self, info: Mapping[str, Any]) -> Usage:
        """What a process uses, together with all that it and those have started."""
        own = self.of(info)
        return own.plus([self.of(child) for child in self._family(info)])

    def _family(self, info: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
        """What a process and its children have started, as circusd tells of children."""
        process = self._known.get(info["pid"])
        if process is not None:
            with contextlib.suppress(self._psutil.Error):
                return [
                    {"pid": child.pid, "create_time": child.create_time()}
                    for child in process.children(recursive=True)
                ]
        return _children(info)

    def forget_gone(self) -> None:
        """Forget the processes that were not measured since this was called last."""
        self._known = {pid: self._known[pid] for pid in self._measured if pid in self._known}
        self._measured = set()

    def _measure(self, info: Mapping[str, Any], told: Usage) -> Usage | None:
        """What is measured here; None: it cannot be, or it is another process."""
        if self._psutil is None:
            return None
        try:
            process: Any = self._known.get(told.pid)
            fresh = process is None or not process.is_running()
            if fresh:
                process = self._psutil.Process(told.pid)
            started = process.create_time()
            since = number(info.get("create_time"))
            if since is None or abs(since - started) > _SAME_START:
                return None
            self._known[told.pid] = process
            self._measured.add(told.pid)
            with process.oneshot():
                cpu = process.cpu_percent()
                memory = process.memory_full_info().pss if self._pss else process.memory_info().rss
                if not memory:
                    return None  # it is about to end
                return Usage(
                    told.pid,
                    None if fresh else cpu,  # the first figure has nothing to count from
                    memory,
                    100.0 * memory / self._psutil.virtual_memory().total,
                    process.num_fds(),
                    process.num_threads(),
                    time.time() - started,
                )
        except self._psutil.Error:
            return None


def processes_of(info: object) -> Iterator[Mapping[str, Any]]:
    """The processes in what ``stats`` tells of a watcher, each with its ``pid``."""
    for pid, one in info.items() if isinstance(info, dict) else ():
        if isinstance(one, dict) and pid.isdecimal():
            yield {**one, "pid": int(pid)}


def _recorded(info: Mapping[str, Any], told: Usage) -> Usage | None:
    """What was measured when this was recorded; None: it is no recording, or nothing was."""
    measured = info.get(_MEASURED)
    if not isinstance(measured, dict) or not measured.get("memory"):
        return None
    names = [field.name for field in fields(Usage) if field.name != "pid"]
    return Usage(told.pid, **{name: number(measured.get(name)) for name in names})


def _children(info: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    children = info.get("children")
    for child in children if isinstance(children, list) else ():
        if isinstance(child, dict) and isinstance(child.get("pid"), int):
            yield child


def number(value: object) -> float | None:
    """A figure of circusd's; None for "N/A". Sizes are written as ``1.34M``."""
    if isinstance(value, str):
        unit = _UNITS.get(value[-1:])
        try:
            return float(value[:-1]) * unit if unit else float(value)
        except ValueError:
            return None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def is_local(endpoint: str, ssh_server: str | None) -> bool:
    """Whether a circusd, and so its processes, are on this machine."""
    return not ssh_server and (
        endpoint.startswith("ipc://") or urlsplit(endpoint).hostname in _LOOPBACK
    )
