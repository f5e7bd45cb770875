# A made-up process of a FakeCircusd, and what circusd tells of one.
#
# Owner: the serving thread.

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ._steps import Pending

#: What a process has when nobody says otherwise, and what its machine has, in bytes.
DEFAULT_MEMORY = 1.5 * 1024**2
_CODE = 0.94 * 1024**2
_MACHINE = 25_000 * 1024**2
_UNITS = ((1024**3, "G"), (1024**2, "M"), (1024, "K"))


@dataclass(eq=False)
class Process:
    """A made-up process.

    Attributes:
        pid: Its made-up process id.
        wid: Its number in its watcher.
        started: When, in seconds since the epoch.
        stopping: Whether circusd has asked it to end, and waits.
        gone: Comes when it has ended: its exit code, negative for a signal.
    """

    pid: int
    wid: int
    started: float
    stopping: bool = False
    gone: Pending[int] = field(default_factory=Pending)

    @property
    def alive(self) -> bool:
        """Whether it has not ended. circusd may not know that yet."""
        return not self.gone.done()


def process_figures(
    pid: int,
    started: float,
    cmdline: str,
    now: float,
    memory: float = DEFAULT_MEMORY,
    cpu: float = 0.0,
) -> dict[str, Any]:
    """Return figures for one process, in the form of circusd's; *memory* is in bytes."""
    return {
        "mem_info1": _size(memory),
        "mem_info2": _size(memory + _CODE),
        "cpu": cpu,
        "mem": round(memory / _MACHINE * 100, 3),
        "ctime": "0:00.0",
        "pid": pid,
        "username": "nobody",
        "nice": 0,
        "create_time": started,
        "age": now - started,
        "cmdline": cmdline,
        "children": [],
    }


def _size(count: float) -> str:
    """A number of bytes as circusd writes it."""
    for unit, symbol in _UNITS:
        if count >= unit:
            return f"{count / unit:.2f}{symbol}"
    return f"{int(count)}B"
