# What a host does about clients that mean no good, or do not know better: it counts them, tells of
# them now and then, and neither its memory nor its plugins feel it.

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import zmq
from command import Running, plugin, write_ini
from patience import PATIENCE, wait_while
from steered import Ends, steered
from troublemakers import Talker
from wire import Wire

from circusplug._control import control_server, places
from circusplug.testing import FakeCircusd

#: How much a host's memory may grow by what a test sends, in bytes.
GROWTH = 60 * 2**20


class Victim:
    """A host in a process of its own, and a client at it."""

    def __init__(self, command: Running, circusd: FakeCircusd, ends: Ends, wire: Wire) -> None:
        self.command = command
        self.circusd = circusd
        self.ends = ends
        self.wire = wire
        self.path = ends.endpoint.removeprefix("ipc://")
        self._memory = self.memory()

    def memory(self) -> int:
        return int(psutil.Process(self.command.pid).memory_info().rss)

    def assert_unharmed(self) -> None:
        """The host answers, its plugins receive, and its memory is what it was."""
        before = self.wire.call("details")["plugins"]["a"]
        self.circusd.publish_many(100, "web", "spawn")
        wait_while(
            lambda: self.wire.call("details")["plugins"]["a"]["handled"] < before["handled"] + 100
        )
        after = self.wire.call("details")["plugins"]["a"]
        assert (after["errors"], after["stalls"], after["restarts"]) == (0, 0, 0)
        assert self.memory() - self._memory < GROWTH

    def end(self) -> list[str]:
        """Have it end; returns what it has logged of its control endpoint."""
        assert self.wire.call("quit", waiting=True)["status"] == "ok"
        assert self.command.end() == 0
        return [line for line in self.command.lines if "control:" in line]


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Victim]:
    with FakeCircusd() as circusd:
        path = write_ini(
            tmp_path,
            circusd.endpoint,
            circusd.pubsub_endpoint,
            plugin("a", "circusplug.plugins.Logger", filename="/dev/null"),
        )
        endpoint = places.endpoint_of(str(path))
        with Running(tmp_path, "run", path) as command:
            circusd.wait_subscribed(timeout=PATIENCE)
            ends = Ends(endpoint, places.events_endpoint_of(endpoint))
            with Wire(ends) as wire:
                wire.call("list")
                yield Victim(command, circusd, ends, wire)


def test_garbage_is_answered_counted_and_logged_at_growing_distances(victim: Victim) -> None:
    for number in range(500):
        victim.wire.send(b"garbage %d" % number)
        assert victim.wire.receive()["reason"] == "json invalid"
    for frame in (b"", b"{}", b"3", b'["command"]'):
        victim.wire.send(frame)
    victim.wire.dealer.send_multipart([b"many", b"frames"])
    victim.assert_unharmed()
    lines = victim.end()
    assert 1 <= len(lines) <= 15
    counts = [int(n) for n in re.findall(r"control: (\d+) messages were no comm", "".join(lines))]
    assert counts[0] == 1
    assert counts == sorted(set(counts))


def nested(depth: int) -> bytes:
    return b'{"command": "list", "id": ' + b"[" * depth + b"]" * depth + b"}"


def test_strange_commands_do_not_end_the_endpoint(victim: Victim) -> None:
    frames = [
        *(nested(depth) for depth in range(50, 3000, 25)),
        b'{"command": "list", "id": NaN}',
        b'{"command": "list", "properties": [{"name": 1}]}',
        b'{"command": "list", "properties": {"name": {}}}',
        b'{"command": "stop", "properties": {"name": ["a"], "waiting": true}}',
        b'{"command": "status", "properties": {"name": "\\ud800"}}',
        b'{"command": "get", "properties": {"name": "plugin:a", "keys": 3}}',
        b'{"command": "get", "properties": {"name": "plugin:a", "keys": [[]]}}',
        b'{"command": "signal", "properties": {"name": "plugin:a", "signum": []}}',
        b'{"command": "globaloptions", "properties": {"option": []}}',
        b'{"command": "' + b"x" * 900_000 + b'"}',
        b'{"command": "stop", "properties": {"name": "' + b"plugin:" * 100_000 + b'"}}',
        b'{"command": "stop", "properties": {"name": "' + b"*a" * 100_000 + b'"}}',
    ]
    with victim.wire.new_dealer() as other:
        for frame in frames:
            other.send(frame)
        assert other.poll(PATIENCE * 1000)
    assert victim.wire.call("list")["watchers"] == ["plugin:a"]
    victim.assert_unharmed()
    victim.end()


def test_a_huge_frame_ends_its_senders_connection_and_nothing_else(victim: Victim) -> None:
    context = zmq.Context()
    with context, context.socket(zmq.DEALER) as sender:
        sender.linger = 0
        sender.reconnect_ivl = -1  # else it is sent again and again
        with sender.get_monitor_socket(zmq.EVENT_DISCONNECTED) as gone:
            sender.connect(victim.ends.endpoint)
            sender.send(b"x" * 100 * 2**20)
            assert gone.poll(PATIENCE * 1000)
            sender.disable_monitor()
    victim.assert_unharmed()
    victim.end()


