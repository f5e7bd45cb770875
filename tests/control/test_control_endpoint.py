# A host's control endpoint: when it is there, what it leaves, and what it survives.

from __future__ import annotations

import os
import socket
import threading
from concurrent.futures import Future
from typing import Any

import pytest
import zmq
from members import Journal, member
from patience import PATIENCE
from steered import control_ends, steered
from troublemakers import Talker
from wire import Wire

from circusplug import Arbiter, HostError, SpecError
from circusplug._control import control_server
from circusplug._control.language import Request
from circusplug.testing import FakeCircusd


def test_without_a_file_the_endpoint_is_not_named_after_one() -> None:
    with (
        pytest.raises(HostError, match="a host without a file needs an endpoint, not 'auto'"),
        Arbiter([], control="auto"),
    ):
        pass


def test_an_endpoint_that_is_none_is_refused_when_the_host_is_made() -> None:
    with pytest.raises(SpecError, match="none of ipc:///PATH"):
        Arbiter([], control="udp://x")


def test_by_default_a_host_in_a_program_has_no_control_endpoint(fake_circusd: FakeCircusd) -> None:
    threads = set(threading.enumerate())
    with Arbiter([], fake_circusd.endpoint, fake_circusd.pubsub_endpoint):
        new = {thread.name for thread in set(threading.enumerate()) - threads}
    assert "control endpoint" not in new


def test_the_endpoint_is_there_while_plugins_start_and_its_files_go_with_the_host(
    fake_circusd: FakeCircusd, journal: Journal, release: threading.Event
) -> None:
    from members import NeverInitialised, hosting

    slow = member("slow", NeverInitialised, journal=journal, release=release)
    with control_ends() as ends:
        arbiter = Arbiter(
            [slow], fake_circusd.endpoint, fake_circusd.pubsub_endpoint, control=ends.endpoint
        )
        with hosting(arbiter), Wire(ends) as wire:
            journal.wait("slow", "init")
            assert wire.call("status")["statuses"] == {"plugin:slow": "starting"}
            release.set()
        directory = os.path.dirname(ends.endpoint.removeprefix("ipc://"))
        assert os.listdir(directory) == []


def test_a_second_host_at_the_same_endpoint_does_not_start(fake_circusd: FakeCircusd) -> None:
    with steered(fake_circusd, {"use": Talker, "name": "a"}) as host:
        with (
            pytest.raises(HostError, match="a host listens on"),
            Arbiter([], fake_circusd.endpoint, control=host.ends.endpoint),
        ):
            pass
        assert host.ok("list")["watchers"] == ["plugin:a"]


def test_a_host_that_ends_leaves_the_socket_of_another_that_has_come_there(
    fake_circusd: FakeCircusd,
) -> None:
    with (
        steered(fake_circusd, {"use": Talker, "name": "a"}) as host,
        socket.socket(socket.AF_UNIX) as other,
    ):
        path = host.ends.endpoint.removeprefix("ipc://")
        os.unlink(path)  # as somebody may who takes its host for dead
        other.bind(path)
        host.arbiter.stop()
        assert os.path.exists(path)


def test_a_host_whose_sockets_somebody_has_removed_ends_as_others_do(
    fake_circusd: FakeCircusd,
) -> None:
    with steered(fake_circusd, {"use": Talker, "name": "a"}) as host:
        for end in host.ends:
            os.unlink(end.removeprefix("ipc://"))
        server = host.server
        host.arbiter.stop()
    assert server.errors == []


def test_a_host_that_cannot_publish_does_not_start_and_leaves_nothing(
    fake_circusd: FakeCircusd,
) -> None:
    with control_ends() as ends:
        path = ends.pubsub_endpoint.removeprefix("ipc://")
        with open(path, "w"):
            pass
        with (
            pytest.raises(HostError, match="is there and is no socket; remove it"),
            Arbiter([], fake_circusd.endpoint, control=ends.endpoint),
        ):
            pass
        assert os.listdir(os.path.dirname(path)) == ["c.events.sock"]


def test_a_host_that_cannot_be_set_up_closes_its_endpoint(
    fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise HostError("no forkserver today")

    monkeypatch.setattr("circusplug._host.resources.start_forkserver_for", fail)
    with control_ends() as ends:
        with (
            pytest.raises(HostError, match="no forkserver today"),
            Arbiter([], fake_circusd.endpoint, control=ends.endpoint),
        ):
            pass
        assert os.listdir(os.path.dirname(ends.endpoint.removeprefix("ipc://"))) == []


def test_a_port_of_the_loopback_works_as_well(fake_circusd: FakeCircusd) -> None:
    from circusd_real import free_endpoints
    from steered import Ends

    ends = Ends(*free_endpoints(2))
    with (
        Arbiter(
            [{"use": Talker, "name": "a"}],
            fake_circusd.endpoint,
            fake_circusd.pubsub_endpoint,
            control=ends.endpoint,
        ),
        Wire(ends) as wire,
    ):
        assert wire.call("list")["watchers"] == ["plugin:a"]
        assert wire.call("globaloptions")["options"]["pubsub_endpoint"] == ""


def test_what_a_command_makes_the_endpoint_trip_over_ends_nothing(
    fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    frame = control_server.reply_frame

    def too_deep(reply: Any, request_id: Any) -> bytes:
        if request_id == "deep":
            raise RecursionError("too deep to be written")
        return frame(reply, request_id)

    monkeypatch.setattr(control_server, "reply_frame", too_deep)
    with steered(fake_circusd, {"use": Talker, "name": "a"}) as host:
        host.wire.send(b'{"id": "deep", "command": "list"}')
        assert host.ok("list")["watchers"] == ["plugin:a"]
    assert "control: a command of 33 bytes was not carried out" in caplog.text


def test_the_last_replies_leave_before_the_endpoint_is_closed(
    fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert control_server._FAREWELL > 100  # milliseconds
    monkeypatch.setattr(control_server, "_FAREWELL", int(PATIENCE * 1000))
    large = bytes(1_000_000)  # more than is on its way at a time
    with steered(fake_circusd) as host, host.wire.context.socket(zmq.DEALER) as client:
        server = host.server
        client.setsockopt(zmq.IDENTITY, b"slow")
        client.setsockopt(zmq.RCVHWM, 1)
        client.connect(host.ends.endpoint)
        client.send_json({"id": 1, "command": "list"})
        assert client.poll(int(PATIENCE * 1000))

        def reply() -> None:
            for _ in range(20):
                server._router.send_multipart([b"slow", large], zmq.NOBLOCK)

        server.run(reply)
        closing = threading.Thread(target=server.close)
        closing.start()
        host.arbiter.wait(lambda _: not server.bound, PATIENCE)
        assert client.recv_json()["id"] == 1
        for _ in range(20):
            assert client.poll(int(PATIENCE * 1000))
            assert client.recv() == large
        closing.join(PATIENCE)


def test_a_reply_that_is_there_does_not_wait_for_what_is_done_next(
    fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That may be the end of the endpoint."""
    with steered(fake_circusd) as host:
        steering = host.arbiter._steering
        assert steering is not None
        server = steering._server
        assert server is not None
        done: Future[None] = Future()
        done.set_result(None)
        monkeypatch.setattr(steering, "quit", lambda: done)
        replies: list[bytes] = []

        def ask() -> int:
            server.respond(Request("quit", {"waiting": True}, 1), replies.append)
            return len(replies)

        assert server.run(ask) == 1
