# One isolated plugin's process as the host sees it, told by hand what the forkserver says of it.

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import threading
from typing import Any

import pytest
from patience import PATIENCE

from circusplug._isolated import child_process, messages
from circusplug._isolated.child_process import ChildProcess
from circusplug._isolated.forkserver import FORKSERVER
from circusplug._isolated.forkserver_main import (
    ANSWER,
    CONTINUED,
    DESCRIPTORS,
    ENDED,
    FAILED,
    FORKED,
    STOPPED,
)
from circusplug._isolated.messages import Ended, encode
from circusplug._isolated.pipes import Pipes


class Listener:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.over = threading.Event()

    def heard(self, report: Any) -> None:
        self.told.append(report)

    def keeps_still(self, stack: str) -> None:
        self.told.append(stack)

    def paused(self, is_paused: bool) -> None:
        self.told.append(is_paused)

    def orphaned(self) -> None:
        self.told.append("orphaned")

    def ended(self, status: int | None) -> None:
        self.told.append(status)
        self.over.set()


def test_what_it_has_said_last_comes_before_its_end() -> None:
    listener: Any = Listener()
    last = Ended("an error", permanent=True, retry=False)
    read, write = os.pipe()
    os.set_blocking(read, False)
    with Pipes() as pipes:
        process = ChildProcess("one", pipes, listener)

        def say_and_end() -> None:
            os.write(write, encode(last))
            process._take_answer(ANSWER.pack(ENDED, 1))

        process._watch(read, *process._output.lines_of(process._hear))
        pipes.reader.call(say_and_end)
        assert listener.over.wait(PATIENCE)
    os.close(write)
    assert listener.told == [last, 1]
    assert process._watched == []  # by now those numbers may be other ones'


def test_what_the_forkserver_says_is_put_together_of_pieces_of_any_size() -> None:
    listener: Any = Listener()
    process = ChildProcess("one", Pipes(), listener)
    said = ANSWER.pack(STOPPED, 19) + ANSWER.pack(CONTINUED, 18) + ANSWER.pack(ENDED, -9)
    for place in range(len(said)):
        process._take_answer(said[place : place + 1])
    assert listener.told == [True, False, -9]


def test_its_end_is_told_once() -> None:
    listener: Any = Listener()
    process = ChildProcess("one", Pipes(), listener)
    process._take_answer(ANSWER.pack(ENDED, 0))
    process._end_of_answers()
    process._end_of_control()
    assert listener.told == [0]


def test_without_a_forkserver_the_end_of_its_socket_is_its_end() -> None:
    listener: Any = Listener()
    process = ChildProcess("one", Pipes(), listener)
    process._end_of_answers()
    assert listener.told == ["orphaned"]
    process._end_of_control()
    assert listener.told == ["orphaned", None]


def test_what_it_says_after_its_end_is_not_heard() -> None:
    listener: Any = Listener()
    process = ChildProcess("one", Pipes(), listener)
    process._take_answer(ANSWER.pack(ENDED, 0))
    process._hear([encode(Ended("late", permanent=True, retry=False)).rstrip()])
    assert listener.told == [0]


def test_without_a_forkserver_what_it_has_started_is_killed_at_its_end() -> None:
    process = ChildProcess("one", Pipes(), Listener())
    with subprocess.Popen(
        ["sh", "-c", "sleep 120 & echo started; wait"], stdout=-1, start_new_session=True
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"started\n"
        process._handle = os.pidfd_open(program.pid)
        program.kill()
        try:
            signal.pidfd_send_signal(process._handle, 0, None, child_process._PROCESS_GROUP)
            process._end_of_answers()
            process._end_of_control()
            assert select.select([program.stdout], [], [], PATIENCE)[0]
            assert program.stdout.read() == b""  # nobody is left who could write there
        except OSError:
            os.close(process._handle)
            pytest.skip("this kernel cannot signal a group by a handle")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)


