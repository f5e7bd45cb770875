# WatchDog: which heartbeats count, and whom it has killed.

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bundled import Journal, do
from circusd_real import RealCircusd
from fixture_types import Run
from patience import PATIENCE, wait_while

from circusplug import Arbiter, SpecError
from circusplug.plugins import WatchDog
from circusplug.plugins._heartbeats import parent_of
from circusplug.testing import FakeCircusd, RunningPlugin


class Dog:
    """A WatchDog whose clock stands, and that looks only when it is told to."""

    def __init__(self, running: RunningPlugin, journal: Journal) -> None:
        self.running = running
        self.plugin: Any = running.plugin
        self.circusd = running.circusd
        self.now = 0.0
        do(running, setattr, self.plugin, "clock", lambda: self.now)
        self.port = 0
        if self.plugin.options.ip:
            told = journal.wait("waiting for heartbeats at 127.0.0.1, port ").getMessage()
            self.port = int(told.rpartition(" ")[2])
        self.learn()

    def learn(self) -> None:
        do(self.running, self.plugin.handle_connect)

    def killed_at(self, now: float) -> list[int]:
        """Whom it has had killed when it has looked at that time."""
        self.now = now
        do(self.running, self.plugin.look)
        return [one.properties["pid"] for one in self.circusd.commands if one.command == "kill"]

    def heard(self, *texts: bytes, at: float) -> None:
        """Send heartbeats to its UDP port, and wait until they are taken in."""
        self.now = at
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for text in texts:
                sock.sendto(text, ("127.0.0.1", self.port))
        self.settle()

    def settle(self) -> None:
        """Wait until what has come is read."""
        for fileno in self.plugin._heartbeats.filenos():
            do(self.running, self.plugin._heartbeats.read, fileno)


@pytest.fixture
def dog(run_plugin: Run, fake_circusd: FakeCircusd, journal: Journal) -> Callable[..., Dog]:
    def run(**options: Any) -> Dog:
        given = {"port": 0, "loop_rate": 1e6, "max_count": 3, **options}
        return Dog(run_plugin(WatchDog, **given), journal)

    return run


LIMIT = 3e6


def test_all_silent_processes_are_killed_in_one_round(
    dog: Callable[..., Dog], fake_circusd: FakeCircusd, journal: Journal
) -> None:
    fake_circusd.add_watcher("My App", 3)
    fake_circusd.add_watcher("plugin:mine", 1)
    pids = fake_circusd.pids("My App")
    running = dog()
    running.heard(b"%d;17" % pids[1], at=10.0)
    assert running.killed_at(LIMIT) == []
    assert sorted(running.killed_at(LIMIT + 1)) == [pids[0], pids[2]]
    journal.wait(f"my app: process {pids[0]} is silent; kill")
    assert sorted(running.killed_at(LIMIT + 2)) == [pids[0], pids[2]]  # once is enough
    assert running.killed_at(LIMIT + 11)[2:] == [pids[1]]


def test_one_that_circusd_is_too_busy_to_kill_is_tried_again_and_holds_up_no_other(
    run_plugin: Run, fake_circusd: FakeCircusd, journal: Journal
) -> None:
    fake_circusd.add_watcher("web", 2)
    pids = fake_circusd.pids("web")
    busy = {"status": "error", "reason": "arbiter is already running x", "errno": 5}
    fake_circusd.reply("kill", busy, pid=pids[0])
    running = run_plugin(WatchDog, port=0, loop_rate=100, max_count=2, clock="virtual")

    def killed() -> set[int]:
        found = {one.properties["pid"] for one in fake_circusd.commands if one.command == "kill"}
        fake_circusd.clear()
        return found

    running.advance(300)
    assert killed() == set(pids)
    running.advance(119)
    assert killed() == {pids[0]}  # again and again
    running.advance(2)
    journal.wait(f"web: process {pids[0]} is not killed: kill name='web'")
    killed()
    running.advance(179)
    assert pids[0] not in killed()
    running.advance(100)
    assert pids[0] in killed()


def test_a_process_whose_watcher_s_name_circusd_does_not_tell_is_looked_at(
    dog: Callable[..., Dog], fake_circusd: FakeCircusd
) -> None:
    running = dog()
    fake_circusd.reply("status", {"status": "error", "reason": "no", "errno": 3})
    running.running.publish("web", "spawn", process_pid=4000001)
    running.running.wait_handled(1, PATIENCE)
    assert running.killed_at(LIMIT + 1) == [4000001]


