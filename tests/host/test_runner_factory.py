# What the plugins of a host share: the way to circusd, and who is given what of it. The tunnel, the
# circusd and the look at the endpoints are the test's own.

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import zmq

from circusplug import Counters, HostConfig, HostError, HostOptions, PluginSpec
from circusplug._host import resources, runner_factory
from circusplug._host.resources import make_context, start_forkserver_for
from circusplug._host.runner_factory import RunnerFactory
from circusplug._isolated.process_runner import ProcessRunner
from circusplug._runners.runner import Surroundings
from circusplug._runners.thread_runner import ThreadRunner
from circusplug._wire.endpoints import Link

ENDS = "tcp://*:5555", "tcp://0.0.0.0:5556"
LINK = "tcp://127.0.0.1:5555", "tcp://127.0.0.1:5556"


class Tunnels:
    """Every tunnel that was made, and what happened to all that the hosts share, in order."""

    def __init__(self) -> None:
        self.made: list[Any] = []
        self.log: list[str] = []
        self.fails: HostError | None = None

    def __call__(self, server: str, *args: Any, **options: Any) -> Any:
        tunnel = Tunnel(self, server, *args, **options)
        self.made.append(tunnel)
        return tunnel


class Tunnel:
    def __init__(
        self,
        tunnels: Tunnels,
        server: str,
        endpoint: str,
        pubsub_endpoint: str,
        context: Any,
        uids: list[int],
        on_up: Any,
        on_failed: Any,
    ) -> None:
        self._tunnels, self.server = tunnels, server
        self.ends, self.uids, self.context = (endpoint, pubsub_endpoint), uids, context
        self.on_up, self.on_failed = on_up, on_failed

    def start(self) -> None:
        self._tunnels.log.append(f"start {self.server}")

    def wait(self) -> None:
        if self._tunnels.fails is not None:
            raise self._tunnels.fails

    def link(self, uid: int | None = None) -> Link:
        if uid is not None and uid not in self.uids:
            raise HostError(f"no way for user {uid}")
        return Link(f"ipc://{self.server}/{uid or ''}", "ipc://events", self.context)

    def close(self) -> None:
        self._tunnels.log.append(f"close {self.server}")


@pytest.fixture
def tunnels(monkeypatch: pytest.MonkeyPatch) -> Tunnels:
    tunnels = Tunnels()
    monkeypatch.setattr("circusplug._wire.ssh_tunnel.Tunnel", tunnels)

    def make_check(link: Link, endpoint: str, pubsub_endpoint: str) -> Any:
        def log(what: str) -> Any:
            return lambda: tunnels.log.append(f"{what} check of {link.endpoint} ({endpoint})")

        return SimpleNamespace(start=log("start"), close=log("close"))

    monkeypatch.setattr(runner_factory, "EndpointCheck", make_check)
    return tunnels


class Client:
    """The program's, and where it was told to connect to."""

    def __init__(self, log: list[str]) -> None:
        self.links: list[Link] = []
        self._log = log

    def open(self, link: Link) -> None:
        self.links.append(link)

    def move(self, link: Link) -> None:
        self.links.append(link)

    def close(self) -> None:
        self._log.append("close client")


class Circusd:
    def __init__(self, log: list[str]) -> None:
        self._log = log
        self.told: tuple[Any, ...] = ()

    def start(self, *told: Any) -> None:
        self.told = told

    def let_go(self) -> None:
        self._log.append("let circusd go")

    def close(self) -> None:
        self._log.append("close circusd")


def config(ssh_server: str | None = None, *plugins: PluginSpec) -> HostConfig:
    return HostConfig(plugins, *ENDS, ssh_server=ssh_server)


def isolated(uid: int | None = None, active: bool = True) -> PluginSpec:
    return PluginSpec("a", "m.A", {"active": active}, True, HostOptions(uid=uid), where="x.ini:3")


class Bench:
    def __init__(self, tunnels: Tunnels, config: HostConfig, context: Any, *own: Any) -> None:
        self.log = tunnels.log
        self.client = Client(tunnels.log)
        self.told: list[str] = []
        self.config = config
        self.factory = RunnerFactory(config, context, self.client, *own)  # type: ignore[arg-type]

    def open(self) -> Link:
        return self.factory.open(
            lambda: self.told.append("up"), self.told.append, lambda: self.told.append("quit")
        )

    def make(self, spec: PluginSpec, link: Link) -> tuple[Any, Link]:
        around = Surroundings(self.config, link, lambda _: None)
        runner = self.factory.make(spec, around, Counters(), "state")
        return runner, runner._around.link


