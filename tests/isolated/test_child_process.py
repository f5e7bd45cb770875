# One isolated plugin's process as the host sees it, told by hand what the forkserver says of it.

from __future__ import annotations

import os
import threading
from typing import Any

from patience import PATIENCE

from circusplug._isolated.child_process import ChildProcess
from circusplug._isolated.forkserver_main import ANSWER, CONTINUED, ENDED, STOPPED
from circusplug._isolated.messages import Ended, encode
from circusplug._isolated.pipes import Pipes


class Listener:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.over = threading.Event()

    def heard(self, report: Any) -> None:
        self.told.append(report)

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
