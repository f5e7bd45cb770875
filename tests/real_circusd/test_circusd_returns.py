# A real circusd dies by kill -9 and comes back, again and again, under a host that keeps running.

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from circusd_real import IDLE_COMMAND, RealCircusd
from patience import PATIENCE

from circusplug import Arbiter, CallTimeout, CircusPlugin

#: How often circusd dies.
ROUNDS = 3


class Follows(CircusPlugin):
    """Notes the watchers it hears of, and reads them anew when circusd is back."""

    def handle_init(self) -> None:
        self.changed = threading.Condition()
        self.heard: set[str] = set()
        self.known: list[list[str]] = []

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        with self.changed:
            self.heard.add(self.parse_event(data).watcher)
            self.changed.notify_all()

    def handle_reconnect(self) -> None:
        watchers = self.call("list")["watchers"]
        with self.changed:
            self.known.append(watchers)
            self.changed.notify_all()

    def wait_known(self, count: int) -> None:
        """Wait until `handle_reconnect` has read the watchers that often."""
        assert self.wait(lambda: len(self.known) == count)

    def wait(self, predicate: Callable[[], bool], timeout: float = PATIENCE) -> bool:
        with self.changed:
            return self.changed.wait_for(predicate, timeout)


class Awaits(Follows):
    """The same, asynchronously."""

    async def handle_recv(self, data: tuple[bytes, bytes]) -> None:  # type: ignore[override]
        super().handle_recv(data)

    async def handle_reconnect(self) -> None:  # type: ignore[override]
        watchers = (await self.call_async("list"))["watchers"]
        with self.changed:
            self.known.append(watchers)
            self.changed.notify_all()


def sockets() -> int:
    """How many sockets this process has, and what ZMQ wakes its threads with."""
    targets = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            targets.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:  # the one that listed the directory
            continue
    return sum(target.startswith(("socket:", "anon_inode:")) for target in targets)


@pytest.mark.timeout(300)  # it starts a circusd often, which takes long on a busy machine
def test_a_host_outlives_circusd_as_often_as_it_dies() -> None:
    plugins: list[dict[str, Any]] = [
        {"use": use, "name": f"{use.__name__}{number}"}
        for use in (Follows, Awaits)
        for number in "12"
    ]
    with (
        RealCircusd(check_delay=0.1) as circusd,
        Arbiter(plugins, circusd.endpoint, circusd.pubsub_endpoint) as arbiter,
    ):
        followers: list[Follows] = [arbiter.instance(name) for name in arbiter.plugins]
        hear_of(circusd, followers, "at_first")
        threads, before = set(threading.enumerate()), sockets()

        for number in range(1, ROUNDS + 1):
            circusd.kill()
            for follower in followers:
                with pytest.raises(CallTimeout):
                    follower.call("list", timeout=0.01)
            circusd.start()
            for follower in followers:
                follower.wait_known(number)
            hear_of(circusd, followers, f"round_{number}")

        assert set(threading.enumerate()) <= threads  # the look at the endpoints is over
        statuses = arbiter.plugins.values()
        assert [status.state for status in statuses] == ["running"] * len(plugins)
        assert [status.counters.reconnects for status in statuses] == [ROUNDS] * len(plugins)
        assert {status.counters.errors for status in statuses} == {0}
        # libzmq frees what belonged to a closed socket on a thread of its own.
        arbiter.wait(lambda _: sockets() <= before, PATIENCE)


def hear_of(circusd: RealCircusd, followers: list[Follows], name: str) -> None:
    """Have circusd publish until every plugin has heard of it.

    A subscription takes a moment to arrive, and a real circusd does not tell when it has.
    """
    for turn in range(1000):
        watcher = f"{name}.{turn}"
        reply = circusd.call("add", name=watcher, cmd=IDLE_COMMAND, start=False)
        assert reply["status"] == "ok"
        if all(
            each.wait(
                lambda each=each: any(item.startswith(f"{name}.") for item in each.heard), 0.05
            )
            for each in followers
        ):
            return
    pytest.fail(f"not everybody heard of {name}")
