# What plugins on threads print, in a process that marks it.

from __future__ import annotations

import contextlib
import io
import os
import socket
import sys
import threading
from collections.abc import Callable

import pytest

from circusplug._logging.printing import LINE_LIMIT, WholeFile
from circusplug._logs import configure, end_lines, logger, mark_output, speaking


class Output:
    """What standard output and error get, write by write: each is a datagram.

    A context manager and no fixture, as pytest sets both streams again before a test begins.
    """

    def __init__(self, mark: bool = True) -> None:
        self._mark = mark

    def __enter__(self) -> Output:
        near, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._far.setblocking(False)
        self._before = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = self._stream = os.fdopen(near.detach(), "w")
        if self._mark:
            mark_output()
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.stdout, sys.stderr = self._before
        self._stream.close()
        self._far.close()

    @property
    def writes(self) -> list[bytes]:
        """What was written since the last look."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self._far.recv(1_000_000))
        return found


def on_thread(action: Callable[[], object]) -> None:
    thread = threading.Thread(target=action)
    thread.start()
    thread.join()


def test_a_line_carries_the_name_of_who_prints_it_and_is_one_write() -> None:
    with Output() as output, speaking("one"):
        print("a", "b")
        assert output.writes == [b"[one] a b\n"]
        print("to", "standard error", file=sys.stderr)
        assert output.writes == [b"[one] to standard error\n"]
        print("two\nlines")
        assert output.writes == [b"[one] two\n", b"[one] lines\n"]
        sys.stdout.write("two\nlines\n")
        assert output.writes == [b"[one] two\n[one] lines\n"]


def test_who_speaks_for_nobody_prints_whole_lines_too() -> None:
    with Output() as output:
        print("a", "b")
        assert output.writes == [b"a b\n"]


def test_what_can_be_written_only_in_part_is_an_error() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    with open(read, "rb"), WholeFile(write, "wb") as file:
        assert file.write(b"a line\n") == 7
        with pytest.raises(BlockingIOError, match="nobody reads it just now"):
            file.write(bytes(10_000_000))  # more than a pipe takes


def test_lines_that_several_begin_do_not_tear_each_other() -> None:
    with Output() as output:
        with speaking("one"):
            print("begun", end=" ", flush=True)

            def other() -> None:
                with speaking("two"):
                    print("between")

            on_thread(other)
            print("ended")
        assert output.writes == [b"[two] between\n", b"[one] begun ended\n"]


def test_standard_output_and_error_have_lines_of_their_own() -> None:
    with Output() as output:
        with speaking("one"):
            print("out", end="")
            print("error", file=sys.stderr)
            print()
        assert output.writes == [b"[one] error\n", b"[one] out\n"]


def test_a_line_without_an_end_is_ended_when_its_speaker_falls_silent() -> None:
    with Output() as output:
        with speaking("one"):
            print("last words", end="")
            with speaking("two"):
                assert output.writes == [b"[one] last words\n"]
                print("more", end="")
            assert output.writes == [b"[two] more\n"]
        assert output.writes == []


def test_what_threads_have_begun_is_shown_when_the_process_ends() -> None:
    def begin(name: str) -> None:
        with speaking(name):
            begun.wait()
            print(f"last of {name}", end="")
            begun.wait()
            ended.wait()

    begun, ended = threading.Barrier(3), threading.Event()
    threads = [threading.Thread(target=begin, args=(name,)) for name in ("one", "two")]
    with Output() as output:
        for thread in threads:
            thread.start()
        begun.wait()
        begun.wait()
        try:
            assert output.writes == []
            end_lines()
            assert sorted(output.writes) == [b"[one] last of one\n", b"[two] last of two\n"]
        finally:
            ended.set()
            for thread in threads:
                thread.join()
        assert output.writes == []


def test_what_cannot_be_shown_at_the_end_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with Output() as output, speaking("one"):
        print("unheard", end="")
        output._far.close()
        print("also unheard", end="", file=sys.stderr)
        end_lines()
    below = io.StringIO()
    monkeypatch.setattr(sys, "stdout", below)
    mark_output()
    print("begun", end="")
    below.close()
    end_lines()
    sys.stdout.flush()  # as Python does at its end


def test_a_prompt_of_nobodys_is_shown_when_it_is_flushed() -> None:
    with Output() as output:
        print("name? ", end="")
        assert output.writes == []
        sys.stdout.flush()
        assert output.writes == [b"name? "]


def test_a_line_without_end_takes_bounded_memory() -> None:
    with Output() as output:
        with speaking("one"):
            print("x" * (LINE_LIMIT + 5), end="")
            assert output.writes == [b"[one] " + b"x" * LINE_LIMIT + b"\n"]
        assert output.writes == [b"[one] xxxxx\n"]


def test_bytes_and_descriptor_work_as_ever() -> None:
    with Output() as output:
        with speaking("one"):
            sys.stdout.buffer.write(b"raw\n")
            assert output.writes == [b"[one] raw\n"]
        os.write(sys.stdout.fileno(), b"below\n")
        assert output.writes == [b"below\n"]
        assert not sys.stdout.isatty()


def test_the_log_goes_past_the_names() -> None:
    with Output() as output:
        configure("info", "stdout")
        with speaking("one"):
            logger.info("hello")
        (line,) = output.writes
        assert line.endswith(b"[INFO] hello\n")
        assert not line.startswith(b"[one]")


def test_output_is_marked_once_and_what_waited_before_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    below = io.StringIO()  # as where a test captures: without a descriptor
    monkeypatch.setattr(sys, "stdout", below)
    monkeypatch.setattr(sys, "stderr", None)
    mark_output()
    mark_output()
    with speaking("one"):
        print("é")
    assert below.getvalue() == "[one] é\n"
    assert sys.stderr is None


def test_what_is_printed_to_somebodys_own_stream_does_not_wait_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Bare:
        """As much of a stream as `print` needs."""

        text = ""

        def write(self, text: str) -> None:
            self.text += text

        def flush(self) -> None:
            pass

    with io.TextIOWrapper(io.BytesIO()) as below:
        bare = Bare()
        monkeypatch.setattr(sys, "stdout", below)
        monkeypatch.setattr(sys, "stderr", bare)
        mark_output()
        with speaking("one"):
            print("hello")
            print("complaint", file=sys.stderr)
        assert below.buffer.getvalue() == b"[one] hello\n"  # type: ignore[attr-defined]
        assert bare.text == "[one] complaint\n"
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__


def test_what_is_in_the_streams_buffer_comes_first() -> None:
    with Output(mark=False) as output:
        print("first")
        mark_output()
        print("second")
        assert output.writes == [b"first\n", b"second\n"]


def test_a_process_that_is_forked_while_others_print_can_print() -> None:
    with Output() as output:
        stop = threading.Event()

        def chatter() -> None:
            with speaking("chatty"):
                while not stop.is_set():
                    print("x" * 100)
                    output.writes  # noqa: B018 - makes room

        thread = threading.Thread(target=chatter)
        thread.start()
        try:
            for _ in range(20):
                if (pid := os.fork()) == 0:
                    try:
                        print("child")
                    finally:
                        os._exit(0)
                assert os.waitpid(pid, 0)[1] == 0
        finally:
            stop.set()
            thread.join()
