# What a host is told to change through its control endpoint: carried out in order, answered when
# it is done if somebody waits, and never lost without a word.

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest
from hosts import all_run
from members import Journal, Stuck, hosting, member, state_is
from patience import PATIENCE
from steered import Steered, control_ends, steered
from troublemakers import Talker
from wire import Wire

from circusplug import Arbiter
from circusplug._config import ini_file
from circusplug._host import steering
from circusplug.testing import FakeCircusd


class Broken(Talker):
    """Refuses its options once they say so."""

    broken = False

    @classmethod
    def check_config(cls, config: object) -> None:
        if cls.broken:
            raise ValueError("broken by now")


@pytest.fixture
def host(fake_circusd: FakeCircusd) -> Iterator[Steered]:
    plugins = [{"use": Talker, "name": name} for name in ("a", "b", "c")]
    with steered(fake_circusd, *plugins) as host:
        yield host


@pytest.mark.parametrize("waiting", [True, False])
def test_stop_start_and_restart_change_a_plugin(host: Steered, waiting: bool) -> None:
    host.ok("stop", name="plugin:a", waiting=waiting)
    if not waiting:
        host.wait("a", "stopped")
    assert host.status("a").state == "stopped"
    host.ok("start", name="plugin:a", waiting=waiting)
    before = host.wait("a", "running").thread
    host.ok("restart", name="plugin:a", waiting=waiting)
    host.arbiter.wait(
        lambda now: now["a"].thread not in (None, before) and now["a"].state == "running", PATIENCE
    )
    assert [host.status(name).counters.restarts for name in ("b", "c")] == [0, 0]


@pytest.mark.parametrize(
    ("properties", "stopped"),
    [
        ({"name": "plugin:[ab]"}, "ab"),
        ({"name": "PLUGIN:*"}, "abc"),
        ({"name": "*"}, "abc"),
        ({}, "abc"),
        ({"name": "plugin:(a|c)", "match": "regex"}, "ac"),
        ({"name": "plugin:b", "match": "simple"}, "b"),
    ],
)
def test_a_name_means_as_many_plugins_as_it_does_to_circusd(
    host: Steered, properties: dict[str, str], stopped: str
) -> None:
    host.ok("stop", waiting=True, **properties)
    states = {name: status.state for name, status in host.arbiter.plugins.items()}
    assert states == {name: "stopped" if name in stopped else "running" for name in "abc"}


def test_a_pattern_that_means_nothing_is_refused(host: Steered) -> None:
    assert host.refused("stop", name="plugin:x*")[0] == 3
    assert host.refused("stop", name="plugin:*", match="simple")[0] == 3
    assert host.refused("stop", name="[", match="regex")[0] == 5
    assert host.refused("stop", name="a", match="fuzzy") == (3, "unknown match method fuzzy")
    assert all_run(host.arbiter.plugins)


@pytest.mark.parametrize("rounds", [1, 50])
def test_commands_about_one_plugin_take_effect_in_order(host: Steered, rounds: int) -> None:
    for _ in range(rounds):
        host.wire.request("stop", name="plugin:a")
        host.wire.request("start", name="plugin:a")
    for _ in range(2 * rounds):
        assert host.wire.receive()["status"] == "ok"
    host.ok("start", name="plugin:a", waiting=True)
    assert host.status("a").state == "running"
    for _ in range(rounds):
        host.wire.request("start", name="plugin:a")
        host.wire.request("stop", name="plugin:*")
        assert {host.wire.receive()["status"], host.wire.receive()["status"]} == {"ok"}
    host.ok("stop", name="plugin:a", waiting=True)
    assert host.status("a").state == "stopped"


def test_a_slow_stop_holds_up_neither_other_plugins_nor_questions(
    fake_circusd: FakeCircusd, journal: Journal, release: threading.Event
) -> None:
    stuck = member(
        "s", Stuck, journal=journal, release=release, **{"host.graceful_timeout": PATIENCE}
    )
    with steered(fake_circusd, stuck, {"use": Talker, "name": "a"}) as host:
        fake_circusd.wait_subscribed(2)
        fake_circusd.publish("web", "block")
        journal.wait("s", "block")
        slow = host.wire.request("stop", name="plugin:s", waiting=True)
        host.wait("s", "stopping")
        host.ok("restart", name="plugin:a", waiting=True)
        assert host.ok("status")["statuses"] == {"plugin:s": "stopping", "plugin:a": "active"}
        release.set()
        assert host.wire.receive()["id"] == slow
        assert host.status("s").state == "stopped"


