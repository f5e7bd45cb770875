# A circusd that comes later, or goes and comes back: what a plugin is told, and that nothing it
# needs of a circusd that is not there counts as its failure.

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any, cast

import pytest
from command import Running, plugin, write_ini
from hosts import all_run
from members import Journal, Member, in_thread, state_is
from patience import PATIENCE, wait_while

from circusplug import Arbiter, CallTimeout, SpecError
from circusplug._loop.plugin_loop import PluginLoop
from circusplug._plugin.late_circusd import Wait, is_away
from circusplug.testing import FakeCircusd

pytestmark = pytest.mark.circusd_leaves


class Asks(Member):
    """Needs circusd in its `handle_init`."""

    made = 0

    def handle_init(self) -> None:
        self.note("init")
        self.call("list", timeout=0.05)
        self.note("knows")

    def handle_connect(self) -> None:
        self.note("connect")

    def handle_reconnect(self) -> None:
        self.note("reconnect")


class Follows(Asks):
    def handle_init(self) -> None:
        self.note("init")


@pytest.fixture
def late(fake_circusd: FakeCircusd, absent_soon: None) -> FakeCircusd:
    """A circusd that is not there yet."""
    fake_circusd.stop()
    return fake_circusd


def hosting(circusd: FakeCircusd, use: type, journal: Journal, **options: Any) -> Arbiter:
    plugin = {"use": use, "name": "a", "journal": journal, **options}
    return Arbiter([plugin], circusd.endpoint, circusd.pubsub_endpoint)


def test_a_plugin_that_needs_circusd_waits_for_it_at_no_cost(
    late: FakeCircusd, journal: Journal
) -> None:
    never = {"host.restart": "never", "host.max_restarts": 0}
    with hosting(late, Asks, journal, **never) as arbiter:
        status = arbiter.wait(state_is("a", "waiting"), PATIENCE)["a"]
        assert "circusd cannot be reached" in (status.last_error or "")
        first = journal.count("a", "init")
        late.start()
        status = arbiter.wait(all_run, PATIENCE)["a"]
        journal.wait("a", "connect")
        assert status.counters.restarts == 0
        assert first == 1
    assert journal.of("a")[-3:] == ["knows", "connect", "stop"]
    assert journal.count("a", "stop") == 1


def test_one_that_waits_can_be_stopped(late: FakeCircusd, journal: Journal) -> None:
    with hosting(late, Asks, journal) as arbiter:
        arbiter.wait(state_is("a", "waiting"), PATIENCE)
        arbiter.stop_plugin("a")
        assert arbiter.plugins["a"].state == "stopped"
    assert journal.of("a") == ["init"]


def test_what_fails_while_circusd_is_there_is_a_failure(
    fake_circusd: FakeCircusd, journal: Journal
) -> None:
    class Fails(Member):
        def handle_init(self) -> None:
            raise ZeroDivisionError("a defect")

    never = {"host.restart": "never"}
    with hosting(fake_circusd, Fails, journal, **never) as arbiter:
        status = arbiter.wait(state_is("a", "failed"), PATIENCE)["a"]
        assert status.last_error == "ZeroDivisionError: a defect"


def test_an_option_that_does_not_fit_is_a_failure_whether_circusd_is_there_or_not(
    late: FakeCircusd, journal: Journal
) -> None:
    class Refuses(Member):
        def handle_init(self) -> None:
            raise SpecError("'level' is none of low, high")

    with hosting(late, Refuses, journal, **{"host.restart": "never"}) as arbiter:
        status = arbiter.wait(state_is("a", "failed", "waiting"), PATIENCE)["a"]
        assert status.state == "failed"
        assert "'level' is none of low, high" in (status.last_error or "")


def test_it_is_told_each_time_that_the_connection_comes_to_stand(
    fake_circusd: FakeCircusd, journal: Journal
) -> None:
    with hosting(fake_circusd, Follows, journal) as arbiter:
        arbiter.wait(all_run, PATIENCE)
        journal.wait("a", "connect")
        fake_circusd.wait_subscribed(1, PATIENCE)
        fake_circusd.publish("web", "spawn")
        journal.wait("a", "spawn")
        assert journal.of("a") == ["init", "connect", "spawn"]
        fake_circusd.restart()
        journal.wait("a", "reconnect")
        fake_circusd.wait_subscribed(1, PATIENCE)
        fake_circusd.publish("web", "reap")
        journal.wait("a", "reap")
    assert journal.of("a") == ["init", "connect", "spawn", "connect", "reconnect", "reap", "stop"]