def test_how_they_are_killed_can_be_said(
    dog: Callable[..., Dog], fake_circusd: FakeCircusd
) -> None:
    fake_circusd.add_watcher("web")
    running = dog(watchers_stop_signal="ABRT", watchers_graceful_timeout="2 s")
    running.killed_at(LIMIT + 1)
    order = fake_circusd.wait_command("kill", name="web").properties
    assert (order["signum"], order["graceful_timeout"]) == (6, 2.0)


def test_processes_that_come_are_looked_at_and_those_that_go_are_not(
    dog: Callable[..., Dog], fake_circusd: FakeCircusd
) -> None:
    fake_circusd.add_watcher("web")
    (pid,) = fake_circusd.pids("web")
    running = dog()
    running.now = 100.0
    running.running.publish("web", "spawn", process_pid=4000001)
    running.running.publish("plugin:x", "spawn", process_pid=4000002)
    running.running.publish("web", "reap", process_pid=pid)
    running.running.publish("web", "spawn")
    running.running.wait_handled(4, PATIENCE)
    assert running.killed_at(LIMIT + 99) == []
    assert running.killed_at(LIMIT + 101) == [4000001]


def test_what_has_gone_while_circusd_was_away_is_not_killed(
    dog: Callable[..., Dog], fake_circusd: FakeCircusd
) -> None:
    fake_circusd.add_watcher("web", 2)
    _, other = fake_circusd.pids("web")
    running = dog()
    fake_circusd.reply("list", {"pids": [other]}, name="web")
    running.now = 10.0
    running.learn()  # as when circusd is back
    assert running.killed_at(LIMIT + 10) == []
    assert running.killed_at(LIMIT + 11) == [other]


def test_only_watchers_that_are_meant_are_looked_at(
    dog: Callable[..., Dog], fake_circusd: FakeCircusd
) -> None:
    for name in ("web", "Web Two", "api"):
        fake_circusd.add_watcher(name)
    meant = fake_circusd.pids("web") + fake_circusd.pids("Web Two")
    assert sorted(dog(watchers_regex="web(_two)?$").killed_at(LIMIT + 1)) == sorted(meant)


@pytest.mark.parametrize(
    "text",
    [b"", b"nonsense", b";", b"-1;2", b"x;2", b"9" * 500 + b";2", b"\xff\xfe;1", b"WATCHDOG=1"],
)
def test_what_is_no_heartbeat_is_passed_over(
    text: bytes, dog: Callable[..., Dog], fake_circusd: FakeCircusd
) -> None:
    fake_circusd.add_watcher("web")
    pids = fake_circusd.pids("web")
    running = dog()
    running.heard(text, b"1;2", b"4000009;2", at=10.0)
    assert running.killed_at(LIMIT + 1) == pids


def test_a_flood_is_read_in_parts(dog: Callable[..., Dog], fake_circusd: FakeCircusd) -> None:
    fake_circusd.add_watcher("web")
    (pid,) = fake_circusd.pids("web")
    running = dog()
    running.heard(*[b"rubbish"] * 150, at=5.0)
    running.heard(b"%d;1" % pid, at=10.0)
    assert running.killed_at(LIMIT + 1) == []


def test_heartbeats_may_look_otherwise(dog: Callable[..., Dog], fake_circusd: FakeCircusd) -> None:
    fake_circusd.add_watcher("web")
    (pid,) = fake_circusd.pids("web")
    running = dog(msg_regex=r"alive (?P<pid>\d+)?")
    running.heard(b"alive ", b"alive %d" % pid, at=10.0)
    assert running.killed_at(LIMIT + 1) == []


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cp-", dir="/tmp") as directory:
        yield Path(directory, "heartbeats")


def send(path: Path, text: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(text.encode(), str(path))


@contextlib.contextmanager
def sent_by_a_child(path: Path, text: str) -> Iterator[None]:
    """Has a process send a datagram that this one has started, and keeps it for the block."""
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); "
        "s.sendto(sys.argv[2].encode(), sys.argv[1]); print('sent', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-S", "-c", program, str(path), text]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        yield
        child.stdin.close()


