# What a plugin has counted goes over to its next life: `get_state` and `set_state`.

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from members import Journal, MakeHost, Member, hosting, member, state_is
from patience import PATIENCE
from troublemakers import HandsOver

from circusplug import Arbiter
from circusplug._isolated.messages import STATE_LIMIT
from circusplug.testing import FakeCircusd


class Counts(Member):
    """Counts its events, and one more for its stop."""

    def handle_init(self) -> None:
        self.count, self.hears = 0, False
        super().handle_init()

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        if self.parse_event(data).action == "updated":  # only asks whether it hears already
            self.hears = True
            return
        self.count += 1
        super().handle_recv(data)

    def handle_stop(self) -> None:
        self.count += 1
        super().handle_stop()

    def get_state(self) -> Any:
        self.note("get")
        return {"count": self.count}

    def set_state(self, state: Any) -> None:
        self.count = state["count"]
        self.note(f"set {self.count}")


def count_one(arbiter: Arbiter, circusd: FakeCircusd, journal: Journal, lives: int = 1) -> None:
    def hears(_: object) -> bool:
        circusd.publish("web", "updated")  # its subscription may come late
        return arbiter.instance("a").hears

    arbiter.wait(hears, PATIENCE)
    circusd.publish("web", "spawn")
    journal.wait("a", "spawn", lives)


def reconfigured(arbiter: Arbiter) -> None:
    (a,) = arbiter.config.plugins
    config = {**a.config, "colour": "red"}
    arbiter.reconfigure(replace(arbiter.config, plugins=(replace(a, config=config),)))


def restarted(arbiter: Arbiter) -> None:
    arbiter.restart_plugin("a")


@pytest.mark.parametrize("change", [restarted, reconfigured])
def test_a_new_life_goes_on_with_what_the_old_one_has_counted(
    change: Callable[[Arbiter], None], host: MakeHost, journal: Journal, fake_circusd: FakeCircusd
) -> None:
    arbiter = host(member("a", Counts))
    with hosting(arbiter):
        arbiter.wait(state_is("a", "running"), PATIENCE)
        count_one(arbiter, fake_circusd, journal)
        change(arbiter)
        journal.wait("a", "set 2")
        assert journal.thread("a", "get") is journal.thread("a", "stop")
        set_by = journal.thread("a", "set 2")
        arbiter.wait(state_is("a", "running"), PATIENCE)
        count_one(arbiter, fake_circusd, journal, 2)
        assert set_by.name == "plugin:a"
        change(arbiter)
        journal.wait("a", "set 4") if change is restarted else None
    one, end = ["init", "spawn", "stop", "get"], ["init", "stop"]
    if change is restarted:
        assert journal.of("a") == [*one, "init", "set 2", *one[1:], "init", "set 4", "stop"]
    else:  # the second time nothing has changed
        assert journal.of("a") == [*one, end[0], "set 2", "spawn", end[1]]


def test_a_stop_or_a_failure_or_another_class_hands_nothing_over(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd
) -> None:
    class Failing(Counts):
        def handle_recv(self, data: tuple[bytes, bytes]) -> None:
            super().handle_recv(data)
            if self.count:
                raise ZeroDivisionError("cannot handle it")

    class Other(Counts):
        pass

    options = {"host.on_error": "restart", "host.restart_delay": 0}
    with host(member("a", Failing, **options)) as arbiter:
        arbiter.stop_plugin("a")
        arbiter.start_plugin("a")
        count_one(arbiter, fake_circusd, journal)
        journal.wait("a", "init", 3)
        arbiter.wait(state_is("a", "running"), PATIENCE)
        assert journal.count("a", "get") == 0
        (a,) = arbiter.config.plugins
        arbiter.reconfigure(replace(arbiter.config, plugins=(replace(a, use=Other),)))
    assert journal.of("a")[-3:] == ["get", "init", "stop"]


