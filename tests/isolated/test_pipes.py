# The pipes from isolated plugins, which one thread of the host reads: for how long, how often, and
# what becomes of those who are late, loud or faulty.

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import threading
from types import SimpleNamespace

import pytest
from patience import PATIENCE

from circusplug._isolated.pipe_reader import PipeReader

pytestmark = pytest.mark.usefixtures("unhurried_end")


def test_what_was_said_before_the_end_is_read_at_the_end() -> None:
    heard: list[bytes] = []
    read, write = os.pipe()
    os.write(write, b"last words")
    os.close(write)

    done = threading.Event()

    def begin_and_end() -> None:
        reader.watch(read, heard.append, lambda: heard.append(b"."))
        reader._end()
        done.set()

    with PipeReader() as reader:
        reader.call(begin_and_end)
        assert done.wait(PATIENCE)
    assert heard == [b"last words", b"."]


def test_a_late_comer_is_closed_and_not_read() -> None:
    ended = threading.Event()
    with PipeReader() as reader:
        pass
    read, write = os.pipe()
    reader.watch(read, lambda data: None, ended.set)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.read(read, 1)
    os.close(write)
    assert ended.is_set()


def test_whoever_is_not_read_to_the_end_is_told_so() -> None:
    ended = threading.Event()
    read, write = os.pipe()
    with PipeReader() as reader:
        reader.watch(read, lambda data: None, ended.set)
    assert ended.is_set()
    os.close(write)


def test_a_pipe_is_left_alone_for_as_long_as_its_reader_says_but_read_out_at_its_end() -> None:
    heard: list[bytes] = []
    once, other, out = threading.Event(), threading.Event(), threading.Event()
    (read, write), (read_other, write_other) = os.pipe(), os.pipe()

    def take(data: bytes) -> float:
        heard.append(data)
        once.set()
        return 1000.0

    def read_out() -> None:
        reader.read_out(read)
        out.set()

    with PipeReader() as reader:
        reader.watch(read, take, lambda: None)
        reader.watch(read_other, lambda data: other.set(), lambda: None)
        os.write(write, b"one")
        assert once.wait(PATIENCE)
        os.write(write, b"two")
        os.write(write_other, b"x")
        assert other.wait(PATIENCE)
        assert heard == [b"one"]
        reader.call(read_out)
        assert out.wait(PATIENCE)
    assert heard == [b"one", b"two"]
    os.close(write)
    os.close(write_other)


def test_what_a_callback_raises_is_logged_and_the_other_pipes_are_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = threading.Event()
    (read, write), (read_other, write_other) = os.pipe(), os.pipe()

    def fail(data: bytes) -> None:
        os.write(write_other, b"x")
        raise ValueError("on purpose")

    with PipeReader() as reader:
        reader.watch(read, fail, lambda: None)
        reader.watch(read_other, lambda data: other.set(), lambda: None)
        os.write(write, b"one")
        assert other.wait(PATIENCE)
    assert "on purpose" in caplog.text
    os.close(write)
    os.close(write_other)


def test_timers_come_in_the_order_of_their_moments(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    done = threading.Event()

    def set_them() -> None:  # on the reading thread, so that none comes before the last is set
        for moment, what in ((-1.0, "third"), (-2.0, "first"), (-2.0, "second")):
            reader.call_at(moment, lambda what=what: told.append(what))  # type: ignore[misc]
        reader.call_at(-0.5, done.set)

    with PipeReader() as reader:
        reader.call(set_them)
        assert done.wait(PATIENCE)
    assert told == ["first", "second", "third"]
    assert caplog.records == []


def test_a_pipe_is_read_again_after_its_rest() -> None:
    heard: list[bytes] = []
    once, twice = threading.Event(), threading.Event()
    read, write = os.pipe()

    def take(data: bytes) -> float:
        (twice if heard else once).set()
        heard.append(data)
        return 0.001

    with PipeReader() as reader:
        reader.watch(read, take, lambda: None)
        os.write(write, b"one")
        assert once.wait(PATIENCE)
        os.write(write, b"two")
        assert twice.wait(PATIENCE)
    assert heard == [b"one", b"two"]
    os.close(write)


def test_after_its_rest_a_descriptor_may_be_another_ones() -> None:
    reader = PipeReader()
    read, write = os.pipe()
    with selectors.DefaultSelector() as reader._selector:
        before, now = ((lambda data: None, lambda: None) for _ in range(2))
        reader._begin_watch(read, now)
        reader._go_on(read, before)  # is registered already, and not by this one
        reader._selector.unregister(read)
        reader._go_on(read, before)
        assert read not in reader._selector.get_map()
        reader._go_on(read, now)
        assert read in reader._selector.get_map()
    for fd in (read, write):
        os.close(fd)


def test_a_pipe_that_never_falls_silent_keeps_no_host_from_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, write = os.pipe()
    begun, ended = threading.Event(), threading.Event()

    def take(data: bytes) -> None:
        os.write(write, b"and more")
        begun.set()

    os.write(write, b"much")
    with PipeReader() as reader:
        reader.watch(read, take, ended.set)
        assert begun.wait(PATIENCE)
        # By this clock every time is over when it is looked at again.
        clock = SimpleNamespace(monotonic=itertools.count(0.0, 1e6).__next__)
        monkeypatch.setattr("circusplug._isolated.pipe_reader.time", clock)
    assert ended.is_set()
    os.close(write)


def test_nobody_who_hands_over_work_waits_for_a_reading_thread_that_is_busy() -> None:
    busy, free, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        busy.set()
        assert free.wait(PATIENCE)

    with PipeReader() as reader:
        reader.call(work)
        assert busy.wait(PATIENCE)
        assert not os.get_blocking(reader._wake_write)
        with contextlib.suppress(BlockingIOError):
            while True:  # until nothing more goes into the pipe that wakes it
                os.write(reader._wake_write, bytes(4096))
        assert reader.call(done.set)
        free.set()
        assert done.wait(PATIENCE)
