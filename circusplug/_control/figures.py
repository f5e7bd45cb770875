# What the system knows of a process or a thread: CPU, memory, age; in the form of circusd's
# `stats`. Read from /proc, so there is no need of psutil.
#
# Owner: the thread that serves the control endpoint.

from __future__ import annotations

import contextlib
import os
import pwd
import time
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MEMORY = os.sysconf("SC_PHYS_PAGES") * _PAGE
#: What circusd tells where it cannot tell anything.
_UNKNOWN = "N/A"


class Figures:
    """Tells figures; CPU is what was used since the last time that it was asked for, in %."""

    def __init__(self) -> None:
        self._last: dict[tuple[int, int], tuple[float, float]] = {}
        self._started = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)

    def of(self, pid: int, thread: int | None, command: str) -> dict[str, Any]:
        """What circusd's `stats` tells of one process.

        Args:
            pid: The process.
            thread: The kernel's number of a thread in it, whose CPU is told instead; or None.
            command: What to show as its command line.
        """
        task = f"/proc/{pid}/task/{thread}/stat" if thread is not None else f"/proc/{pid}/stat"
        try:
            with open(task, encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
            with open(f"/proc/{pid}/statm", encoding="utf-8") as file:
                virtual, resident = [int(pages) * _PAGE for pages in file.read().split()[:2]]
            user = _user_of(pid)
        except (OSError, ValueError, IndexError):
            unknown = dict.fromkeys(_KEYS, _UNKNOWN)
            return {**unknown, "pid": pid, "cmdline": command, "children": []}
        used = (int(fields[11]) + int(fields[12])) / _TICKS
        started = self._started + int(fields[19]) / _TICKS
        return {
            "pid": pid,
            "cmdline": command,
            "username": user,
            "nice": int(fields[16]),
            "create_time": started,
            "age": time.time() - started,
            "ctime": f"{int(used) // 60}:{used % 60:05.2f}",
            "cpu": self._percent((pid, thread or 0), used, started),
            "mem": round(100 * resident / _MEMORY, 3),
            "mem_info1": _size(resident),
            "mem_info2": _size(virtual),
            "children": [],
        }

    def _percent(self, key: tuple[int, int], used: float, started: float) -> float:
        now = time.time()
        then, before = self._last.pop(key, (started, 0.0))
        self._last[key] = now, used
        while len(self._last) > 10_000:  # of processes that are long gone
            del self._last[next(iter(self._last))]
        return round(100 * max(0.0, used - before) / max(now - then, 1 / _TICKS), 1)


_KEYS = (
    *("username", "nice", "create_time", "age", "ctime", "cpu", "mem", "mem_info1", "mem_info2"),
)


def _user_of(pid: int) -> str:
    uid = os.stat(f"/proc/{pid}").st_uid
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)


def _size(size: float) -> str:
    for unit in ("B", "K", "M"):
        if size < 1024:
            return f"{size:.2f}{unit}" if unit != "B" else f"{size:.0f}{unit}"
        size /= 1024
    return f"{size:.2f}G"