def test_without_a_tunnel_all_is_reachable_at_once(
    tunnels: Tunnels, context: zmq.Context[Any]
) -> None:
    bench = Bench(tunnels, config(), context)
    link = bench.open()
    assert (link.endpoint, link.pubsub_endpoint, link.door) == (*LINK, "")
    assert link.context is context
    assert bench.told == ["up"]
    assert bench.client.links == [link]
    assert bench.log == [f"start check of {LINK[0]} ({ENDS[0]})"]
    bench.factory.close(all_ended=True)
    assert bench.log[1:] == ["close client", f"close check of {LINK[0]} ({ENDS[0]})"]
    assert not context.closed


def test_by_a_tunnel_it_is_reachable_when_that_stands_and_failed_if_it_does_not(
    tunnels: Tunnels, context: zmq.Context[Any]
) -> None:
    bench = Bench(tunnels, config("me@there", isolated(7), replace(isolated(), name="b")), context)
    link = bench.open()
    (tunnel,) = tunnels.made
    assert (tunnel.ends, tunnel.uids, tunnel.context) == (ENDS, [7], context)
    assert bench.log == ["start me@there"]
    assert bench.told == []
    assert bench.client.links == [link] == [tunnel.link()]
    tunnel.on_failed("no route")
    tunnel.on_up()
    assert bench.told == ["no ssh tunnel through me@there: no route", "up"]
    assert bench.log[1:] == [f"start check of {link.endpoint} ({ENDS[0]})"]
    bench.factory.close(all_ended=True)
    assert bench.log[2:4] == ["close client", "close me@there"]


def test_its_own_circusd_tells_when_it_is_reachable_and_ends_after_the_plugins(
    tunnels: Tunnels, context: zmq.Context[Any]
) -> None:
    circusd = Circusd(tunnels.log)
    bench = Bench(tunnels, config(), context, circusd)
    bench.open()
    assert (bench.told, bench.log) == ([], [])
    on_up, on_failed, on_quit = circusd.told
    on_failed("it crashed")
    on_quit()
    on_up()
    assert bench.told == ["it crashed", "quit", "up"]
    assert bench.log == [f"start check of {LINK[0]} ({ENDS[0]})"]
    bench.factory.close(all_ended=True)
    assert bench.log[1:3] == ["close client", "close circusd"]


@pytest.mark.parametrize("stops", [False, True])
def test_circusd_is_let_go_when_all_listen_unless_the_host_stops(
    tunnels: Tunnels, context: zmq.Context[Any], stops: bool
) -> None:
    own = Circusd(tunnels.log), None, "", lambda: tunnels.log.append("listening")
    factory = Bench(tunnels, config(), context, *own).factory
    if stops:
        factory.listening.set_exception(HostError("the host has stopped"))
    else:
        factory.listening.set_result(None)
    assert tunnels.log == ([] if stops else ["let circusd go", "listening"])


def test_a_plugin_is_told_where_its_host_is_and_one_of_another_user_uses_the_door(
    tunnels: Tunnels, context: zmq.Context[Any]
) -> None:
    bench = Bench(tunnels, config(), context, None, "ipc://own", "ipc://host")
    link = bench.open()
    assert (link.endpoint, link.door) == ("ipc://own", LINK[0])
    runner, given = bench.make(PluginSpec("a", "m.A"), link)
    assert isinstance(runner, ThreadRunner)
    assert runner._state == "state"
    assert given == replace(link, host="ipc://host")
    for spec in (isolated(), isolated(7)):
        runner, given = bench.make(spec, link)
        assert isinstance(runner, ProcessRunner)
        assert runner._state == "state"
        endpoint = "ipc://own" if spec.host.uid is None else LINK[0]
        assert given == replace(link, host="ipc://host", endpoint=endpoint)
    pipes = bench.factory._pipes
    assert pipes is not None
    bench.make(isolated(), link)
    assert bench.factory._pipes is pipes
    bench.factory.close(all_ended=True)  # and its threads with it