def test_many_large_frames_are_not_piled_up(victim: Victim) -> None:
    context = zmq.Context()
    with context, context.socket(zmq.DEALER) as sender:
        sender.linger = 0
        sender.connect(victim.ends.endpoint)
        for _ in range(300):
            sender.send(b'"' + b"x" * 1_000_000 + b'"')
        sender.send(b'{"command": "numwatchers"}')
        assert sender.poll(PATIENCE * 1000)
    victim.assert_unharmed()
    assert len(victim.end()) < 12


def test_the_usual_directory_is_this_users_alone_and_bytes_of_no_protocol_are_of_no_avail(
    victim: Victim,
) -> None:
    assert stat.S_IMODE(os.stat(os.path.dirname(victim.path)).st_mode) == 0o700
    for said in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 10_000, b"\0" * 64):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(victim.path)
            sock.sendall(said)
    victim.assert_unharmed()
    victim.end()
    assert not os.path.exists(victim.path)


def test_thousands_of_clients_that_come_and_leave_are_not_noticed(victim: Victim) -> None:
    before = psutil.Process(victim.command.pid).num_fds()
    for _ in range(2000):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(victim.path)
    context = zmq.Context()
    with context:
        for _ in range(200):
            with context.socket(zmq.DEALER) as dealer:
                dealer.linger = 0
                dealer.connect(victim.ends.endpoint)
                dealer.send(b'{"command": "stats"}')
                dealer.poll(PATIENCE * 1000)
    victim.assert_unharmed()
    while psutil.Process(victim.command.pid).num_fds() > before + 20:
        victim.wire.call("list")
    assert victim.end() == []


def test_a_client_that_never_reads_its_replies_is_told_of_and_others_are_served(
    victim: Victim,
) -> None:
    context = zmq.Context()
    with context, context.socket(zmq.DEALER) as deaf:
        deaf.linger = 0
        deaf.rcvhwm = 1
        deaf.connect(victim.ends.endpoint)
        for number in range(3000):
            deaf.send(json.dumps({"id": number, "command": "details"}).encode())
        victim.command.wait_for("replies were dropped, nobody reads them")
        victim.assert_unharmed()
    lines = victim.end()
    assert 1 <= len(lines) <= 15


def test_a_subscriber_that_never_reads_holds_up_nobody(
    fake_circusd: FakeCircusd, caplog: pytest.LogCaptureFixture
) -> None:
    context = zmq.Context()
    with (
        steered(fake_circusd, {"use": Talker, "name": "a"}) as host,
        context,
        context.socket(zmq.SUB) as deaf,
    ):
        deaf.linger = 0
        deaf.rcvhwm = 1
        deaf.subscribe(b"")
        deaf.connect(host.ends.pubsub_endpoint)
        host.wait_subscriptions(2)
        for number in range(5000):
            host.server.announce("a", "noted", number=number, text="x" * 200)
        host.ok("restart", name="plugin:a", waiting=True)
        assert host.ok("status")["statuses"] == {"plugin:a": "active"}
    assert "control:" not in caplog.text


OTHER = """
import os, socket, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
for path in sys.argv[1:]:
    try:
        socket.socket(socket.AF_UNIX).connect(path)
    except PermissionError:
        print("refused")
    else:
        print("came in")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming somebody else takes root")
@pytest.mark.parametrize("open_directory", [False, True])
def test_nobody_else_can_open_the_sockets(open_directory: bool, fake_circusd: FakeCircusd) -> None:
    with steered(fake_circusd, {"use": Talker, "name": "a"}) as host:
        paths = [end.removeprefix("ipc://") for end in host.ends]
        for path in paths:
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        if open_directory:  # then the sockets themselves keep others out
            directory = Path(paths[0]).parent
            for each in (directory, directory.parent):
                each.chmod(0o755)
        try:
            done = subprocess.run(
                [sys.executable, "-S", "-c", OTHER, *paths],
                cwd="/",
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
        finally:
            Path(paths[0]).parent.parent.chmod(0o700)
        assert (done.stdout.split(), done.stderr) == (["refused", "refused"], "")


def test_who_reads_and_who_takes_nothing_makes_only_so_much_wait() -> None:
    with (
        zmq.Context() as context,
        context.socket(zmq.ROUTER) as router,
        context.socket(zmq.DEALER) as client,
    ):
        control_server.limit_clients(router, 1000)
        router.bind("inproc://here")
        client.sndhwm = client.rcvhwm = 1
        client.connect("inproc://here")
        client.send(b"hello")
        identity, _ = router.recv_multipart()
        for sock, frames, limit in (
            (router, [identity, b"reply"], control_server._UNREAD_REPLIES),
            (client, [b"command"], control_server._UNREAD_COMMANDS),
        ):
            waiting = sum(1 for _ in _sent(sock, frames))
            assert 1 < waiting <= limit + 1  # one more waits at the client's end


def _sent(sock: zmq.Socket[bytes], frames: list[bytes]) -> Iterator[None]:
    with contextlib.suppress(zmq.Again):
        for _ in range(10_000):
            yield sock.send_multipart(frames, zmq.NOBLOCK)
