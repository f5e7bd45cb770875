# The selector: one poll for ZMQ sockets and descriptors, in which an idle loop waits without a
# limit.

from __future__ import annotations

import datetime
import os
import selectors
import socket
import threading
import time
from typing import Any

import pytest
import zmq
from loop_runs import run
from patience import PATIENCE

from circusplug._loop.plugin_loop import PluginLoop
from circusplug._loop.selector import PollerSelector


def test_sockets_and_descriptors_wait_in_the_same_poll(
    selector: PollerSelector, pair: tuple[Any, Any], pipe: tuple[int, int]
) -> None:
    selector.register(pair[0], selectors.EVENT_READ, "socket")
    selector.register(pipe[0], selectors.EVENT_READ, "pipe")
    assert selector.select(0) == []
    pair[1].send(b"")
    os.write(pipe[1], b"x")
    ready = {(key.data, events) for key, events in selector.select(PATIENCE)}
    assert ready == {("socket", selectors.EVENT_READ), ("pipe", selectors.EVENT_READ)}


def test_only_the_events_registered_for_are_told(
    selector: PollerSelector, pair: tuple[Any, Any]
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for each in (ours, pair[0]):
            selector.register(each, selectors.EVENT_READ | selectors.EVENT_WRITE, "both")
        told = {key.fileobj: events for key, events in selector.select(PATIENCE)}
        assert told == {ours: selectors.EVENT_WRITE, pair[0]: selectors.EVENT_WRITE}
        for each in (ours, pair[0]):
            selector.modify(each, selectors.EVENT_READ, "one")
        assert selector.select(0) == []
        theirs.send(b"x")
        pair[1].send(b"x")
        told = {key.fileobj: events for key, events in selector.select(PATIENCE)}
        assert told == {ours: selectors.EVENT_READ, pair[0]: selectors.EVENT_READ}


def test_a_selector_keeps_the_books_of_the_standard_library(
    selector: PollerSelector, pair: tuple[Any, Any]
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        key = selector.register(ours, selectors.EVENT_READ, "data")
        assert (key.fileobj, key.fd, key.data) == (ours, ours.fileno(), "data")
        with pytest.raises(KeyError, match="already registered"):
            selector.register(ours.fileno(), selectors.EVENT_READ)
        assert selector.get_key(ours) == selector.get_key(ours.fileno()) == key
        assert selector.modify(ours, selectors.EVENT_READ, "other").data == "other"
        assert len(selector.get_map()) == 1
        assert ours in selector.get_map()
        assert theirs not in selector.get_map()
        assert list(selector.get_map()) == [ours.fileno()]
        assert selector.unregister(ours).data == "other"
        for forget in (selector.unregister, selector.get_key):
            with pytest.raises(KeyError):
                forget(ours)
        selector.register(theirs, selectors.EVENT_READ)
        theirs.close()
        selector.unregister(theirs)  # found by identity, as in the standard library
        with pytest.raises(ValueError, match="closed"):
            selector.register(theirs, selectors.EVENT_READ)


def test_a_descriptor_closed_while_registered_is_dropped(
    selector: PollerSelector, pipe: tuple[int, int]
) -> None:
    selector.register(pipe[0], selectors.EVENT_READ, "pipe")
    os.close(pipe[0])
    assert selector.select(PATIENCE) == []
    assert len(selector.get_map()) == 0


def test_a_zmq_socket_closed_while_registered_is_dropped(
    selector: PollerSelector, pair: tuple[Any, Any], pipe: tuple[int, int]
) -> None:
    selector.register(pair[0], selectors.EVENT_READ, "socket")
    selector.register(pipe[0], selectors.EVENT_READ, "pipe")
    pair[0].close()
    os.write(pipe[1], b"x")
    # pyzmq takes a closed socket for descriptor 0, which has something to be read here.
    stdin = os.dup(0)
    os.dup2(pipe[0], 0)
    try:
        assert [key.data for key, _ in selector.select(PATIENCE)] == ["pipe"]
        assert [key.data for key, _ in selector.select(PATIENCE)] == ["pipe"]
    finally:
        os.dup2(stdin, 0)
        os.close(stdin)
    assert len(selector.get_map()) == 1


def test_a_poll_that_fails_for_another_reason_is_an_error(
    selector: PollerSelector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(wait: int) -> Any:
        raise zmq.ContextTerminated

    monkeypatch.setattr(selector._poller, "poll", fail)
    with pytest.raises(zmq.ContextTerminated):
        selector.select(0)


def test_a_pipe_whose_other_end_is_closed_is_readable(
    selector: PollerSelector, pipe: tuple[int, int]
) -> None:
    selector.register(pipe[0], selectors.EVENT_READ, "pipe")
    os.close(pipe[1])
    assert [key.data for key, _ in selector.select(PATIENCE)] == ["pipe"]


@pytest.mark.parametrize(
    ("timeout", "waits"),
    [(None, -1), (0, 0), (-5.0, 0), (0.0001, 1), (0.0011, 2), (2.5, 2500)],
)
def test_a_wait_is_never_cut_short_to_a_spin(
    timeout: float | None, waits: int, selector: PollerSelector, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[int] = []

    def poll(wait: int) -> list[Any]:
        waited.append(wait)
        return []

    monkeypatch.setattr(selector._poller, "poll", poll)
    assert selector.select(timeout) == []
    assert waited == [waits]


def test_a_selector_tells_since_when_it_is_busy_and_that_it_woke(
    selector: PollerSelector, pipe: tuple[int, int]
) -> None:
    seen: list[float] = []
    selector.on_wake = lambda: seen.append(selector.busy_since)
    assert selector.busy_since == 0.0
    selector.select(0)
    assert seen == []  # it did not wait
    selector.register(pipe[0], selectors.EVENT_READ)
    os.write(pipe[1], b"x")
    before = time.monotonic()
    selector.select(PATIENCE)
    assert before <= selector.busy_since <= time.monotonic()
    assert seen == [selector.busy_since]


class Counting(PollerSelector):
    """Notes how long each poll was to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    def select(self, timeout: float | None = None) -> Any:
        self.waits.append(timeout)
        return super().select(timeout)


def test_an_idle_loop_waits_without_a_limit(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[Any, Any], pipe: tuple[int, int]
) -> None:
    monkeypatch.setattr("circusplug._loop.plugin_loop.PollerSelector", Counting)
    loop = PluginLoop()
    selector = loop.selector
    assert isinstance(selector, Counting)
    loop.watch_socket(pair[0], lambda: None)
    loop.add_reader(pipe[0], lambda: None)
    handled = threading.Semaphore(0)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    for _ in range(3):
        loop.add_callback(handled.release)
        assert handled.acquire(timeout=PATIENCE)
    loop.stop_threadsafe()
    thread.join(PATIENCE)
    loop.close()
    # Each callback takes at most a round in which it is handed over and one that runs it.
    assert set(selector.waits) <= {None, 0}
    assert len(selector.waits) <= 9


def test_a_handler_whose_descriptor_was_closed_does_not_keep_the_loop_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("circusplug._loop.plugin_loop.PollerSelector", Counting)
    loop = PluginLoop()
    ours, theirs = socket.socketpair()
    calls: list[Any] = []
    loop.add_handler(ours, lambda *told: calls.append(told), loop.READ)
    ours.close()
    theirs.close()
    loop.add_timeout(datetime.timedelta(milliseconds=20), loop.stop)
    run(loop)
    loop.remove_handler(ours)
    assert calls == []
    assert isinstance(loop.selector, Counting)
    assert len(loop.selector.waits) < 10
    loop.close()