def test_one_of_another_user_has_its_own_way_through_the_tunnel(
    tunnels: Tunnels, context: zmq.Context[Any]
) -> None:
    bench = Bench(tunnels, config("there", isolated(7)), context, None, None, "ipc://host")
    link = bench.open()
    assert bench.make(isolated(), link)[1] == replace(link, host="ipc://host")
    assert bench.make(isolated(7), link)[1].endpoint == "ipc://there/7"
    assert bench.make(isolated(7), link)[1].host == "ipc://host"
    bench.factory.check_users([isolated(), isolated(7), isolated(8, active=False)])
    with pytest.raises(HostError, match=r"^x\.ini:3: no way for user 8$"):
        bench.factory.check_users([isolated(8)])
    bench.factory.close(all_ended=True)


def test_without_a_tunnel_every_user_has_a_way(tunnels: Tunnels, context: zmq.Context[Any]) -> None:
    Bench(tunnels, config(), context).factory.check_users([isolated(8)])


def test_the_way_to_the_old_place_is_kept_until_the_move_is_made(
    tunnels: Tunnels, context: zmq.Context[Any]
) -> None:
    bench = Bench(tunnels, config("old"), context)
    bench.open()
    tunnels.made[0].on_up()
    bench.log.clear()
    with bench.factory.moved(config("new")) as link:
        bench.log.append("moved")
    assert link == tunnels.made[1].link() == bench.client.links[-1]
    assert bench.log == [
        "start new",
        f"close check of ipc://old/ ({ENDS[0]})",
        f"start check of ipc://new/ ({ENDS[0]})",
        *("moved", "close old"),
    ]
    with bench.factory.moved(config()) as link:
        pass
    assert (link.endpoint, link.pubsub_endpoint) == LINK
    assert bench.log[-1] == "close new"
    assert bench.log[-2] == f"start check of {LINK[0]} ({ENDS[0]})"
    bench.factory.close(all_ended=True)
    assert bench.log.count("close new") == 1


def test_a_move_that_cannot_be_made_leaves_all_as_it_was(
    tunnels: Tunnels, context: zmq.Context[Any]
) -> None:
    bench = Bench(tunnels, config("old"), context)
    link = bench.open()
    tunnels.fails = HostError("no ssh tunnel")
    bench.log.clear()
    with pytest.raises(HostError, match="no ssh tunnel"), bench.factory.moved(config("new")):
        pytest.fail("there is no way")
    assert bench.log == ["start new", "close new"]
    assert bench.client.links == [link]
    bench.factory.close(all_ended=True)
    assert bench.log[-1] == "close old"


def test_the_old_way_is_closed_although_the_move_fails(
    tunnels: Tunnels, context: zmq.Context[Any]
) -> None:
    bench = Bench(tunnels, config("old"), context)
    bench.open()
    with pytest.raises(HostError, match="stopped"), bench.factory.moved(config("new")):
        raise HostError("the host has stopped")
    assert bench.log[-1] == "close old"
    bench.factory.close(all_ended=True)
    assert bench.log[-3:-1] == ["close client", "close new"]


def test_a_context_of_its_own_is_ended_unless_somebody_still_uses_it(
    tunnels: Tunnels, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[zmq.Context[Any]] = []
    monkeypatch.setattr(resources, "_kept_contexts", kept)
    contexts = []
    for all_ended in (True, False):
        bench = Bench(tunnels, config(), None)
        context = bench.open().context
        assert context is not None
        contexts.append(context)
        bench.factory.close(all_ended)
    assert [each.closed for each in contexts] == [True, False]
    assert kept == contexts[1:]
    contexts[1].term()


def test_what_was_never_opened_can_be_closed(tunnels: Tunnels) -> None:
    bench = Bench(tunnels, config(), None)
    bench.factory.close(all_ended=True)
    assert bench.log == ["close client"]


def test_a_context_has_room_for_the_sockets_of_many_plugins() -> None:
    with make_context() as context:
        assert context.get(zmq.MAX_SOCKETS) == min(8192, context.get(zmq.SOCKET_LIMIT))


@pytest.mark.parametrize(
    ("plugins", "started"),
    [
        ((isolated(active=False), PluginSpec("b", "m.B")), 0),
        ((PluginSpec("b", "m.B"), isolated()), 1),
    ],
)
def test_a_forkserver_is_started_for_isolated_plugins_that_start(
    plugins: tuple[PluginSpec, ...], started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[None] = []
    server = "circusplug._isolated.forkserver.start_forkserver"
    monkeypatch.setattr(server, lambda: starts.append(None))
    start_forkserver_for(config(None, *plugins))
    assert len(starts) == started
