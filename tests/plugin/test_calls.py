# One call by itself: its limits, its way from another thread, and the socket that it goes through,
# with sockets and clocks of the test's own.

from __future__ import annotations

import logging
import math
import queue
import threading
from typing import Any, cast

import pytest
import zmq

from circusplug import CallTimeout, PluginStateError
from circusplug._loop.plugin_loop import PluginLoop
from circusplug._plugin import calls_from_threads
from circusplug._plugin.calls import Call
from circusplug._plugin.calls_from_threads import Handover
from circusplug._plugin.channel import Channel
from circusplug._plugin.open_calls import OpenCalls
from circusplug._plugin.status import Counters

# Limits.


@pytest.mark.parametrize("patience", [1e12, math.inf])
def test_patience_may_be_as_long_as_one_likes(patience: float) -> None:
    call = Call("list", {}, 1.0, patience)
    # What a thread can wait for.
    assert calls_from_threads._longest(call) < threading.TIMEOUT_MAX
    assert call.patient_until > call.now + 86400


def test_a_call_that_is_over_has_nothing_left_of_its_time() -> None:
    clock = [100.0]
    call = Call("list", {}, 1.0, clock=lambda: clock[0])
    clock[0] = 100.25
    assert call.remaining == 0.75
    clock[0] = 110.0
    assert call.remaining == 0.0
    assert calls_from_threads._longest(call) == calls_from_threads.SLACK


def test_with_patience_a_call_may_last_for_both_of_its_limits() -> None:
    call = Call("list", {}, 2.0, 30.0, clock=lambda: 100.0)
    assert (call.deadline, call.patient_until, call.last_moment) == (102.0, 130.0, 132.0)


# From another thread.


def handover() -> Handover:
    """One whose plugin's thread is the test's, when it likes."""
    return Handover(lambda _: None, lambda _: None)


def test_one_that_has_been_closed_is_not_opened_again() -> None:
    ours = handover()
    ours.close("it is stuck")
    ours.open()
    with pytest.raises(PluginStateError, match="cannot send 'list': it is stuck"):
        ours.submit(Call("list", {}))


def test_why_calls_are_refused_is_kept_when_it_closes() -> None:
    ours = handover()
    ours.open()
    ours.close("it is stuck")
    ours.close()
    with pytest.raises(PluginStateError, match="cannot send 'list': it is stuck"):
        ours.submit(Call("list", {}))


def test_nothing_comes_into_the_queue_after_it_has_closed() -> None:
    class Watched(queue.SimpleQueue[Any]):
        def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
            locked.append(ours._lock.locked())

    locked: list[bool] = []
    ours = handover()
    ours._queue = Watched()
    ours.open()
    ours.submit(Call("list", {}))
    assert locked == [True]


def test_a_call_that_was_begun_and_is_not_ended_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls_from_threads, "SLACK", 0.0)
    ours, call = handover(), Call("list", {}, 0.0)
    ours.open()
    done = ours.submit(call)
    ours.serve_one()
    with pytest.raises(CallTimeout, match="the plugin's thread is busy, no reply within 0 s"):
        ours.wait(call, done)


def test_all_calls_that_wait_are_served_at_once() -> None:
    begun: list[str] = []
    ours = Handover(lambda _: None, lambda call: begun.append(call.command))
    ours.open()
    for command in ("list", "status", "stats"):
        ours.submit(Call(command, {}))
    ours.serve_all()
    assert begun == ["list", "status", "stats"]


# The socket.


class Socket:
    """A DEALER that is not connected, or that has a reply."""

    def __init__(self, reply: bytes = b"") -> None:
        self.limits: dict[int, int] = {}
        self.reply = reply

    def setsockopt(self, option: int, value: int) -> None:
        self.limits[option] = value

    def getsockopt(self, _: int) -> int:
        return 0

    def send(self, frame: bytes, flags: int = 0) -> None:
        if flags:
            raise zmq.Again

    def recv(self, flags: int) -> bytes:
        return self.reply


def channel(socket: Socket, counters: Counters, limit: int, now: float = 100.0) -> Channel:
    return Channel(cast(Any, socket), counters, limit, lambda: now)


def test_each_wait_has_its_own_limit_and_none_is_without_end() -> None:
    socket = Socket(b"{}")
    ours = channel(socket, Counters(), 100)
    for until, milliseconds in ((101.0, 1000), (100.5, 500), (99.0, 0), (102.0, 2000)):
        ours.send(b"", until)
        assert socket.limits[zmq.SNDTIMEO] == milliseconds
    for until, milliseconds in ((101.0, 1000), (100.5, 500), (100.0, 0)):
        ours.receive(until)
        assert socket.limits[zmq.RCVTIMEO] == milliseconds
    with pytest.raises(zmq.Again):
        ours.receive(99.0)


@pytest.mark.parametrize(
    ("frame", "reply", "too_large"),
    [
        (b'{"id": 7}'.ljust(50), {"id": 7}, 0),
        (
            b'{"id": 7}'.ljust(51),
            {
                "id": 7,
                "status": "error",
                "reason": "its reply of 51 bytes is larger than host.max_message (50 bytes)",
            },
            1,
        ),
        (b"no reply".ljust(51), None, 1),
    ],
)
def test_a_reply_may_be_as_large_as_the_limit_says(
    frame: bytes, reply: dict[str, Any] | None, too_large: int
) -> None:
    counters = Counters()
    assert channel(Socket(frame), counters, 50).receive_now() == reply
    assert counters.too_large == too_large


# Several calls.


def test_what_waits_to_be_sent_goes_by_the_fresh_socket(loop: PluginLoop) -> None:
    """As when circusd was away, a call has timed out, and another one waits for its return."""
    with (
        zmq.Context() as context,
        context.socket(zmq.ROUTER) as old,
        context.socket(zmq.ROUTER) as new,
    ):
        old.bind("inproc://old")
        new.bind("inproc://new")
        ends = iter(["inproc://old", "inproc://new"])

        def connected() -> zmq.Socket[bytes]:
            dealer: zmq.Socket[bytes] = context.socket(zmq.DEALER)
            dealer.connect(next(ends))
            return dealer

        calls = OpenCalls(loop, connected, Counters(), logging.getLogger())
        calls.open()
        assert calls.channel is not None
        waits = Call("list", {}, 100.0)
        calls.prepare(waits)
        calls._unsent[waits.id] = waits
        calls.retire(calls.channel)
        assert waits.frame in new.recv_multipart(zmq.NOBLOCK)
        calls.close()
