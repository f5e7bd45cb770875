# What a host has under way: the life of a plugin, and something done on the supervising thread.

from __future__ import annotations

from typing import Any

from circusplug import Arbiter
from circusplug._host.supervisor import Supervisor
from circusplug._runners.thread_runner import ThreadRunner


def runner_of(supervisor: Supervisor, name: str) -> ThreadRunner:
    runner = supervisor._plugins[name].runner
    assert isinstance(runner, ThreadRunner)
    return runner


def order(arbiter: Arbiter, action: Any) -> Any:
    """Have something done on the supervising thread."""
    return arbiter._started.order(lambda supervisor: (action(supervisor), ()))
