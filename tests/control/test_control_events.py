# What a host publishes of its plugins: in circusd's own form, so that plugins can follow a host.

from __future__ import annotations

import contextlib
import os
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from members import Journal, Stuck, member, state_is
from patience import PATIENCE
from steered import Steered, control_ends, steered
from troublemakers import Fruitless, Talker
from wire import Wire

from circusplug import Arbiter, CallError, CircusPlugin
from circusplug._control import control_server
from circusplug.testing import FakeCircusd


class Caller(Talker):
    """Asks circusd for something at each event."""

    def handle_recv(self, data: Any) -> None:
        with contextlib.suppress(CallError):
            self.call("incr", name="web", patience=0)


class Follower(CircusPlugin):
    """Notes what it hears."""

    def handle_init(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def handle_recv(self, data: Any) -> None:
        event = self.parse_event(data)
        self.heard.append((event.watcher, event.action))


def test_starts_and_stops_are_published_as_circusds_are(fake_circusd: FakeCircusd) -> None:
    with steered(fake_circusd, {"use": Talker, "name": "My Web"}) as host:
        host.subscribe()
        host.ok("restart", name="plugin:my web", waiting=True)
        host.ok("stop", name="plugin:my web", waiting=True)
        host.ok("start", name="plugin:my web", waiting=True)
        heard = [host.wire.event() for _ in range(7)]
    prefix = "watcher.plugin:my_web."
    assert [topic.removeprefix(prefix) for topic, _ in heard] == [
        *("reap", "spawn", "start"),
        *("reap", "stop"),
        *("spawn", "start"),
    ]
    for topic, payload in heard:
        assert payload["time"] > 1e9
        if topic.endswith(("spawn", "reap")):
            assert payload["process_pid"] == os.getpid()
    assert heard[0][1]["exit_code"] == 0


def test_the_end_of_the_host_is_heard_to_the_last_plugin(fake_circusd: FakeCircusd) -> None:
    plugins = [{"use": Talker, "name": name} for name in ("a", "b")]
    with steered(fake_circusd, *plugins) as host:
        host.subscribe()
        host.arbiter.stop()
        topics = [host.wire.event()[0] for _ in range(4)]
    assert topics == [f"watcher.plugin:{name}.{what}" for name in "ba" for what in ("reap", "stop")]


def test_an_isolated_plugin_that_dies_is_reaped_with_a_failure_and_spawned(
    fake_circusd: FakeCircusd,
) -> None:
    plugin = {"use": Talker, "name": "cage", "isolate": True, "host.restart_delay": 0.01}
    with steered(fake_circusd, plugin) as host:
        host.subscribe()
        pid = host.status("cage").pid
        host.ok("kill", name="plugin:cage", signum=9)
        reaped = host.event_of("cage", "reap")
        assert (reaped["process_pid"], reaped["exit_code"]) == (pid, 1)
        assert host.event_of("cage", "spawn")["process_pid"] not in (None, pid)


def test_a_plugin_given_up_is_published_with_its_error(fake_circusd: FakeCircusd) -> None:
    plugin = {"use": Fruitless, "name": "f", "host.max_restarts": 0}
    with steered(fake_circusd, plugin, until=state_is("f", "failed")) as host:
        host.subscribe()
        host.ok("start", name="plugin:f")
        assert "bears no fruit" in host.event_of("f", "failed")["error"]


def test_a_stall_is_published(
    fake_circusd: FakeCircusd, journal: Journal, release: threading.Event
) -> None:
    stuck = member("s", Stuck, journal=journal, release=release, **{"host.stall_timeout": 0.01})
    with steered(fake_circusd, stuck) as host:
        host.subscribe()
        fake_circusd.wait_subscribed()
        fake_circusd.publish("web", "block")
        assert host.event_of("s", "stalled")["stalls"] == 1
        release.set()


@pytest.mark.parametrize("isolate", [False, True])
def test_conflicts_are_published_while_somebody_listens(
    fake_circusd: FakeCircusd, isolate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_server, "_CONFLICTS_EVERY", 0.02)
    fake_circusd.add_watcher("web")
    plugin = {"use": Caller, "name": "c", "isolate": isolate}
    with steered(fake_circusd, plugin) as host:
        fake_circusd.wait_subscribed()
        busy = {"status": "error", "errno": 5, "reason": "arbiter is already running arbiter_stop"}
        fake_circusd.reply("incr", busy)
        host.subscribe()
        fake_circusd.publish("web", "spawn")
        assert host.event_of("c", "conflict")["conflicts"] >= 1


def test_each_conflict_is_published_once_and_none_to_who_begins_to_listen_later(
    fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_server, "_CONFLICTS_EVERY", 0.01)
    looks: list[int] = []
    told: list[int] = []
    look = control_server.ControlServer._look_for_conflicts

    def counted(self: control_server.ControlServer) -> None:
        look(self)
        looks.append(self._subscriptions)

    def announce(name: str, action: str, **payload: Any) -> None:
        if action == "conflict":
            told.append(payload["conflicts"])

    def wait_looked(host: Steered) -> None:
        before = sum(looks)
        host.arbiter.wait(lambda _: sum(looks) > before + 2, PATIENCE)

    monkeypatch.setattr(control_server.ControlServer, "_look_for_conflicts", counted)
    busy = {"status": "error", "errno": 5, "reason": "arbiter is already running arbiter_stop"}
    fake_circusd.add_watcher("web")
    fake_circusd.reply("incr", busy)
    with steered(fake_circusd, {"use": Caller, "name": "c"}) as host:
        monkeypatch.setattr(host.server, "announce", announce)
        host.unsubscribe()
        fake_circusd.wait_subscribed()
        fake_circusd.publish("web", "spawn")
        host.arbiter.wait(lambda now: now["c"].counters.conflicts == 1, PATIENCE)
        host.wire.sub.subscribe(b"watcher.")
        wait_looked(host)
        assert told == []
        fake_circusd.publish("web", "spawn")
        host.arbiter.wait(lambda now: now["c"].counters.conflicts == 2, PATIENCE)
        wait_looked(host)
        assert told == [2]


def test_nothing_is_looked_for_while_nobody_listens(
    fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_server, "_CONFLICTS_EVERY", 0.01)
    looks: list[int] = []
    look = control_server.ControlServer._count_conflicts

    def counted(self: control_server.ControlServer) -> dict[str, int]:
        looks.append(1)
        return look(self)

    monkeypatch.setattr(control_server.ControlServer, "_count_conflicts", counted)
    with steered(fake_circusd, {"use": Talker, "name": "a"}) as host:
        host.arbiter.wait(lambda _: len(looks) > 3, PATIENCE)
        host.unsubscribe()
        server = host.server
        host.arbiter.wait(lambda _: server.run(lambda: not server._timers), PATIENCE)


def test_who_comes_and_leaves_often_does_not_have_conflicts_looked_for_more_often(
    fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_server, "_CONFLICTS_EVERY", 1000)
    with steered(fake_circusd) as host:
        host.unsubscribe()
        server = host.server
        changes = iter([b"\x01watcher.", b"\x01", b"\x00", b"\x00watcher.", b"\x01", b"?", b""])
        publisher: Any = SimpleNamespace(recv=lambda: next(changes))
        for listeners in (1, 2, 1, 0, 1, 1, 1):
            server.run(lambda: server._take_subscription(publisher))
            assert server._subscriptions == listeners
        assert len(server._timers) == 1


def test_without_a_place_to_publish_a_host_publishes_nothing(fake_circusd: FakeCircusd) -> None:
    with steered(fake_circusd, {"use": Talker, "name": "a"}, control_pubsub="off") as host:
        assert host.ok("globaloptions")["options"]["pubsub_endpoint"] == ""
        host.ok("restart", name="plugin:a", waiting=True)
        assert not os.path.exists(host.ends.pubsub_endpoint.removeprefix("ipc://"))


def test_a_plugin_follows_a_host_as_it_would_follow_a_circusd(fake_circusd: FakeCircusd) -> None:
    with steered(fake_circusd, {"use": Talker, "name": "a"}) as host:
        host.unsubscribe()  # so that the subscription to come is the follower's
        follower = Arbiter([{"use": Follower, "name": "f"}], *host.ends)
        with follower:
            follower.wait(state_is("f", "running"), PATIENCE)
            host.wait_subscriptions(1)
            host.ok("restart", name="plugin:a", waiting=True)
            heard = follower.instance("f").heard  # the first start, too, if that was told of late
            restart = [("plugin:a", what) for what in ("reap", "spawn", "start")]
            follower.wait(lambda _: heard[-3:] == restart, PATIENCE)
            assert follower.client.call("status", name="plugin:a")["status"] == "active"


def test_events_of_a_host_that_is_being_closed_are_dropped_without_a_word(
    fake_circusd: FakeCircusd,
) -> None:
    with control_ends() as ends:
        arbiter = Arbiter([], fake_circusd.endpoint, control=ends.endpoint)
        with arbiter, Wire(ends):
            server = arbiter._steering._server  # type: ignore[union-attr]
            assert server is not None
        server.announce("a", "spawn")
        server.close()
