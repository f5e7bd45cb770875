# What the kernel tells about processes from outside: CPU time, memory, wake-ups. Nothing is
# measured inside a contender that could be measured here.

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil

#: How long a process may take to end after SIGTERM, in seconds.
END_WAIT = 20.0


def cpu_seconds(pid: int) -> float:
    """CPU time of a process with all its threads, exact to the nanosecond.

    By the clock that clock_getcpuclockid(3) names: 10 ms, which /proc tells, is too coarse.
    """
    return time.clock_gettime((~pid << 3) | 2)


def thread_cpu_seconds(pid: int, thread: int) -> float:
    """CPU time of one thread; exact while it sleeps."""
    return int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0]) / 1e9


def all_cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time of several processes together; one that is gone counts nothing."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += cpu_seconds(pid)
    return total


def pss(pids: Iterable[int]) -> float:
    """Memory of several processes in bytes, what they share counted once (smaps_rollup)."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return float(total)


def wake_ups(pids: Iterable[int]) -> int:
    """How often threads of these processes went to sleep of their own accord, so far."""
    total = 0
    for pid in pids:
        for status in Path(f"/proc/{pid}/task").glob("*/status"):
            with contextlib.suppress(OSError):
                for line in status.read_text().splitlines():
                    if line.startswith("voluntary_ctxt_switches"):
                        total += int(line.split()[1])
    return total


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    process = psutil.Process(pid)
    return [pid, *(child.pid for child in process.children(recursive=True))]


def wait_quiet(pids: Sequence[int], seconds: float = 0.03, timeout: float = 60.0) -> None:
    """Wait until processes have used no CPU for some seconds: they have done what they had to.

    Raises:
        TimeoutError: They go on using CPU.
    """
    deadline = time.monotonic() + timeout
    last, since = -1.0, time.monotonic()
    while time.monotonic() < deadline:
        used = all_cpu_seconds(pids)
        if used != last or any(map(_runnable, pids)):
            last, since = used, time.monotonic()
        elif time.monotonic() - since >= seconds:
            return
        time.sleep(seconds / 6)
    raise TimeoutError(f"processes {list(pids)} are still busy after {timeout:g} s")


def _runnable(pid: int) -> bool:
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            if stat.read_text().rpartition(")")[2].split()[0] in "RD":  # running, or on the disk
                return True
    return False


def end(process: subprocess.Popen[Any]) -> None:
    """End a process and whatever it has started."""
    try:
        pids = tree(process.pid)
    except psutil.NoSuchProcess:
        pids = []
    process.terminate()
    try:
        process.wait(END_WAIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in pids[1:]:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()