def test_a_stop_that_overtakes_a_restart_hands_nothing_over(
    host: MakeHost, journal: Journal
) -> None:
    def restart_and_stop(supervisor: Any) -> tuple[None, tuple[()]]:
        supervisor._plugins["a"].restart()
        supervisor._plugins["a"].stop()
        return None, ()

    with host(member("a", Counts)) as arbiter:
        arbiter._started.order(restart_and_stop)
        arbiter.wait(state_is("a", "stopped"), PATIENCE)
        arbiter.start_plugin("a")
    assert journal.of("a") == ["init", "stop", "get", "init", "stop"]


def test_one_of_the_two_methods_alone_may_be_anything(host: MakeHost, journal: Journal) -> None:
    class Own(Member):
        def get_state(self, watcher: str) -> str:
            return watcher

    with host(member("a", Own)) as arbiter:
        arbiter.restart_plugin("a")
        assert arbiter.plugins["a"].counters.errors == 0
    assert journal.of("a") == ["init", "stop", "init", "stop"]


class FailsToStop(Counts):
    def handle_stop(self) -> None:
        super().handle_stop()
        raise ValueError("no good")


class FailsToGet(Counts):
    def get_state(self) -> Any:
        raise ValueError("no good")


class GetsAsync(Counts):
    async def get_state(self) -> Any:
        return {"count": 7}


