# Both ends of the forkserver, each alone: how it is started and found dead, and what it does for a
# host that comes, asks and goes.

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from circusplug._isolated import forkserver, forkserver_main
from circusplug._isolated.forkserver import FORKSERVER, ForkServerProcess
from circusplug._isolated.forkserver_main import (
    ANSWER,
    DESCRIPTORS,
    ENDED,
    FAILED,
    FORKED,
    REQUEST,
    ForkServer,
    Process,
)

# The host's end.


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The sockets of forkservers that are never there: nobody reads from them."""
    fds: list[int] = []

    def spawn(fd: int) -> int:
        fds.append(os.dup(fd))
        return os.posix_spawn("/bin/true", ["true"], {})

    monkeypatch.setattr(os, "register_at_fork", lambda **_: None)
    monkeypatch.setattr(forkserver, "_spawn", spawn)
    yield fds
    for fd in fds:
        os.close(fd)


def end(server: ForkServerProcess) -> None:
    """Reap what a forkserver stands for, and let go of its socket."""
    if server.pid is not None:
        os.waitpid(server.pid, 0)
    server._forget()


def test_the_forkserver_is_started_once_and_again_when_it_has_ended(spawned: list[int]) -> None:
    server = ForkServerProcess()
    server.start()
    assert server.pid is not None
    os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
    before = server.descriptors
    server.start()
    assert len(spawned) == 2
    assert len(server.descriptors) == len(before) == 1
    end(server)
    assert server.descriptors == []


def test_a_forkserver_that_runs_is_not_started_again(
    spawned: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forkserver, "_has_ended", lambda pid: False)
    server = ForkServerProcess()
    server.start()
    server.start()
    assert len(spawned) == 1
    end(server)


def test_one_that_somebody_else_has_reaped_has_ended(spawned: list[int]) -> None:
    """A program may wait for whatever child it finds."""
    server = ForkServerProcess()
    server.start()
    assert server.pid is not None
    os.waitpid(server.pid, 0)
    server._bury()
    assert server.pid is None
    server.start()
    assert server.pid is not None
    os.waitpid(server.pid, 0)
    assert forkserver._has_ended(server.pid)
    server.start()
    assert len(spawned) == 3
    end(server)


def test_a_forkserver_that_hangs_keeps_nobody_waiting_for_ever(
    spawned: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forkserver, "_SEND_WAIT", 0.01)
    monkeypatch.setattr(forkserver, "_has_ended", lambda pid: False)
    server = ForkServerProcess()

    def ask_until_there_is_no_room() -> None:
        while True:
            server.request([], 1.0)

    with pytest.raises(TimeoutError):
        ask_until_there_is_no_room()
    end(server)


def test_a_process_that_is_forked_from_the_host_has_nothing_of_its_forkserver() -> None:
    FORKSERVER.start()
    (fd,) = FORKSERVER.descriptors
    with FORKSERVER._lock:  # held by one who asks for a process at that moment
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.fstat(fd)
            except OSError:
                clean = FORKSERVER.pid is None and not FORKSERVER.descriptors
                status = 0 if clean and FORKSERVER._lock.acquire(blocking=False) else 2
            finally:
                os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert FORKSERVER.descriptors == [fd]


def test_a_forkserver_has_what_it_needs_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = {
        "PYTHONFOO": "1",
        "LC_TIME": "C",
        "LD_LIBRARY_PATH": "/l",
        "LANG": "C",
        "TZ": "UTC",
        "PATH": "/bin",
        "MALLOC_ARENA_MAX": "1",
        "DYLD_LIBRARY_PATH": "/l",
    }
    for key in list(os.environ):
        monkeypatch.delenv(key)
    for key, text in (*needed.items(), ("SECRET", "swordfish"), ("HOME", "/root")):
        monkeypatch.setenv(key, text)
    monkeypatch.setattr(sys, "path", ["", "/one"])
    asked: list[Any] = []
    monkeypatch.setattr(
        os, "posix_spawn", lambda *args, **options: (asked.append((args, options)), 12)[1]
    )
    assert forkserver._spawn(9) == 12
    ((args, options),) = asked
    program, command, environment = args
    assert program == command[0] == sys.executable
    assert command[-3:] == [str(forkserver._FD), "/one", forkserver._ROOT]
    assert environment == needed
    assert options["file_actions"] == [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, 9, forkserver._FD),
    ]
    terminals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    assert set(options["setsigmask"]) == terminals
    assert set(options["setsigdef"]) == {*terminals, signal.SIGCHLD}
    monkeypatch.setattr(sys, "path", [forkserver._ROOT, "/one"])
    forkserver._spawn(9)
    assert asked[1][0][1][-2:] == [forkserver._ROOT, "/one"]


# The forkserver's end.


@pytest.fixture
def requests() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The host's end of a forkserver's socket, and its own."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


Requests = tuple[socket.socket, socket.socket]


def test_no_program_inherits_the_descriptors_of_a_request(
    requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = requests
    found: list[Any] = []

    def fork(fds: list[int], grace: float) -> None:
        found.append((grace, [os.get_inheritable(fd) for fd in fds]))
        os.close(fds[0])

    server = ForkServer(theirs)
    monkeypatch.setattr(server, "_fork", fork)
    with open(os.devnull) as nothing:
        socket.send_fds(ours, [REQUEST.pack(2.5)], [nothing.fileno()] * DESCRIPTORS)
    server._take_request()
    assert found == [(2.5, [False] * DESCRIPTORS)]


def test_a_request_for_which_there_is_no_room_is_told_and_leaves_nothing(
    requests: Requests,
) -> None:
    ours, theirs = requests
    answers, far = socket.socketpair()
    with answers, open(os.devnull) as nothing:
        with far:
            # The kernel gives on only those for which the receiver has numbers left.
            socket.send_fds(ours, [REQUEST.pack(1.0)], [far.fileno(), nothing.fileno()])
        ForkServer(theirs)._take_request()
        assert ANSWER.unpack(answers.recv(ANSWER.size)) == (FAILED, errno.EMFILE)
        assert answers.recv(1) == b""
        ours.send(REQUEST.pack(1.0))
        ForkServer(theirs)._take_request()  # for none at all


def spawned_as_fork(monkeypatch: pytest.MonkeyPatch) -> int:
    """Let the next fork be a process that is no copy of this one; returns its number."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    monkeypatch.setattr(os, "fork", lambda: pid)
    return pid


