# A callback that runs too long is reported once, with the stack of the plugin's thread, wherever
# that runs; and a plugin that keeps the others waiting can be found.

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hosts import Host, hosts
from patience import PATIENCE
from troublemakers import Hog, Sleeper, Talker, Troublemaker

from circusplug import Arbiter, PluginStatus
from circusplug.testing import FakeCircusd

both_runners = pytest.mark.parametrize("isolate", [False, True], ids=["thread", "process"])


@pytest.fixture
def circusd() -> Iterator[FakeCircusd]:
    with FakeCircusd() as circusd:
        yield circusd


@pytest.fixture
def host(circusd: FakeCircusd) -> Iterator[Host]:
    """Runs plugins until the test ends."""
    with hosts(circusd, stop_timeout=1.0) as start:
        yield start


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Path]:
    """A pipe with a name; a plugin that opens it blocks until `wake`, or the end of the test."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    yield path
    os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))


def wake(pipe: Path) -> None:
    """Let the one go on that reads from a pipe, or is about to; there must be no other."""
    with pipe.open("w"):
        pass


def waking(
    pipe: Path, predicate: Callable[[dict[str, PluginStatus]], bool]
) -> Callable[[dict[str, PluginStatus]], bool]:
    """Let all go on that read from a pipe, again with each look: one may come to it later."""

    def look(now: dict[str, PluginStatus]) -> bool:
        os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))
        return predicate(now)

    return look


def wait(arbiter: Arbiter, predicate: Callable[[PluginStatus], object]) -> PluginStatus:
    return arbiter.wait(lambda now: bool(predicate(now["one"])), PATIENCE)["one"]


def sleeper(pipe: Path, **options: Any) -> dict[str, Any]:
    return {
        "use": Sleeper,
        "name": "one",
        "pipe": str(pipe),
        "host.stall_timeout": 0.2,
        **options,
    }


@both_runners
def test_a_stall_is_shown_while_it_lasts_and_counted(
    host: Host, circusd: FakeCircusd, pipe: Path, isolate: bool
) -> None:
    arbiter = host(sleeper(pipe, isolate=isolate))
    circusd.publish("web", "sleep")
    stalled = wait(arbiter, lambda status: status.state == "stalled" and status.counters.stalls)
    assert stalled.counters.stalls == 1
    assert str(stalled.last_error).startswith("stalled: a callback runs for more than 0.2")
    wake(pipe)
    after = wait(arbiter, lambda status: status.state == "running" and status.counters.handled == 1)
    assert after.pid == stalled.pid
    assert after.counters.stalls == 1


class AsleepAtOnce(Sleeper):
    """Blocks in the first callback of its loop, and no event wakes that loop before."""

    def handle_init(self) -> None:
        self.loop.add_callback(self.sleep_until_woken)


@both_runners
def test_a_stall_in_the_first_callback_is_reported_too(
    circusd: FakeCircusd, pipe: Path, isolate: bool
) -> None:
    # Without `host`, which waits to see it running: it may stall before anybody looks.
    plugin = sleeper(pipe, isolate=isolate, use=AsleepAtOnce)
    with Arbiter([plugin], circusd.endpoint, circusd.pubsub_endpoint) as arbiter:
        # On a busy machine its process and the watchdog may both tell of it, one after the other.
        wait(arbiter, lambda status: status.counters.stalls >= 1)
        wake(pipe)
        wait(arbiter, lambda status: status.state == "running")


@both_runners
def test_each_stall_is_reported_once_with_the_stack_of_the_plugins_thread(
    host: Host, circusd: FakeCircusd, pipe: Path, isolate: bool, caplog: pytest.LogCaptureFixture
) -> None:
    arbiter = host(
        sleeper(pipe, isolate=isolate),
        # Its stalls come later: by then the first one's could have been reported twice.
        sleeper(pipe, isolate=isolate, name="later", **{"host.stall_timeout": 0.5}),
    )
    sleep_once(circusd, arbiter, pipe, 1)
    sleep_once(circusd, arbiter, pipe, 2)
    reports = [
        record.getMessage()
        for record in caplog.records
        if record.getMessage().startswith("one has been busy with one callback for ")
    ]
    assert len(reports) == 2
    assert all("in sleep_until_woken" in report for report in reports)
    assert all('open(self.config["pipe"])' in report for report in reports)


def sleep_once(circusd: FakeCircusd, arbiter: Arbiter, pipe: Path, count: int) -> None:
    """Have both plugins stall for the `count`-th time, and go on."""
    circusd.publish("web", "sleep")
    after = arbiter.wait(
        lambda now: all(status.counters.stalls >= count for status in now.values()), PATIENCE
    )
    assert after["one"].counters.stalls == count
    arbiter.wait(
        waking(pipe, lambda now: all(status.counters.handled == count for status in now.values())),
        PATIENCE,
    )


@both_runners
def test_a_plugin_without_a_stall_timeout_may_take_its_time(
    host: Host, circusd: FakeCircusd, pipe: Path, isolate: bool
) -> None:
    arbiter = host(
        sleeper(pipe, isolate=isolate, **{"host.stall_timeout": 0}),
        sleeper(pipe, isolate=isolate, name="measure"),
    )
    circusd.publish("web", "sleep")
    after = arbiter.wait(
        lambda now: now["measure"].counters.stalls == 1 and now["one"].counters.received == 1,
        PATIENCE,
    )
    assert (after["one"].state, after["one"].counters.stalls) == ("running", 0)
    arbiter.wait(waking(pipe, lambda now: now["one"].counters.handled == 1), PATIENCE)


def test_an_isolated_plugin_that_stalls_can_be_restarted(
    host: Host, circusd: FakeCircusd, pipe: Path
) -> None:
    options = {"host.on_stall": "restart", "host.restart_delay": 0.01}
    arbiter = host(sleeper(pipe, isolate=True, **options))
    before = arbiter.plugins["one"].pid or 0
    process = psutil.Process(before)
    circusd.publish("web", "sleep")
    after = wait(
        arbiter, lambda status: status.counters.restarts == 1 and status.state == "running"
    )
    assert after.counters.stalls == 1
    assert after.pid != before
    process.wait(PATIENCE)

    def handles(status: PluginStatus) -> bool:
        # Until one gets through: the subscription that is counted may still be the old one.
        circusd.publish("web", "spawn")
        return status.counters.handled > 0

    wait(arbiter, handles)


def test_a_plugin_that_keeps_the_interpreter_busy_shows_as_lag_of_the_others(
    host: Host, circusd: FakeCircusd
) -> None:
    arbiter = host(
        {"use": Talker, "name": "one", "host.stall_timeout": 0.1}, {"use": Hog, "name": "hog"}
    )

    def lags(now: dict[str, PluginStatus]) -> bool:
        if now["hog"].counters.handled == now["hog"].counters.received:
            circusd.publish("web", "spawn")
        # On a busy machine it may stall itself for a moment.
        return now["one"].counters.lag > 0.01 and now["one"].state == "running"

    arbiter.wait(lags, PATIENCE)


def test_a_stall_of_one_does_not_keep_the_others_from_working(
    host: Host, circusd: FakeCircusd, pipe: Path
) -> None:
    arbiter = host(
        sleeper(pipe),
        {"use": Troublemaker, "name": "thread"},
        {"use": Troublemaker, "name": "process", "isolate": True},
    )
    circusd.publish("web", "sleep")
    wait(arbiter, lambda status: status.state == "stalled")
    circusd.publish_many(100, "web", "spawned")
    arbiter.wait(
        lambda now: now["thread"].counters.handled == now["process"].counters.handled == 101,
        PATIENCE,
    )
    assert arbiter.plugins["one"].counters.handled == 0
    wake(pipe)
    wait(arbiter, lambda status: status.counters.handled == 101)