@pytest.mark.parametrize("use", [FailsToStop, FailsToGet, GetsAsync])
def test_what_fails_at_the_end_is_told_of_and_hands_nothing_over(
    use: type, host: MakeHost, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    with host(member("a", use)) as arbiter:
        arbiter.restart_plugin("a")
        assert arbiter.plugins["a"].state == "running"
        assert arbiter.plugins["a"].counters.errors == 1
    what = "handle_stop" if use is FailsToStop else "get_state"
    assert f"a: {what} failed" in caplog.text
    assert journal.of("a") == ["init", "stop", "init", "stop"]


def test_a_set_state_that_fails_is_told_of_and_the_plugin_runs_without(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd, caplog: pytest.LogCaptureFixture
) -> None:
    class FailsToSet(Counts):
        def set_state(self, state: Any) -> None:
            raise ValueError("no good")

    with host(member("a", FailsToSet)) as arbiter:
        arbiter.restart_plugin("a")
        count_one(arbiter, fake_circusd, journal)
        assert arbiter.instance("a").count == 1
        assert "a: set_state failed" in caplog.text
        assert arbiter.plugins["a"].last_error == "set_state: ValueError: no good"
    assert journal.of("a") == ["init", "stop", "get", "init", "spawn", "stop"]


@pytest.mark.leaves_thread("its set_state does not return before the host has gone on")
def test_a_set_state_that_hangs_is_a_start_that_takes_too_long(
    host: MakeHost, journal: Journal, release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    class HangsInSet(Counts):
        def set_state(self, state: Any) -> None:
            super().set_state(state)
            release.wait(PATIENCE)

    monkeypatch.setattr("circusplug._host.managed_plugin.READY_WAIT", 0.0)
    options = {"host.start_timeout": 0.3, "host.restart": "never"}
    with host(member("a", HangsInSet, **options)) as arbiter:
        arbiter.wait(state_is("a", "running"), PATIENCE)
        arbiter.restart_plugin("a")
        arbiter.wait(state_is("a", "failed"), PATIENCE)
        release.set()


@pytest.mark.parametrize("stopped", [False, True], ids=["", "stopped"])
def test_the_state_waits_for_circusd_with_the_plugin_unless_that_is_stopped(
    stopped: bool, host: MakeHost, journal: Journal, fake_circusd: FakeCircusd, absent_soon: None
) -> None:
    class Asks(Counts):
        def handle_init(self) -> None:
            self.call("list", timeout=0.1)
            super().handle_init()

    with host(member("a", Asks)) as arbiter:
        fake_circusd.stop()
        arbiter.wait(lambda now: not now["a"].connected, PATIENCE)
        arbiter.restart_plugin("a")
        arbiter.wait(state_is("a", "waiting"), PATIENCE)
        if stopped:
            arbiter.stop_plugin("a")
            arbiter.start_plugin("a")
        fake_circusd.start()
        journal.wait("a", "init", 2)
        arbiter.wait(state_is("a", "running"), PATIENCE)
    assert journal.of("a") == [
        "init",
        "stop",
        "get",
        "init",
        *([] if stopped else ["set 1"]),
        "stop",
    ]


def test_a_state_is_for_one_life_that_comes_to_run(host: MakeHost, journal: Journal) -> None:
    class Fragile(Counts):
        def handle_init(self) -> None:
            super().handle_init()
            if self.journal.count(self.label, "init") == 2:
                raise ValueError("no good")

        def get_state(self) -> Any:
            state = super().get_state()
            return state if self.journal.count(self.label, "get") != 3 else None

    with host(member("a", Fragile, **{"host.restart_delay": 0})) as arbiter:
        arbiter.restart_plugin("a")  # fails, and what it was given may be why
        journal.wait("a", "init", 3)
        arbiter.wait(state_is("a", "running"), PATIENCE)
        arbiter.restart_plugin("a")
        arbiter.restart_plugin("a")  # hands nothing over
    one = ["stop", "get", "init"]
    assert journal.of("a") == ["init", *one, "init", *one, "set 1", *one, "stop"]


@pytest.fixture
def alone(fake_circusd: FakeCircusd, unhurried: None) -> Iterator[Callable[[str], Arbiter]]:
    arbiters = []

    def start(hands: str) -> Arbiter:
        spec = {"use": HandsOver, "name": "a", "isolate": True, "hands": hands}
        arbiter = Arbiter(
            [spec | {"host.restart_delay": 0}], fake_circusd.endpoint, fake_circusd.pubsub_endpoint
        )
        arbiters.append(arbiter)
        return arbiter.__enter__()

    yield start
    for arbiter in arbiters:
        arbiter.stop()


def wait_said(arbiter: Arbiter, circusd: FakeCircusd, *what: str) -> None:
    def said() -> list[str]:
        return [each.properties["what"] for each in circusd.commands if each.command == "say"]

    arbiter.wait(lambda _: len(said()) >= len(what), PATIENCE)
    assert said() == list(what)


def test_the_state_of_an_isolated_plugin_crosses_to_its_next_process_as_json(
    alone: Callable[[str], Arbiter], fake_circusd: FakeCircusd
) -> None:
    arbiter = alone("it")
    arbiter.restart_plugin("a")
    command = fake_circusd.wait_command("say", timeout=PATIENCE, what="set")
    assert command.properties["state"] == {"numbers": [1, 2], "text": '"\u2028\\é\x1b'}
    fake_circusd.wait_subscribed(1, PATIENCE)
    fake_circusd.publish("web", "spawn")
    arbiter.wait(lambda now: now["a"].counters.restarts == 1, PATIENCE)
    arbiter.wait(state_is("a", "running"), PATIENCE)
    wait_said(arbiter, fake_circusd, "init", "init", "set", "init")


@pytest.mark.parametrize(
    ("hands", "why"),
    [("long", f"{STATE_LIMIT + 2} bytes of JSON are too much"), ("odd", "set is not JSON")],
)
def test_what_cannot_cross_is_told_of_and_the_plugin_starts_without(
    hands: str,
    why: str,
    alone: Callable[[str], Arbiter],
    fake_circusd: FakeCircusd,
    caplog: pytest.LogCaptureFixture,
) -> None:
    arbiter = alone(hands)
    arbiter.restart_plugin("a")
    wait_said(arbiter, fake_circusd, "init", "init")
    arbiter.wait(lambda _: "a: get_state: not handed over: " in caplog.text, PATIENCE)
    assert why in caplog.text
