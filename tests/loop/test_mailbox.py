# The queue that the supervising thread waits on.

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from patience import PATIENCE

from circusplug._loop.mailbox import Mailbox


@pytest.fixture
def mailbox() -> Iterator[Mailbox[object]]:
    mailbox: Mailbox[object] = Mailbox()
    yield mailbox
    mailbox.close()
    mailbox.close()


def test_items_come_out_in_the_order_they_were_put(mailbox: Mailbox[object]) -> None:
    for number in range(2000):
        mailbox.put(number)
    assert [mailbox.get() for _ in range(2000)] == list(range(2000))
    assert mailbox.get(0.0) is None


def test_a_reader_that_waits_is_woken_from_another_thread(mailbox: Mailbox[object]) -> None:
    taken: list[object] = []
    reader = threading.Thread(target=lambda: taken.extend(mailbox.get() for _ in range(3)))
    reader.start()
    for item in ("one", "two", "three"):
        mailbox.put(item)
    reader.join(PATIENCE)
    assert taken == ["one", "two", "three"]


def test_no_item_of_many_writers_is_lost(mailbox: Mailbox[object]) -> None:
    def write(first: int) -> None:
        for number in range(first, first + 1000):
            mailbox.put(number)

    writers = [threading.Thread(target=write, args=(first,)) for first in range(0, 4000, 1000)]
    for writer in writers:
        writer.start()
    taken = {mailbox.get(PATIENCE) for _ in range(4000)}
    for writer in writers:
        writer.join(PATIENCE)
    assert taken == set(range(4000))


@pytest.mark.parametrize("timeout", [0.0, -1.0, 0.001])
def test_without_an_item_the_time_runs_out(mailbox: Mailbox[object], timeout: float) -> None:
    assert mailbox.get(timeout) is None
    mailbox.put("item")
    assert mailbox.get(timeout) == "item"


@pytest.mark.parametrize("timeout", [1e7, 1e12, float("inf")])
def test_a_wait_may_be_as_long_as_one_likes(
    mailbox: Mailbox[object], monkeypatch: pytest.MonkeyPatch, timeout: float
) -> None:
    real = mailbox._poll

    class PutsMeanwhile:
        def poll(self, wait: float) -> Any:
            mailbox.put("item")
            return real.poll(wait)

    monkeypatch.setattr(mailbox, "_poll", PutsMeanwhile())
    assert mailbox.get(timeout) == "item"


def test_a_long_wait_is_made_of_several(
    mailbox: Mailbox[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug._loop.mailbox._LONGEST_POLL", 0.001)
    assert mailbox.get(0.02) is None
    putter = threading.Timer(0.02, mailbox.put, ["item"])
    putter.start()
    assert mailbox.get(PATIENCE) == "item"
    putter.join(PATIENCE)


def test_a_full_pipe_keeps_nobody_from_putting_or_taking(mailbox: Mailbox[object]) -> None:
    for number in range(100_000):
        mailbox.put(number)
    assert [mailbox.get(0.0) for _ in range(100_000)] == list(range(100_000))
    assert mailbox.get(0.001) is None  # reads the pipe empty
    mailbox.put("item")
    assert mailbox.get(PATIENCE) == "item"


def test_a_signal_handler_may_put_what_the_interrupted_reader_waits_for(
    mailbox: Mailbox[object],
) -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: mailbox.put("signalled"))
    wakeup = signal.set_wakeup_fd(mailbox.wakeup_fd)
    sender = threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGUSR1))
    try:
        sender.start()
        assert mailbox.get() == "signalled"
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGUSR1, before)
        sender.join(PATIENCE)


def test_another_descriptor_ends_the_wait_and_items_come_first(mailbox: Mailbox[object]) -> None:
    read_end, write_end = os.pipe()
    try:
        mailbox.also_watch(read_end)
        os.write(write_end, b"x")
        assert mailbox.get() is None
        mailbox.put("item")
        assert mailbox.get() == "item"
        assert mailbox.get() is None
        os.read(read_end, 1)
        mailbox.put("another")
        assert mailbox.get() == "another"
    finally:
        os.close(read_end)
        os.close(write_end)


def test_what_is_put_after_the_end_harms_nobody() -> None:
    mailbox: Mailbox[object] = Mailbox()
    mailbox.close()
    mailbox.put("item")
