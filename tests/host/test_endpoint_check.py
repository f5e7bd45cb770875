# The look at both endpoints of a host: what is not told when circusd merely comes late. (What is
# told of wrong ones is in real_circusd/test_wrong_endpoints.py.)

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from members import Journal, MakeHost, member
from patience import PATIENCE

from circusplug import Arbiter
from circusplug._host import endpoint_check
from circusplug._host.endpoint_check import EndpointCheck
from circusplug._wire.endpoints import Link
from circusplug.testing import FakeCircusd


@pytest.mark.circusd_leaves
def test_of_a_circusd_that_comes_late_nothing_but_that_is_told(
    host: MakeHost, fake_circusd: FakeCircusd, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    fake_circusd.stop()
    with host(member("a"), member("b")):
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


def test_a_host_stops_at_once_while_it_still_looks() -> None:
    nobody = {"endpoint": "ipc:///nonexistent/c", "pubsub_endpoint": "ipc:///nonexistent/e"}
    with Arbiter([], **nobody):
        looking = [each for each in threading.enumerate() if each.name == "circusplug-endpoints"]
        assert len(looking) == 1
    assert not looking[0].is_alive()