def test_when_the_forkserver_dies_over_a_request_the_next_process_has_other_sockets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first request may have made a process all the same, which must not have the same."""
    asked: list[set[int]] = []

    def request(fds: list[int], grace: float) -> None:
        asked.append({os.fstat(fd).st_ino for fd in fds})
        if len(asked) == 2:
            with socket.socket(fileno=os.dup(fds[0])) as answers:
                answers.send(ANSWER.pack(FAILED, errno.ENOMEM))

    monkeypatch.setattr(FORKSERVER, "request", request)
    launch: Any = None
    with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
        ChildProcess("one", Pipes(), Listener()).launch(launch, 1.0)
    first, second = asked
    assert len(first) == len(second) == DESCRIPTORS
    assert first.isdisjoint(second)


def test_a_process_that_is_dead_before_it_was_told_anything_has_an_end_as_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listener: Any = Listener()
    looks: list[bool] = []

    def request(fds: list[int], grace: float) -> None:
        with socket.socket(fileno=os.dup(fds[0])) as answers:
            own = os.pidfd_open(os.getpid())
            socket.send_fds(answers, [ANSWER.pack(FORKED, os.getpid())], [own])
            os.close(own)
            answers.send(ANSWER.pack(ENDED, -9))

    monkeypatch.setattr(FORKSERVER, "request", request)
    launch: Any = None
    with Pipes() as pipes:
        process = ChildProcess("one", pipes, listener)
        process.send(messages.AskState())  # there is no process yet
        watch_all = process._watch_all

        def look_and_watch_all(control: int, answers: int, ends: list[int]) -> None:
            assert process._control is not None
            assert process._handle is not None
            looks.append(process._control.getblocking())
            looks.append(os.get_inheritable(process._handle))
            watch_all(control, answers, ends)

        monkeypatch.setattr(process, "_watch_all", look_and_watch_all)
        process.launch(launch, 1.0)
        assert listener.over.wait(PATIENCE)
        process.send(messages.AskState())  # it is gone
    assert looks == [False, False]  # who does not read makes nobody wait; no program inherits it
    assert (listener.told, process.pid) == ([-9], os.getpid())


def test_where_there_are_no_handles_only_one_that_has_not_ended_is_signalled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *what: killed.append(what))
    process = ChildProcess("one", Pipes(), Listener())
    process.signal(signal.SIGTERM)  # there is none yet
    process.pid = 12
    process.signal(signal.SIGTERM)
    process._take_answer(ANSWER.pack(ENDED, 0))
    process.kill()
    assert killed == [(12, signal.SIGTERM)]


def test_a_signal_for_one_that_is_gone_or_anothers_is_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = ChildProcess("one", Pipes(), Listener())
    process.pid = 12
    for error in (ProcessLookupError, PermissionError):

        def refuse(pid: int, number: int, error: type[OSError] = error) -> None:
            raise error

        monkeypatch.setattr(os, "kill", refuse)
        process.signal(signal.SIGTERM)


def test_the_stack_that_its_watchdog_writes_is_told_once_it_is_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listener: Any = Listener()
    process = ChildProcess("one", Pipes(), listener)
    timers: list[Any] = []
    monkeypatch.setattr(process._reader, "call_at", lambda _, action: timers.append(action))
    for data in (b"Thread 1\n", b'  File "\xff\x1b"', b"x" * messages.TEXT_LIMIT):
        process._take_stack(data)
    (tell,) = timers
    tell()
    (stack,) = listener.told
    assert stack.startswith('Thread 1\n  File "\ufffd?"xxx')
    assert len(stack) == messages.TEXT_LIMIT
    process._take_stack(b"again")
    timers[1]()
    assert listener.told[1:] == ["again"]
    process._take_stack(b"late")
    process._take_answer(ANSWER.pack(ENDED, 0))
    timers[2]()
    assert listener.told[2:] == [0]
