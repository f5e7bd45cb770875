# What the loop calls when a ZMQ socket or a descriptor is ready.

from __future__ import annotations

import asyncio
import datetime
import os
import socket
from types import SimpleNamespace
from typing import Any

import pytest
from loop_runs import run

from circusplug._loop.plugin_loop import PluginLoop

# ZMQ sockets.


def test_a_socket_is_watched_for_reading_writing_and_not_at_all(
    loop: PluginLoop, pair: tuple[Any, Any]
) -> None:
    seen: list[str] = []

    def read() -> None:
        seen.append(pair[0].recv().decode())
        loop.watch_socket(pair[0], None, write)

    def write() -> None:
        seen.append("writable")
        loop.watch_socket(pair[0], None)
        loop.watch_socket(pair[0], None)
        loop.call_soon(loop.call_soon, loop.stop)

    loop.watch_socket(pair[0], read)
    pair[1].send(b"one")
    pair[1].send(b"two")
    run(loop)
    assert seen == ["one", "writable"]


def test_a_readable_socket_leaves_timers_callbacks_and_coroutines_their_turn(
    loop: PluginLoop, pair: tuple[Any, Any]
) -> None:
    seen: set[str] = set()
    loop.watch_socket(pair[0], lambda: None)  # never read from, so always readable
    pair[1].send(b"")
    loop.add_timeout(datetime.timedelta(milliseconds=1), seen.add, "timer")
    loop.add_callback(seen.add, "callback")

    async def wait() -> None:
        await asyncio.sleep(0.001)
        seen.add("coroutine")
        while len(seen) < 3:
            await asyncio.sleep(0)

    loop.run_until_complete(wait())
    assert seen == {"timer", "callback", "coroutine"}


# Handlers, under Tornado's names.


def test_a_handler_gets_what_was_added_and_the_event(
    loop: PluginLoop, pair: tuple[Any, Any], pipe: tuple[int, int]
) -> None:
    ours, theirs = socket.socketpair()
    seen: list[tuple[Any, int]] = []

    def handle(fd: Any, events: int) -> None:
        seen.append((fd, events))
        loop.remove_handler(fd)
        if len(seen) == 3:
            loop.stop()

    with ours, theirs:
        for each in (ours, pair[0], pipe[0]):
            loop.add_handler(each, handle, loop.READ)
        theirs.send(b"x")
        pair[1].send(b"x")
        os.write(pipe[1], b"x")
        run(loop)
        assert {fd for fd, _ in seen} == {ours, pair[0], pipe[0]}
        assert {events for _, events in seen} == {loop.READ}
        loop.remove_handler(ours)  # nothing happens


@pytest.mark.parametrize("kind", ["descriptor", "zmq"])
def test_a_handler_is_updated_and_replaced(
    kind: str, loop: PluginLoop, pair: tuple[Any, Any]
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        watched, other = pair if kind == "zmq" else (ours, theirs)
        seen: list[tuple[str, int]] = []

        def first(fd: Any, events: int) -> None:
            seen.append(("first", events))
            loop.update_handler(fd, loop.READ)
            other.send(b"x")
            loop.add_callback(loop.add_handler, fd, second, loop.READ | loop.WRITE)

        def second(fd: Any, events: int) -> None:
            seen.append(("second", events))
            if {("second", loop.READ), ("second", loop.WRITE)} <= set(seen):
                loop.remove_handler(fd)
                loop.stop()

        loop.add_handler(watched, first, loop.WRITE)
        run(loop)
    assert seen[0] == ("first", loop.WRITE)
    assert seen.count(("first", loop.WRITE)) == 1


def test_a_zmq_handler_that_another_one_removes_is_not_called_any_more(
    loop: PluginLoop, pair: tuple[Any, Any]
) -> None:
    called: list[Any] = []

    def handle(socket: Any, events: int) -> None:
        called.append(socket)
        for each in pair:
            loop.remove_handler(each)
        loop.stop()

    for each, other in (pair, pair[::-1]):  # both are ready in the same round
        loop.add_handler(each, handle, loop.READ)
        other.send(b"x")
    run(loop)
    assert len(called) == 1


def test_what_was_handled_is_let_go_after_the_end_too(
    pair: tuple[Any, Any], pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[object] = []
    monkeypatch.setattr(
        "circusplug._loop.plugin_loop.relay", SimpleNamespace(forget=forgotten.append)
    )
    loop = PluginLoop()
    for each in (pair[0], pipe[0]):
        loop.add_handler(each, print, loop.READ)
    loop.close()
    for each in (pair[0], pipe[0]):
        loop.remove_handler(each)
    assert forgotten == [loop]  # and with it the signals that it has asked for