def test_a_cast_is_carried_out_and_gets_no_reply(host: Steered) -> None:
    host.wire.cast("stop", name="plugin:a", waiting=True)
    host.wire.cast("nonsense")
    host.wire.cast("stop", name="nobody")
    host.wait("a", "stopped")
    call_id = host.wire.request("numwatchers")
    assert host.wire.receive()["id"] == call_id
    assert host.wire.drain() == []


def test_a_restart_that_is_refused_says_why_and_leaves_the_plugin(
    fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    with steered(fake_circusd, {"use": Broken, "name": "b"}) as host:
        monkeypatch.setattr(Broken, "broken", True)
        errno, reason = host.refused("restart", name="plugin:b", waiting=True)
        assert errno == 6
        assert "broken by now" in reason
        assert host.status("b").state == "running"


def test_any_number_of_plugins_is_changed_by_one_command(fake_circusd: FakeCircusd) -> None:
    plugins = [{"use": Talker, "name": f"p{number}"} for number in range(60)]
    with steered(fake_circusd, *plugins) as host:
        host.ok("stop", waiting=True)
        assert {status.state for status in host.arbiter.plugins.values()} == {"stopped"}
        host.ok("start", waiting=True)
        host.arbiter.wait(all_run, PATIENCE)


def test_when_too_much_is_to_be_done_the_command_is_refused_and_not_lost(
    fake_circusd: FakeCircusd,
    journal: Journal,
    release: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(steering, "_MOST_CHANGES", 3)
    stuck = member(
        "s", Stuck, journal=journal, release=release, **{"host.graceful_timeout": PATIENCE}
    )
    with steered(fake_circusd, stuck) as host:
        fake_circusd.wait_subscribed()
        fake_circusd.publish("web", "block")
        journal.wait("s", "block")
        for _ in range(3):
            host.ok("stop", name="plugin:s")
        errno, reason = host.refused("start", name="plugin:s")
        assert (errno, reason) == (5, "command 'start': too much is still to be done; try again")
        assert host.ok("numwatchers")["numwatchers"] == 1
        release.set()
        host.wait("s", "stopped")


def write(path: Path, *sections: str) -> None:
    path.write_text("[circus]\n" + "".join(sections))


def section(name: str, use: str = "troublemakers.Talker") -> str:
    return f"[plugin:{name}]\nuse = {use}\n"


@pytest.fixture
def filed(fake_circusd: FakeCircusd, tmp_path: Path) -> Iterator[tuple[Steered, Path]]:
    """A host that was made from a file."""
    from dataclasses import replace

    path = tmp_path / "plugins.ini"
    write(path, section("a"))
    with control_ends() as ends:

        def read() -> object:
            return replace(
                ini_file.load(str(path)),
                endpoint=fake_circusd.endpoint,
                pubsub_endpoint=fake_circusd.pubsub_endpoint,
                control=ends.endpoint,
            )

        arbiter = Arbiter.from_config(read(), reload=read)  # type: ignore[arg-type]
        with arbiter, Wire(ends) as wire:
            arbiter.wait(all_run, PATIENCE)
            yield Steered(arbiter, wire, fake_circusd, ends), path


def test_reloadconfig_reads_the_file_again(filed: tuple[Steered, Path]) -> None:
    host, path = filed
    write(path, section("a"), section("b"))
    host.ok("reloadconfig", waiting=True)
    assert host.ok("list")["watchers"] == ["plugin:a", "plugin:b"]
    write(path, section("b"))
    host.ok("reloadconfig")
    host.arbiter.wait(lambda now: list(now) == ["b"], PATIENCE)


def test_a_reload_that_is_refused_is_answered_with_why_and_changes_nothing(
    filed: tuple[Steered, Path], caplog: pytest.LogCaptureFixture
) -> None:
    host, path = filed
    write(path, section("a"), section("b", "troublemakers.Absent"))
    errno, reason = host.refused("reloadconfig", waiting=True)
    assert errno == 6
    assert "has no 'Absent'" in reason
    assert "not reloaded, all stays as it was" in caplog.text
    assert host.ok("list")["watchers"] == ["plugin:a"]


def test_a_removed_plugin_is_published_as_gone(filed: tuple[Steered, Path]) -> None:
    host, path = filed
    host.subscribe()
    write(path, section("b"))
    host.ok("reloadconfig", waiting=True)
    host.event_of("a", "reap")
    host.event_of("a", "stop")


def test_a_host_without_a_file_has_nothing_to_reload(host: Steered) -> None:
    assert host.refused("reloadconfig", waiting=True) == (
        6,
        "this host was not made from a configuration file",
    )


@pytest.mark.parametrize("waiting", [True, False])
@pytest.mark.parametrize("blocking", [True, False])
def test_quit_stops_the_host_and_is_answered(
    fake_circusd: FakeCircusd, journal: Journal, waiting: bool, blocking: bool
) -> None:
    a = member("a", journal=journal)
    with control_ends() as ends:
        arbiter = Arbiter(
            [a], fake_circusd.endpoint, fake_circusd.pubsub_endpoint, control=ends.endpoint
        )
        with hosting(arbiter) if blocking else arbiter, Wire(ends) as wire:
            arbiter.wait(state_is("a", "running"), PATIENCE)
            assert wire.call_raw("quit", waiting=waiting)["status"] == "ok"
            assert not waiting or arbiter.plugins["a"].state == "stopped"
            journal.wait("a", "stop")
            arbiter.wait(state_is("a", "stopped"), PATIENCE)
    assert journal.of("a") == ["init", "stop"]


def test_quit_is_answered_however_fast_the_host_is(
    fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    quit_ = steering.Steering.quit

    def slow_quit(self: steering.Steering) -> Future[None]:
        done = quit_(self)
        server = self._server
        assert server is not None
        while not server._work:  # the host has ended and wants the endpoint closed
            pass
        return done

    monkeypatch.setattr(steering.Steering, "quit", slow_quit)
    with steered(fake_circusd, {"use": Talker, "name": "a"}) as host:
        host.ok("quit", waiting=True)


def test_who_waits_for_a_change_when_the_host_ends_hears_of_it(
    fake_circusd: FakeCircusd, journal: Journal, release: threading.Event
) -> None:
    stuck = member(
        "s", Stuck, journal=journal, release=release, **{"host.graceful_timeout": PATIENCE}
    )
    with steered(fake_circusd, stuck, stop_timeout=PATIENCE) as host:
        fake_circusd.wait_subscribed()
        fake_circusd.publish("web", "block")
        journal.wait("s", "block")
        host.wire.request("restart", name="plugin:s", waiting=True)
        host.wait("s", "stopping")
        host.wire.request("quit", waiting=True)
        reply = host.wire.receive()
        assert (reply["errno"], reply["reason"]) == (6, "the host has stopped")
        release.set()
        assert host.wire.receive()["status"] == "ok"


def test_a_change_for_which_there_is_no_thread_fails_and_the_next_one_is_made(
    fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    with steered(fake_circusd, {"use": Talker, "name": "a"}) as host:
        with monkeypatch.context() as patch:
            patch.setattr(
                steering, "threading", SimpleNamespace(Thread=NoThread, Lock=threading.Lock)
            )
            reason = host.refused("stop", name="plugin:a", waiting=True)[1]
            assert reason.endswith("not done: can't start new thread")
        host.ok("stop", name="plugin:a", waiting=True)


def test_a_change_that_nobody_waits_for_and_that_fails_is_in_the_log(
    fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with steered(fake_circusd, {"use": Broken, "name": "b"}) as host:
        monkeypatch.setattr(Broken, "broken", True)
        host.ok("restart", name="plugin:b")
        host.arbiter.wait(lambda _: "broken by now" in caplog.text, PATIENCE)
    assert "control: what was asked of b was not done" in caplog.text