def test_it_is_told_of_a_first_connection_that_comes_late(
    late: FakeCircusd, journal: Journal
) -> None:
    with hosting(late, Follows, journal) as arbiter:
        arbiter.wait(all_run, PATIENCE)
        assert journal.of("a") == ["init"]
        late.start()
        journal.wait("a", "connect")
        late.wait_subscribed(1, PATIENCE)
        late.publish("web", "spawn")
        journal.wait("a", "spawn")
    assert journal.of("a") == ["init", "connect", "spawn", "stop"]


def test_a_failing_handle_connect_does_not_make_it_deaf(
    fake_circusd: FakeCircusd, journal: Journal
) -> None:
    class Fails(Follows):
        async def handle_connect(self) -> None:
            raise ZeroDivisionError("in handle_connect")

    with hosting(fake_circusd, Fails, journal) as arbiter:
        arbiter.wait(all_run, PATIENCE)
        fake_circusd.wait_subscribed(1, PATIENCE)
        fake_circusd.publish("web", "spawn")
        journal.wait("a", "spawn")
        assert arbiter.plugins["a"].counters.errors == 1


def test_a_command_started_before_circusd_loses_no_plugin(
    late: FakeCircusd, tmp_path: Path
) -> None:
    callers = (
        plugin(name, "tellers.Caller", isolate=isolate, host_max_restarts=0, patience=0.2)
        for name, isolate in (("thread", "no"), ("process", "yes"))
    )
    path = write_ini(tmp_path, late.endpoint, late.pubsub_endpoint, *callers)
    with Running(tmp_path, "run", path) as command:
        command.wait_for("it starts again when circusd is there", 2)
        late.start()
        command.wait_for_all("thread: finds []", "process: finds []")
        late.wait_subscribed(2, PATIENCE)
        command.signal(signal.SIGTERM)
        assert command.end() == 0


# What counts as absent, and the wait: without sockets.


class Standing:
    """A connection that stands, or does not."""

    def __init__(self, up: bool) -> None:
        self.up = up
        self.on_change: Any = None

    def look(self) -> bool:
        return self.up

    def watch(self, loop: PluginLoop, on_change: Any) -> None:
        self.on_change = on_change
        loop.call_soon(on_change, False)  # which is none of its business

    def unwatch(self) -> None:
        self.on_change = None


def raised(error: BaseException, cause: bool | None) -> BaseException:
    """An error as it is, or another one that it has led to."""
    try:
        try:
            raise error
        except BaseException as caught:
            if cause is None:
                raise
            raise RuntimeError("in handle_init") from (caught if cause else None)
    except BaseException as found:
        return found


UNSENT = CallTimeout("list", {}, 5.0, "circusd cannot be reached")
UNANSWERED = CallTimeout("list", {}, 5.0, "no reply")


@pytest.mark.parametrize("cause", [None, True, False], ids=["itself", "cause", "context"])
@pytest.mark.parametrize(
    ("error", "up", "away"),
    [(UNSENT, True, True), (UNANSWERED, True, False), (ZeroDivisionError(), False, True)],
)
def test_circusd_is_away_if_a_command_could_not_be_sent_whatever_came_of_it(
    error: BaseException, up: bool, away: bool, cause: bool | None
) -> None:
    assert is_away(cast(Any, Standing(up)), raised(error, cause)) is away


def test_the_wait_ends_when_the_connection_stands_and_leaves_it_alone() -> None:
    connection, wait = Standing(False), Wait()
    waiting = threading.Thread(
        target=in_thread, args=(lambda: wait.until_up(cast(Any, connection)),)
    )
    waiting.start()
    wait_while(lambda: connection.on_change is None or wait._loop is None)
    on_change, loop = connection.on_change, wait._loop
    assert loop is not None
    loop.post(on_change, True)
    waiting.join(PATIENCE)
    assert not waiting.is_alive()
    assert connection.on_change is None
    assert loop.is_closed()


def test_a_wait_that_was_given_up_before_it_began_ends_at_once() -> None:
    wait = Wait()
    wait.give_up()
    in_thread(lambda: wait.until_up(cast(Any, Standing(False))))


def test_with_the_events_connected_it_tries_again_in_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    delays: list[float] = []

    def call_later(self: PluginLoop, delay: float, callback: Any) -> None:
        delays.append(delay)
        self.call_soon(callback)

    monkeypatch.setattr(PluginLoop, "call_later", call_later)
    in_thread(lambda: Wait().until_up(cast(Any, Standing(True))))
    assert delays == [1.0]