def test_a_process_that_is_forked_is_told_with_a_handle_of_it(
    requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = spawned_as_fork(monkeypatch)
    answers, far = socket.socketpair()
    with answers:
        server = ForkServer(requests[1])
        server._fork([far.detach()], 7.0)
        data, handles, _, _ = socket.recv_fds(answers, ANSWER.size, 1)
        assert ANSWER.unpack(data) == (FORKED, pid)
        (handle,) = handles
        signal.pidfd_send_signal(handle, 0)
        os.close(handle)
        child = server._children[pid]
        assert (child.pid, child.grace) == (pid, 7.0)
        child.answers.close()
    os.waitpid(pid, 0)


def test_a_process_holds_nothing_of_its_siblings_or_the_forkserver(
    requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else their end, and the forkserver's, would not be seen while it lives."""
    ours, theirs = requests
    answers, far = socket.socketpair()
    held: list[int] = []

    def main(_: list[int]) -> int:
        held.extend([theirs.fileno(), answers.fileno()])
        return 0

    before = signal.getsignal(signal.SIGCHLD)
    monkeypatch.setattr(forkserver_main.child_main, "main", main)
    monkeypatch.setattr(os, "_exit", lambda status: None)
    server = ForkServer(theirs)
    server._wakeup = os.pipe()
    server._children[1] = Process(1, answers, 1.0)
    with far:
        server._become_child([])
    signal.signal(signal.SIGCHLD, before)
    assert held == [-1, -1]
    assert ours.recv(1) == b""


def test_a_host_that_has_given_up_a_process_is_no_trouble(
    requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = spawned_as_fork(monkeypatch)
    answers, far = socket.socketpair()
    answers.close()
    server = ForkServer(requests[1])
    server._fork([far.detach()], 1.0)
    server._children[pid].tell(ENDED, 0)
    server._children[pid].answers.close()
    os.waitpid(pid, 0)


def test_a_process_that_has_no_group_yet_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(group: int, number: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(os, "killpg", refuse)
    with socket.socket() as answers:
        Process(12, answers, 1.0).signal_group(signal.SIGKILL)


@pytest.mark.parametrize(
    ("code", "status", "told"),
    [(os.CLD_EXITED, 3, 3), (os.CLD_KILLED, 9, -9), (os.CLD_DUMPED, 11, -11)],
)
def test_an_end_of_any_kind_is_told_and_forgotten(
    code: int, status: int, told: int, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, theirs = requests
    found = [SimpleNamespace(si_pid=12, si_code=code, si_status=status), None]
    done: list[Any] = []
    monkeypatch.setattr(os, "waitid", lambda kind, _, what: found.pop(0))
    monkeypatch.setattr(os, "killpg", lambda *what: done.append(what))
    monkeypatch.setattr(os, "waitpid", lambda *what: done.append("reaped"))
    answers, far = socket.socketpair()
    with answers:
        server = ForkServer(theirs)
        server._children[12] = Process(12, far, 1.0)
        server._look_after_children()
        assert ANSWER.unpack(answers.recv(ANSWER.size)) == (ENDED, told)
        assert answers.recv(1) == b""
    assert done == [(12, signal.SIGKILL), "reaped"]
    assert server._children == {}


def test_when_the_host_has_gone_each_process_has_its_own_time(
    requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = requests
    now = 100.0
    killed: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda group, number: killed.append(group))
    monkeypatch.setattr(forkserver_main, "time", SimpleNamespace(monotonic=lambda: now))
    server = ForkServer(theirs)
    server._poll.register(theirs)
    with socket.socket() as answers:
        for pid, grace in ((12, 5.0), (13, 3.0)):
            server._children[pid] = Process(pid, answers, grace)
        assert server._time_left() is None
        server._end_what_outlives_host()
        ours.close()
        server._take_request()
        assert server._poll.poll(0) == []  # its end is seen once
        assert server._time_left() == pytest.approx(3001.0)
        now = 102.9
        server._end_what_outlives_host()
        assert killed == []
        now = 103.0
        server._end_what_outlives_host()
        assert killed == [13]
        assert server._time_left() == pytest.approx(2001.0)
        now = 105.0
        assert server._time_left() is None  # their ends are told by a signal
