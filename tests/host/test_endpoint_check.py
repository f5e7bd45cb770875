# The look at both endpoints of a host: what is not told when circusd merely comes late. (What is
# told of wrong ones is in real_circusd/test_wrong_endpoints.py.)

from __future__ import annotations

import contextlib
import errno
import socket
import tempfile
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import zmq
from members import Journal, MakeHost, member
from patience import PATIENCE, wait_while

from circusplug import Arbiter
from circusplug._host import endpoint_check
from circusplug._host.endpoint_check import EndpointCheck
from circusplug._wire.endpoints import Link
from circusplug.testing import FakeCircusd


@pytest.mark.circusd_leaves
def test_of_a_circusd_that_comes_late_nothing_but_that_is_told(
    host: MakeHost,
    fake_circusd: FakeCircusd,
    journal: Journal,
    caplog: pytest.LogCaptureFixture,
    absent_soon: None,
) -> None:
    fake_circusd.stop()
    with host(member("a"), member("b")) as arbiter:
        arbiter.wait(lambda _: "no circusd at" in caplog.text, PATIENCE)
        fake_circusd.start()
        fake_circusd.wait_subscribed(2, PATIENCE)
        fake_circusd.publish("web", "spawn")
        journal.wait("a", "spawn")
    assert caplog.text.count("no circusd at ") == 1
    assert "wrong" not in caplog.text
    assert "swapped" not in caplog.text


def test_it_ends_as_soon_as_both_stand(fake_circusd: FakeCircusd) -> None:
    with checking(fake_circusd.endpoint, fake_circusd.pubsub_endpoint) as check:
        check._thread.join(PATIENCE)
        assert not check._thread.is_alive()


@contextlib.contextmanager
def checking(endpoint: str, pubsub_endpoint: str) -> Iterator[EndpointCheck]:
    link = Link(endpoint, pubsub_endpoint, connect_wait=PATIENCE)
    check = EndpointCheck(link, endpoint, pubsub_endpoint)
    check.start()
    yield check
    check.close()


def test_what_accepts_and_closes_is_a_proxy_without_a_circusd_behind_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("circusplug._host.endpoint_check.ALONE_WAIT", 0.0)
    seen = threading.Semaphore(0)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                proxy.accept()[0].close()
                seen.release()

    with socket.create_server(("127.0.0.1", 0)) as proxy:
        server = threading.Thread(target=serve)
        server.start()
        endpoint = f"tcp://127.0.0.1:{proxy.getsockname()[1]}"
        with checking(endpoint, endpoint):
            for _ in range(10):
                assert seen.acquire(timeout=PATIENCE)
        proxy.shutdown(socket.SHUT_RDWR)
        server.join(PATIENCE)
    assert caplog.text == ""


def test_one_that_stood_alone_for_a_moment_is_not_blamed_when_circusd_comes_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stands, absent = endpoint_check._State.STANDS, endpoint_check._State.ABSENT
    moments = iter([1.0, 1.0, 1.0, 5.0, 100.0])  # two before the first look
    monkeypatch.setattr(endpoint_check, "time", SimpleNamespace(monotonic=lambda: next(moments)))
    with socket.socket() as told:  # one that is not connected counts as one that has ended
        look = {"commands": [stands, absent, absent, stands], "events": [*[absent] * 3, stands]}
        probes: list[Any] = [
            SimpleNamespace(look=iter(states).__next__, renew=lambda: None, monitor=told)
            for states in look.values()
        ]
        check = EndpointCheck(Link("tcp://c:1", "tcp://e:1", connect_wait=1000), "c", "e")
        with contextlib.closing(check):
            check._watch(*probes)
    assert caplog.text == ""


