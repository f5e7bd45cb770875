# A host with a plugin that makes trouble in a process of its own, and two that go on working, for
# the tests of isolated plugins.

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import psutil
from command import environment
from hosts import all_run
from patience import PATIENCE
from troublemakers import Talker, Troublemaker

from circusplug import Arbiter, PluginStatus
from circusplug._isolated.forkserver import FORKSERVER
from circusplug.testing import FakeCircusd


def forkserver() -> int:
    """The number of the process that isolated plugins' processes are forked from."""
    assert FORKSERVER.pid is not None
    return FORKSERVER.pid


class Scene:
    """A host with a troublemaker in a process of its own, and two that go on working."""

    def __init__(self, circusd: FakeCircusd, arbiter: Arbiter) -> None:
        self.circusd = circusd
        self.arbiter = arbiter

    @property
    def trouble(self) -> PluginStatus:
        return self.arbiter.plugins["trouble"]

    @property
    def process(self) -> psutil.Process:
        """The troublemaker's process."""
        return psutil.Process(self.trouble.pid)

    def make(self, what: str) -> None:
        """Have the troublemaker do something."""
        self.circusd.publish("web", what)

    def wait(self, predicate: Callable[[PluginStatus], object]) -> PluginStatus:
        """Wait until something holds for the troublemaker."""
        return self.arbiter.wait(lambda now: bool(predicate(now["trouble"])), PATIENCE)["trouble"]

    def wait_said(self, what: str, **properties: Any) -> Any:
        command = self.circusd.wait_command("say", timeout=PATIENCE, what=what, **properties)
        return command.properties

    def wait_replaced(self, restarts: int = 1) -> PluginStatus:
        """Wait until a new instance of the troublemaker runs."""
        return self.wait(
            lambda status: status.counters.restarts >= restarts and status.state == "running"
        )

    def assert_siblings_work(self) -> None:
        """Publish events, and wait until each of the siblings has handled all of them."""
        names = ("thread", "process")
        before = {name: self.arbiter.plugins[name].counters.handled for name in names}
        pids = {name: self.arbiter.plugins[name].pid for name in names}
        self.circusd.publish_many(100, "traffic", "passes")
        after = self.arbiter.wait(
            lambda now: all(now[name].counters.handled >= before[name] + 100 for name in names),
            PATIENCE,
        )
        assert {name: after[name].pid for name in names} == pids
        assert [after[name].counters.restarts for name in names] == [0, 0]
        assert [after[name].counters.errors for name in names] == [0, 0]


@contextlib.contextmanager
def scene(stop_timeout: float = PATIENCE, **options: Any) -> Iterator[Scene]:
    """Set the scene; the other options are the troublemaker's."""
    trouble = {
        "use": Troublemaker,
        "name": "trouble",
        "isolate": True,
        "host.restart_delay": 0.01,
        "host.graceful_timeout": 0.2,
        **options,
    }
    plugins = [
        {"use": Talker, "name": "thread"},
        trouble,
        {"use": Talker, "name": "process", "isolate": True},
    ]
    with (
        FakeCircusd() as circusd,
        # Long, as the siblings have to stop in it, too.
        Arbiter(
            plugins, circusd.endpoint, circusd.pubsub_endpoint, stop_timeout=stop_timeout
        ) as arbiter,
    ):
        arbiter.wait(all_run, PATIENCE)
        circusd.wait_subscribed(3, PATIENCE)
        yield Scene(circusd, arbiter)


def wait(
    arbiter: Arbiter, predicate: Callable[[PluginStatus], object], name: str = "one"
) -> PluginStatus:
    return arbiter.wait(lambda statuses: bool(predicate(statuses[name])), PATIENCE)[name]


def said(circusd: FakeCircusd, what: str, **properties: Any) -> Any:
    """Wait until a plugin has said something; returns what it said along with it."""
    return circusd.wait_command("say", timeout=PATIENCE, what=what, **properties).properties


def here() -> dict[str, str]:
    """An environment for programs that shall find what is found here."""
    return environment(PYTHONPATH=os.pathsep.join(sys.path), PYTHONUNBUFFERED="1")


def is_frozen(status: PluginStatus) -> bool:
    return bool(psutil.Process(status.pid).status() == psutil.STATUS_STOPPED)
