# A process that stands still, as after Ctrl-Z or in a debugger.

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop the process, and let it go on at the end.

    A signal takes its time: the process runs on until each of its threads was scheduled once.
    """
    os.kill(pid, signal.SIGSTOP)
    try:
        while not stands_still(pid):
            os.sched_yield()
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def stands_still(pid: int) -> bool:
    """Whether no thread of the process runs."""
    states = []
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread has ended
            states.append(stat.read_text().rpartition(") ")[2][0])
    return all(state in "TZX" for state in states)
