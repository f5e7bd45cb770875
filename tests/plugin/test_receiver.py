# The receiver by itself, on real sockets and on the test's own thread: the order of events and
# of what follows a change of the connection.

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import zmq
from patience import PATIENCE

from circusplug._loop.plugin_loop import PluginLoop
from circusplug._plugin import receiver as receiver_module
from circusplug._plugin.event_connection import Connection
from circusplug._plugin.receiver import Frames, Receiver
from circusplug._plugin.status import Counters
from circusplug._plugin.turns import turn


class Rig:
    """A receiver, the publisher that it is connected to, and what it told, in order."""

    def __init__(
        self, context: zmq.Context[Any], loop: PluginLoop, address: str = "tcp://127.0.0.1:*"
    ) -> None:
        self.told: list[Any] = []
        self.counters = Counters()
        self.loop = loop
        self.connection = Connection()
        self.on_link: Callable[[bool], Any] = self.told.append
        self.receiver = Receiver(
            loop,
            self.connection,
            self.counters,
            lambda error, what: self.told.append(error),
            lambda topic: None,
            self._link_changed,
        )
        self._context = context
        self.publisher = self._new_publisher()
        self.publisher.bind(address)
        self._endpoint = self.publisher.last_endpoint.decode()
        self.connection.open(context, self._endpoint, [b"watcher."])
        assert self.connection.wait(PATIENCE)
        self._wait_subscribed()

    def _link_changed(self, up: bool) -> Any:
        return self.on_link(up)

    def _new_publisher(self) -> zmq.Socket[bytes]:
        publisher: zmq.Socket[bytes] = self._context.socket(zmq.XPUB)
        publisher.linger = 0
        return publisher

    @property
    def socket(self) -> zmq.Socket[bytes]:
        socket = self.connection.socket
        assert socket is not None
        return socket

    def publish(self, *names: bytes, payload: bytes = b"{}") -> None:
        for name in names:
            self.publisher.send_multipart([b"watcher." + name, payload])

    def restart(self, *names: bytes) -> None:
        """Restart the publisher, wait for the subscription, publish, and wait until it is there.

        The receiver sees nothing of it but what libzmq tells later.
        """
        self.publisher.close()
        self.publisher = self._new_publisher()
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.publisher.bind(self._endpoint)
                break
            except zmq.ZMQError:  # libzmq closes on a thread of its own
                assert time.monotonic() < deadline
        self._wait_subscribed()
        self.publish(*names)
        assert self.socket.poll(int(PATIENCE * 1000))

    def _wait_subscribed(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self.publisher.poll(1):
            assert time.monotonic() < deadline
            self.socket.poll(0)  # a SUB socket subscribes again while it is looked at
        self.publisher.recv()

    def run(self, handler: Callable[[Frames], Any], until: bytes) -> None:
        """Note the topic of each event and hand it on, until that one has come."""

        def handle(frames: Frames) -> Any:
            name = frames[0][8:]
            self.told.append(name)
            if name == until:
                self.loop.call_soon(self.loop.stop)
            return handler(frames)

        limit = self.loop.call_later(PATIENCE, self.loop.stop)
        self.receiver.start(handle)
        self.loop.run_forever()
        assert self.loop.time() < limit.when(), self.told
        limit.cancel()

    def close(self) -> None:
        task = self.receiver.stop()
        if task is not None:
            self.loop.run_until_complete(asyncio.wait([task]))
        self.receiver.close()
        self.connection.close()
        self.publisher.close()


FLOOD = [b"%d" % number for number in range(30)]


@pytest.fixture
def loop() -> Iterator[PluginLoop]:
    loop = PluginLoop()
    asyncio.set_event_loop(loop)
    yield loop
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture
def rig(loop: PluginLoop) -> Iterator[Rig]:
    with zmq.Context() as context:
        rig = Rig(context, loop)
        yield rig
        rig.close()


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


@pytest.fixture
def flooded(loop: PluginLoop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """Its events are all at hand, and a flood however slow the machine is."""
    monkeypatch.setattr(receiver_module, "_FLOOD_SECONDS", PATIENCE)
    monkeypatch.setattr(receiver_module, "_BATCH_SECONDS", PATIENCE)
    with zmq.Context() as context:
        rig = Rig(context, loop, "inproc://flood")
        rig.publish(*FLOOD)
        yield rig
        rig.close()


def test_what_was_received_with_an_event_that_is_awaited_follows_it(flooded: Rig) -> None:
    """Even if nothing more comes, and the connection is lost meanwhile."""

    async def follow() -> None:
        flooded.told.append("followed")
        flooded.connection.up = False

    def handle(frames: Frames) -> Any:
        return follow() if frames[0] == b"watcher.15" else None

    flooded.run(handle, until=FLOOD[-1])
    told = [one for one in flooded.told if one not in (True, False)]
    assert told == [*FLOOD[:16], "followed", *FLOOD[16:]]
    assert flooded.counters.received == flooded.counters.handled == len(FLOOD)


def test_no_event_follows_a_halt_within_a_flood(flooded: Rig) -> None:
    def handle(frames: Frames) -> None:
        if frames[0] == b"watcher.15":
            flooded.receiver.halt()

    flooded.run(handle, until=FLOOD[15])
    assert flooded.told == FLOOD[:16]
    assert flooded.counters.received == flooded.counters.handled == 16


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


def test_what_was_received_with_the_last_event_does_not_count(flooded: Rig) -> None:
    def handle(frames: Frames) -> None:
        if frames[0] == b"watcher.15":
            raise SystemExit

    with pytest.raises(SystemExit):
        flooded.run(handle, until=FLOOD[-1])
    flooded.receiver.close()
    assert (flooded.counters.received, flooded.counters.handled) == (16, 15)


def test_events_of_a_flood_are_observed_from_the_next_one_on(flooded: Rig) -> None:
    observed: list[bytes] = []

    def handle(frames: Frames) -> None:
        if frames[0] == b"watcher.15":
            flooded.receiver.observe(observed.append)

    flooded.run(handle, until=FLOOD[-1])
    assert observed == [b"watcher." + name for name in FLOOD[16:]]


def test_each_event_of_a_flood_is_counted_and_its_exception_told(flooded: Rig) -> None:
    error = ValueError()

    def handle(frames: Frames) -> None:
        if frames[0] in (b"watcher.3", b"watcher.15"):
            raise error

    flooded.run(handle, until=FLOOD[-1])
    assert flooded.told == [*FLOOD[:4], error, *FLOOD[4:16], error, *FLOOD[16:]]
    assert (flooded.counters.received, flooded.counters.handled) == (30, 28)


@pytest.mark.parametrize(
    ("seconds", "count"),
    [
        pytest.param(0.0, 128, id="nothing"),
        pytest.param(0.000001, 128, id="1 us"),
        pytest.param(0.000012, 42, id="12 us"),
        pytest.param(0.00008, 7, id="80 us"),
    ],
)
def test_as_many_of_a_flood_are_received_at_once_as_its_pace_allows(
    seconds: float, count: int, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, counts, receive = time.monotonic(), [], rig.receiver._receive

    def receive_and_note(count: int) -> bool:
        counts.append(count)
        return receive(count)

    def handle(frames: Frames) -> None:
        nonlocal clock
        clock += seconds

    monkeypatch.setattr(receiver_module, "time", SimpleNamespace(monotonic=lambda: clock))
    monkeypatch.setattr(rig.receiver, "_receive", receive_and_note)
    names = [b"%d" % number for number in range(1000)]
    rig.publish(*names)
    rig.socket.poll()
    rig.run(handle, until=names[-1])
    assert rig.told == names
    assert set(counts) == {1, count}


@pytest.mark.parametrize(
    ("odd", "garbage"),
    [
        pytest.param([b"watcher.alone"], 1, id="one frame"),
        pytest.param([b"watcher.web.start", b""], 1, id="no payload"),
        pytest.param([b"watcher.web.start", b"not json"], 1, id="no JSON"),
        pytest.param([b"watcher.event", b"{}", b"more"], 1, id="three frames"),
        pytest.param([b"watcher.event", b"{}", b"{}"], 1, id="three frames, two payloads"),
        pytest.param([b"watcher.event", b"{}", b"{}", b"{}"], 1, id="four frames, three payloads"),
        pytest.param([b"watcher.event", b" {}"], 0, id="a blank before the JSON"),
    ],
)
@pytest.mark.parametrize("at", [0, 7, 8, 20, 30])
def test_whatever_is_in_a_flood_its_events_are_handled_and_the_rest_is_counted(
    odd: list[bytes], garbage: int, at: int, loop: PluginLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver_module, "_FLOOD_SECONDS", PATIENCE)
    with zmq.Context() as context:
        rig = Rig(context, loop, "inproc://odd")
        rig.publish(*FLOOD[:at])
        rig.publisher.send_multipart(odd)
        rig.publish(*FLOOD[at:], b"end")
        rig.run(lambda frames: None, until=b"end")
        rig.close()
    event = [b"event"] if odd[0] == b"watcher.event" else []
    assert rig.told == [*FLOOD[:at], *event, *FLOOD[at:], b"end"]
    assert rig.counters.garbage == garbage
    assert rig.counters.received == rig.counters.handled == len(rig.told)
