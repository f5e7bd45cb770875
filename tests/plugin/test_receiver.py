# The receiver by itself, on real sockets and on the test's own thread: the order of events and of
# what follows a change of the connection, and what happens at a halt.

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
import zmq
from patience import PATIENCE
from receiver_rig import Rig

from circusplug._plugin.receiver import Frames
from circusplug._plugin.turns import turn


@pytest.mark.parametrize("at", [1, 2, 3, 5, 6, 7, 9, 20])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_connection_that_came_while_a_handler_blocked_is_told_before_its_events(
    asynchronous: bool, at: int, rig: Rig
) -> None:
    names = [str(number).encode() for number in range(1, at + 1)]

    def handle(frames: Frames) -> None:
        if rig.told[-1] == names[-1]:
            rig.restart(b"new")

    async def handle_later(frames: Frames) -> None:
        handle(frames)

    rig.publish(*names)
    rig.run(handle_later if asynchronous else handle, until=b"new")
    assert rig.told == [*names, False, True, b"new"]


def test_what_follows_a_connection_is_awaited_before_its_events(rig: Rig) -> None:
    async def follow() -> None:
        await asyncio.sleep(0)
        rig.told.append("followed")

    def on_link(up: bool) -> Any:
        return follow() if up else None

    rig.on_link = on_link
    rig.publish(b"old")

    def handle(frames: Frames) -> None:
        if rig.told[-1] == b"old":
            rig.restart(b"new", b"newer")

    rig.run(handle, until=b"newer")
    assert rig.told == [b"old", "followed", b"new", b"newer"]


def test_what_is_raised_at_a_change_of_the_connection_is_told_and_events_go_on(rig: Rig) -> None:
    errors = asyncio.CancelledError(), zmq.ZMQError(24)

    def on_link(up: bool) -> None:
        raise errors[up]

    rig.on_link = on_link
    rig.publish(b"old")

    def handle(frames: Frames) -> None:
        if rig.told[-1] == b"old":
            rig.restart(b"new")

    rig.run(handle, until=b"new")
    assert rig.told == [b"old", *errors, b"new"]


@pytest.mark.parametrize(
    ("frames", "count"),
    [
        ([b"watcher.a", b"watcher.b", b"watcher.c"], 2),
        ([b"watcher.a", b"watcher.b", b"watcher.c", b"watcher.d"], 2),
        ([b"watcher.a", b"x", b"watcher.c"], 1),
    ],
)
def test_frames_that_belong_to_one_message_are_not_counted_one_by_one(
    frames: list[bytes], count: int, rig: Rig
) -> None:
    rig.publisher.send_multipart(frames)
    rig.publish(b"end")
    rig.run(lambda frames: None, until=b"end")
    assert rig.counters.garbage == count
    assert rig.told == [b"end"]


def test_a_connection_that_came_while_a_callback_blocked_is_told_before_its_events(
    rig: Rig,
) -> None:
    def block() -> None:
        assert rig.socket.recv_multipart() == [b"watcher.old", b"{}"]  # of which the poll told
        rig.restart(b"new")

    rig.publish(b"old")
    assert rig.socket.poll(int(PATIENCE * 1000))
    rig.loop.call_soon(block)
    rig.run(lambda frames: None, until=b"new")
    assert rig.told == [False, True, b"new"]


def test_a_connection_that_comes_after_the_look_at_it_is_told_before_its_events(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = rig.connection.look

    def look_too_early() -> bool:
        up = look()
        monkeypatch.setattr(rig.connection, "look", look)
        rig.restart(b"new")
        return up

    async def lose() -> None:
        rig.publisher.close()
        while look():
            await asyncio.sleep(0)
        monkeypatch.setattr(rig.connection, "look", look_too_early)

    rig.publish(b"old")
    rig.run(lambda frames: lose() if rig.told[-1] == b"old" else None, until=b"new")
    # A try may still have met the old publisher.
    assert rig.told[:2] == [b"old", False]
    assert rig.told[rig.told.index(b"new") - 1] is True


def test_one_that_is_halted_waits_for_no_turn(rig: Rig) -> None:
    rig.receiver.halt()
    assert turn.take(rig.receiver._place) is False
    assert turn._holder is None


def test_what_nobody_will_await_any_more_is_closed(rig: Rig) -> None:
    """Else Python would complain of it, when and where it is collected."""

    async def follow() -> None:
        rig.told.append("followed")

    first, second = follow(), follow()
    rig.receiver.await_in_order(first, "handle_connect")
    rig.receiver.await_in_order(second, "handle_connect")
    task = rig.receiver.stop()
    assert task is not None
    rig.loop.run_until_complete(asyncio.wait([task]))
    rig.receiver.close()
    states = [inspect.getcoroutinestate(one) for one in (first, second)]
    assert states == [inspect.CORO_CLOSED] * 2
    assert rig.told == []


def test_a_handler_that_comes_after_a_halt_gets_no_event(rig: Rig) -> None:
    """As when another thread stops a plugin while its handler is being replaced."""
    handled: list[Frames] = []
    limit = rig.loop.call_later(PATIENCE, rig.loop.stop)
    rig.receiver.start(handled.append)
    rig.receiver.halt()
    rig.receiver._set_handler(handled.append)
    rig.publish(b"late")
    assert rig.socket.poll(int(PATIENCE * 1000))
    rig.loop.call_soon(rig.loop.stop)
    rig.loop.run_forever()
    limit.cancel()
    assert handled == []


def test_what_was_to_be_awaited_is_awaited_although_the_task_for_it_was_cancelled(rig: Rig) -> None:
    async def follow() -> None:
        rig.told.append("followed")
        rig.loop.stop()

    limit = rig.loop.call_later(PATIENCE, rig.loop.stop)
    rig.receiver.await_in_order(follow(), "handle_connect")
    rig.receiver.cancel_in_hand()  # before it has begun
    rig.loop.run_forever()
    limit.cancel()
    assert rig.told == ["followed"]


def test_an_event_that_is_received_as_the_plugin_is_halted_does_not_count(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = rig.receiver._receive

    def receive_and_halt(count: int) -> bool:
        all_came = receive(count)
        rig.receiver.halt()
        rig.loop.stop()
        return all_came

    monkeypatch.setattr(rig.receiver, "_receive", receive_and_halt)
    rig.publish(b"late")
    rig.run(lambda frames: None, until=b"late")
    assert rig.told == []
    assert rig.counters.received == 0