class Watched:
    """A check whose probes, clock and waits are the test's own.

    Args:
        looks: The moment of each look, and what both sockets are then, by the first letter of
            its state.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *looks: tuple[float, str, str], connect_wait: float
    ) -> None:
        state = {each.value[0]: each for each in endpoint_check._State}
        looks = (*looks, (looks[-1][0], "s", "s"))
        # Two moments are asked for before the first look, none after the last.
        moments = iter([looks[0][0]] * 2 + [moment for moment, _, _ in looks[:-1]])
        monkeypatch.setattr(
            endpoint_check, "time", SimpleNamespace(monotonic=lambda: next(moments))
        )
        self.waits: list[float] = []
        poller = SimpleNamespace(register=lambda *_: None, poll=self.waits.append)
        monkeypatch.setattr(endpoint_check.zmq, "Poller", lambda: poller)
        self.renewed: list[str] = []
        probes: list[Any] = [
            SimpleNamespace(
                look=iter([state[look[place]] for look in looks]).__next__,
                renew=lambda name=name: self.renewed.append(name),
                monitor=None,
            )
            for place, name in ((1, "commands"), (2, "events"))
        ]
        link = Link("tcp://c:1", "tcp://e:1", connect_wait=connect_wait)
        with contextlib.closing(EndpointCheck(link, "C", "E")) as check:
            check._watch(*probes)


def test_one_that_stands_alone_is_told_once_when_it_has_done_so_for_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks = [(at, "s", "a") for at in (100.0, 101.0, 109.5)]
    watched = Watched(monkeypatch, *looks, connect_wait=1.0)
    assert caplog.text == ""  # and that no circusd is there is not so
    assert watched.waits == [1001, 4001, 501]  # until it is missed, renewed, told of
    looks += [(110.0, "s", "a")]
    Watched(monkeypatch, *looks, connect_wait=1.0)
    assert caplog.text.count("circusd takes commands at C") == 1
    looks += [(110.1, "s", "a"), (130.0, "s", "a")]
    watched = Watched(monkeypatch, *looks, connect_wait=1.0)
    assert caplog.text.count("circusd takes commands at C") == 2  # once by each
    assert min(watched.waits[3:]) > 1000  # there is nothing to be told any more


def test_that_no_circusd_is_there_is_told_once_when_it_should_be(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks = [(at, "a", "g") for at in (100.0, 102.9)]
    Watched(monkeypatch, *looks, connect_wait=3.0)
    assert caplog.text == ""
    looks += [(at, "a", "a") for at in (103.0, 104.0, 150.0)]
    Watched(monkeypatch, *looks, connect_wait=3.0)
    assert caplog.text.count("no circusd at C yet (events: E)") == 1


CONNECTED, SUCCEEDED, FAILED, DISCONNECTED, CLOSED = map(
    int,
    (
        zmq.EVENT_CONNECTED,
        zmq.EVENT_HANDSHAKE_SUCCEEDED,
        zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
        zmq.EVENT_DISCONNECTED,
        zmq.EVENT_CLOSED,
    ),
)


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([], "absent"),
        ([CLOSED], "absent"),
        ([CONNECTED], "greeted"),
        ([CONNECTED, CLOSED], "absent"),
        ([CONNECTED, FAILED], "absent"),
        ([CONNECTED, DISCONNECTED], "other"),
        ([CONNECTED, DISCONNECTED, CLOSED], "absent"),
        ([CONNECTED, DISCONNECTED, CONNECTED], "other"),
        ([CONNECTED, DISCONNECTED, CONNECTED, SUCCEEDED], "stands"),
        ([CONNECTED, SUCCEEDED], "stands"),
        ([CONNECTED, SUCCEEDED, DISCONNECTED], "absent"),
        ([CONNECTED, SUCCEEDED, DISCONNECTED, CONNECTED], "greeted"),
    ],
)
def test_what_the_monitor_tells_says_what_is_at_the_other_end(
    events: list[int], state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connects: list[str] = []

    class Unconnected:
        def disconnect(self, endpoint: str) -> None:
            connects.append("disconnect")
            raise zmq.ZMQError(errno.ENOENT)

        def connect(self, endpoint: str) -> None:
            connects.append(f"connect {endpoint}")

    probe: Any = endpoint_check._Probe.__new__(endpoint_check._Probe)
    probe.state, probe._endpoint = endpoint_check._State.ABSENT, "E"
    probe.monitor = SimpleNamespace(poll=lambda _: events)
    probe._socket = Unconnected()
    monkeypatch.setattr(endpoint_check, "next_event", lambda _: events.pop(0))
    assert probe.look().value == state
    probe.renew()
    assert connects == (["disconnect", "connect E"] if state == "other" else [])


def test_both_are_renewed_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [(at, "a", "a") for at in (100.0, 104.9, 105.0, 109.9, 110.0)]
    watched = Watched(monkeypatch, *looks, connect_wait=1.0)
    assert watched.renewed == ["commands", "events"] * 2
    assert all(wait >= 1 for wait in watched.waits)


@pytest.mark.parametrize(
    ("commands", "events", "said"),
    [
        ("a", "a", None),
        ("g", "a", None),
        ("s", "o", "circusd takes commands at C, but publishes no events at E, where something el"),
        ("s", "g", "circusd takes commands at C, but publishes no events at E: 'pubsub_endpoint' "),
        ("o", "s", "events are published at E, but nobody takes commands at C, where something el"),
        ("a", "s", "events are published at E, but nobody takes commands at C: 'endpoint' is wron"),
        ("o", "a", "'endpoint' is wrong: C is no such socket of circusd's; write that of circusd'"),
        ("a", "o", "'pubsub_endpoint' is wrong: E is no such socket of circusd's; write that of c"),
        ("o", "o", "'endpoint' (C) and 'pubsub_endpoint' (E) look swapped: nobody takes commands "),
    ],
)
def test_what_is_wrong_is_said_of_the_right_one(
    commands: str, events: str, said: str | None
) -> None:
    state = {each.value[0]: each for each in endpoint_check._State}
    with contextlib.closing(EndpointCheck(Link("tcp://c:1", "tcp://e:1"), "C", "E")) as check:
        found = check._describe(state[commands], state[events])
    assert found is None if said is None else str(found).startswith(said)


def test_a_place_where_another_socket_was_is_connected_to_anew() -> None:
    def look_until(state: endpoint_check._State) -> None:
        wait_while(lambda: probe.look() is not state)

    stands, absent = endpoint_check._State.STANDS, endpoint_check._State.ABSENT
    with (
        tempfile.TemporaryDirectory() as directory,
        zmq.Context() as context,
        contextlib.ExitStack() as stack,
    ):
        endpoint = f"ipc://{directory}/s"
        with context.socket(zmq.PUB) as wrong:
            wrong.bind(endpoint)
            probe = endpoint_check._Probe(stack, context, zmq.DEALER, endpoint)
            look_until(endpoint_check._State.OTHER)
        with context.socket(zmq.ROUTER) as right:
            right.bind(endpoint)
            probe.renew()
            look_until(stands)
            probe.renew()
            assert probe.look() is stands
        look_until(absent)  # it is gone, and has not become something else
        stack.close()


def test_of_sockets_in_this_process_nothing_is_to_be_seen_and_nobody_looks() -> None:
    check = EndpointCheck(Link("inproc://c", "inproc://e"), "C", "E")
    check.start()
    assert check._thread.ident is None
    check.close()


def test_without_a_thread_left_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    with checking("ipc:///nonexistent/c", "ipc:///nonexistent/e") as check:
        assert check._thread.ident is None


def test_a_host_stops_at_once_while_it_still_looks() -> None:
    nobody = {"endpoint": "ipc:///nonexistent/c", "pubsub_endpoint": "ipc:///nonexistent/e"}
    with Arbiter([], **nobody):
        looking = [each for each in threading.enumerate() if each.name == "circusplug-endpoints"]
        assert len(looking) == 1
    assert not looking[0].is_alive()
