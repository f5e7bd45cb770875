# The contenders of a row, each a process that waits for its turn, and the stand-in that gives
# them something to do: started together, measured in turn, so that what disturbs the machine
# disturbs all of them.

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from .processes import end, wait_quiet
from .standin import StandIn


@dataclass
class Runner:
    """One contender: its process, its event socket, the thread that receives."""

    kind: str
    number: int
    process: subprocess.Popen[str]
    thread: int = 0

    def hear(self) -> Any:
        """The next thing that it says.

        Raises:
            RuntimeError: It has ended.
        """
        stream: IO[str] | None = self.process.stdout
        line = stream.readline() if stream else ""
        if not line:
            raise RuntimeError(f"the contender {self.kind!r} has ended")
        return json.loads(line)

    def settle(self) -> None:
        """Wait until it has done all that it had to do."""
        wait_quiet([self.process.pid])


@contextlib.contextmanager
def contenders(
    mode: str, kinds: dict[str, list[str]], *, sndhwm: int = 0, pinned: bool = True
) -> Iterator[tuple[StandIn, list[Runner]]]:
    """Start the stand-in for circusd and contenders, subscribed and at rest.

    Args:
        mode: What they do, see `contender`.
        kinds: Their names and options; what follows a blank in a name only tells them apart.
        sndhwm: How many events the stand-in keeps for one that is slow; 0 for all.
        pinned: Whether to give the stand-in and the contenders a core each, and keep both
            awake: where the scheduler puts their threads, and how long a core takes to wake
            up, is otherwise most of what is measured.
    """
    with contextlib.ExitStack() as stack:
        stand_in = stack.enter_context(StandIn(len(kinds), sndhwm))
        if pinned:
            stack.enter_context(_awake())
            _pin(stand_in.pid, first=True)
        runners = []
        for number, (name, options) in enumerate(kinds.items()):
            kind = name.split()[0]
            program = [sys.executable, "-m", "benchmarks.contender", kind, mode]
            process = subprocess.Popen(
                [*program, stand_in.pubsub[number], stand_in.endpoint, *options],
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(end, process)
            if pinned:
                _pin(process.pid, first=False)
            runners.append(Runner(name, number, process))
        for runner in runners:
            runner.thread = runner.hear()["thread"]
            stand_in.wait_subscribed(runner.number)
        for runner in runners:
            runner.settle()
        yield stand_in, runners


def _pin(pid: int, *, first: bool) -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(pid, {cores[0] if first else cores[-1]})


@contextlib.contextmanager
def _awake() -> Iterator[None]:
    """Keep the cores from going to sleep, by processes that run only when nobody else wants."""
    program = "import os\nos.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile 1: 0"
    with contextlib.ExitStack() as stack:
        cores = sorted(os.sched_getaffinity(0))
        for core in {cores[0], cores[-1]}:
            process = subprocess.Popen([sys.executable, "-S", "-c", program])
            stack.callback(end, process)
            os.sched_setaffinity(process.pid, {core})
        yield