@pytest.mark.parametrize("by_child", [False, True])
def test_a_unix_socket_takes_both_kinds_of_heartbeats(
    by_child: bool, path: Path, dog: Callable[..., Dog], fake_circusd: FakeCircusd
) -> None:
    fake_circusd.add_watcher("web")
    (pid,) = fake_circusd.pids("web")
    running = dog(socket=path, ip="")
    running.running.publish("web", "spawn", process_pid=os.getpid())
    running.running.wait_handled(1, PATIENCE)
    running.now = 10.0
    send(path, f"{pid};1")
    if by_child:
        with sent_by_a_child(path, "WATCHDOG=1"):
            running.settle()
    else:
        send(path, "READY=1\nWATCHDOG=1")
        running.settle()
    assert running.killed_at(LIMIT + 1) == []
    assert sorted(running.killed_at(LIMIT + 11)) == sorted([pid, os.getpid()])
    assert path.is_socket()
    assert path.stat().st_mode & 0o777 == 0o666  # whoever a watcher runs as
    running.running.stop()
    assert not path.exists()


def test_one_that_says_it_is_broken_is_killed_at_once(
    path: Path, dog: Callable[..., Dog], fake_circusd: FakeCircusd
) -> None:
    fake_circusd.add_watcher("web")
    running = dog(socket=path)
    running.running.publish("web", "spawn", process_pid=os.getpid())
    running.running.wait_handled(1, PATIENCE)
    send(path, "WATCHDOG=trigger")
    order = fake_circusd.wait_command("kill", timeout=PATIENCE)
    assert order.properties["pid"] == os.getpid()


def test_a_process_speaks_for_the_one_that_has_started_it_and_for_two_before_that(
    dog: Callable[..., Dog], fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_circusd.add_watcher("web")
    (pid,) = fake_circusd.pids("web")
    parents = {104: 103, 103: 102, 102: 101, 101: pid}
    monkeypatch.setattr("circusplug.plugins._watchdog.parent_of", parents.get)
    running = dog()
    running.heard(b"104;1", at=20.0)  # too far away
    running.heard(b"103;1", at=10.0)
    assert running.killed_at(LIMIT + 10) == []
    assert running.killed_at(LIMIT + 11) == [pid]


def test_who_has_started_a_process() -> None:
    assert parent_of(os.getpid()) == os.getppid()
    assert parent_of(2**22 + 1) == 0


def test_a_stale_socket_is_replaced_and_another_file_is_not(
    path: Path, dog: Callable[..., Dog], run_plugin: Run
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stale:
        stale.bind(str(path))
    dog(socket=path, ip="").running.stop()
    path.write_text("mine")
    with pytest.raises(SpecError, match=f"'socket': {path}: Address already in use"):
        run_plugin(WatchDog, socket=path, port=0)
    assert path.read_text() == "mine"


def test_a_port_that_is_taken_is_told(run_plugin: Run) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        with pytest.raises(SpecError, match=f"cannot listen at 127.0.0.1, port {port}: .*in use"):
            run_plugin(WatchDog, port=port)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"msg_regex": "x"}, r"'msg_regex' has no group \(\?P<pid>…\)"),
        ({"ip": ""}, "'ip' and 'socket' are both empty"),
        ({"port": 70000}, "'port': 70000 is more than 65535"),
    ],
)
def test_bad_options_are_told(options: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        WatchDog(**options)


def test_real_processes_that_go_silent_are_replaced(journal: Journal) -> None:
    beats = (
        "import os, socket, sys, time\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "while True:\n"
        "    s.sendto(b'%d;1' % os.getpid(), ('127.0.0.1', int(sys.argv[1])))\n"
        "    time.sleep(0.02)\n"
    )
    with tempfile.TemporaryDirectory() as directory, socket.socket(
        socket.AF_INET, socket.SOCK_DGRAM
    ) as free:  # fmt: skip
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        program = Path(directory, "beats.py")
        program.write_text(beats)
        watchers = {
            "beats": {"cmd": f"{sys.executable} -S {program} {port}"},
            "silent": {"numprocesses": 2},
        }
        with RealCircusd(watchers) as circusd:
            alive = circusd.call("list", name="beats")["pids"]
            silent = circusd.call("list", name="silent")["pids"]
            plugin = {"use": WatchDog, "port": port, "loop_rate": 0.2, "max_count": 10}
            with Arbiter([plugin], circusd.endpoint, circusd.pubsub_endpoint):
                for _ in silent:
                    journal.wait("is silent; kill")
                wait_while(
                    lambda: (
                        set(circusd.call("list", name="silent").get("pids", silent)) & set(silent)
                    )
                )
            assert circusd.call("list", name="beats")["pids"] == alive
            killed = [text for text in journal.messages if "is silent; kill" in text]
            assert [text for text in killed if f"process {alive[0]} " in text] == []
