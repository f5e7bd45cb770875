# The loop by itself: one poll for ZMQ sockets, descriptors, timers and coroutines, under the
# names of asyncio and of Tornado's IOLoop.

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
import os
import selectors
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import zmq
from patience import PATIENCE

from circusplug._loop.plugin_loop import PluginLoop
from circusplug._loop.selector import PollerSelector


@pytest.fixture
def selector() -> Iterator[PollerSelector]:
    selector = PollerSelector()
    yield selector
    selector.close()


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    with zmq.Context() as context:
        yield context


@pytest.fixture
def pair(context: zmq.Context[Any]) -> Iterator[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]]:
    """Two connected ZMQ sockets."""
    with context.socket(zmq.PAIR) as one, context.socket(zmq.PAIR) as other:
        one.linger = other.linger = 0
        one.bind("inproc://pair")
        other.connect("inproc://pair")
        yield one, other


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


def run(loop: PluginLoop) -> None:
    """Run until something stops the loop, but not for ever."""
    limit = loop.call_later(PATIENCE, loop.stop)
    loop.start()
    assert loop.time() < limit.when(), "nothing has stopped the loop"
    limit.cancel()


# The selector.


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


# An idle loop.


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


# ZMQ sockets on the loop.


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


# Tornado's names.


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


def test_a_callback_for_a_closed_loop_is_dropped() -> None:
    loop = PluginLoop()
    loop.close()
    loop.add_callback(pytest.fail, "called")
    loop.add_callback_from_signal(pytest.fail, "called")


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


def test_callbacks_come_from_any_thread_in_order(loop: PluginLoop) -> None:
    seen: list[Any] = []

    def add() -> None:
        for number in range(100):
            loop.add_callback(seen.append, number)
        loop.add_callback_from_signal(seen.append, "signal")
        loop.spawn_callback(lambda *, word: seen.append(word), word="word")
        loop.add_callback(loop.stop)

    thread = threading.Thread(target=add)
    thread.start()
    run(loop)
    thread.join(PATIENCE)
    assert seen == [*range(100), "signal", "word"]


def test_a_callback_may_be_a_coroutine_function_and_its_failure_is_reported(
    loop: PluginLoop,
) -> None:
    reported: list[Any] = []

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    def report(_: object, context: dict[str, Any]) -> None:
        reported.append(context["exception"])
        loop.stop()

    loop.set_exception_handler(report)
    loop.add_callback(fail)
    run(loop)
    assert [type(error) for error in reported] == [ZeroDivisionError]


def test_a_coroutine_that_nobody_else_keeps_is_finished(loop: PluginLoop) -> None:
    awaited: list[weakref.ref[asyncio.Future[None]]] = []

    async def wait() -> None:
        future = loop.create_future()
        awaited.append(weakref.ref(future))
        loop.stop()
        await future
        loop.stop()

    loop.add_callback(wait)
    run(loop)
    gc.collect()
    future = awaited[0]()
    assert future is not None
    future.set_result(None)
    run(loop)


def test_a_cancelled_coroutine_is_no_failure(loop: PluginLoop) -> None:
    reported: list[Any] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))

    async def cancel() -> None:
        loop.add_callback(loop.stop)
        raise asyncio.CancelledError

    loop.add_callback(cancel)
    run(loop)
    assert reported == []


def test_a_later_call_may_have_arguments_of_any_kind(loop: PluginLoop) -> None:
    seen: list[Any] = []
    loop.call_later(0, lambda *args, **named: seen.append((args, named)), 1, word="word")
    loop.call_later(0.001, loop.stop)
    run(loop)
    assert seen == [((1,), {"word": "word"})]


@pytest.mark.parametrize(
    "deadline",
    [
        lambda loop: datetime.timedelta(milliseconds=1),
        lambda loop: time.time() + 0.001,
        lambda loop: loop.time() + 0.001,
        lambda loop: datetime.timedelta(seconds=-1),
        lambda loop: time.time() - 1,
    ],
    ids=["timedelta", "time.time()", "loop.time()", "past timedelta", "past time.time()"],
)
def test_a_timeout_may_be_given_in_every_way(
    deadline: Callable[[PluginLoop], Any], loop: PluginLoop
) -> None:
    seen: list[Any] = []

    def note(*arguments: Any, **named: Any) -> None:
        seen.append((arguments, named))
        loop.stop()

    loop.add_timeout(deadline(loop), note, 1, word="word")
    run(loop)
    assert seen == [((1,), {"word": "word"})]


@pytest.mark.parametrize("clock", [time.time, None], ids=["time.time()", "loop.time()"])
def test_a_timeout_far_away_is_far_away(
    clock: Callable[[], float] | None, loop: PluginLoop
) -> None:
    timer = loop.add_timeout((clock or loop.time)() + 3600, loop.stop)
    assert timer.when() == pytest.approx(loop.time() + 3600, abs=60)
    timer.cancel()


def test_a_removed_timeout_does_not_come(loop: PluginLoop) -> None:
    seen: list[str] = []
    timeouts = [
        loop.add_timeout(datetime.timedelta(0), seen.append, "add_timeout"),
        loop.call_later(0, seen.append, "call_later"),
        loop.call_at(loop.time(), seen.append, "call_at"),
    ]
    for timeout in timeouts:
        loop.remove_timeout(timeout)
        loop.remove_timeout(timeout)
    done = loop.add_timeout(datetime.timedelta(milliseconds=1), loop.stop)
    run(loop)
    loop.remove_timeout(done)
    assert seen == []


def test_run_sync_runs_functions_and_coroutines_to_their_end(loop: PluginLoop) -> None:
    async def later() -> str:
        await asyncio.sleep(0)
        return "later"

    async def never() -> None:
        await asyncio.get_running_loop().create_future()

    def fail() -> None:
        raise ZeroDivisionError

    assert loop.run_sync(lambda: "now") == "now"
    assert loop.run_sync(later) == "later"
    with pytest.raises(ZeroDivisionError):
        loop.run_sync(fail)
    with pytest.raises(asyncio.TimeoutError):
        loop.run_sync(never, timeout=0.001)
    # As in handle_init, where the loop is the running one in name.
    assert loop.call_directly(loop.run_sync, later) == "later"


def test_run_sync_leaves_the_running_loop_as_it_was(loop: PluginLoop) -> None:
    async def later() -> None:
        await asyncio.sleep(0)

    def as_handle_init() -> asyncio.AbstractEventLoop:
        loop.run_sync(later)
        return asyncio.get_running_loop()

    assert loop.call_directly(as_handle_init) is loop


def test_add_future_calls_back_with_the_future(loop: PluginLoop) -> None:
    future = loop.create_future()
    seen: list[Any] = []
    loop.add_future(future, seen.append)
    loop.add_future(future, lambda _: loop.stop())
    future.set_result("done")
    run(loop)
    assert seen == [future]


def test_an_exception_being_handled_can_be_reported(loop: PluginLoop) -> None:
    reported: list[Any] = []
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        loop.handle_callback_exception(print)
    assert [type(error) for error in reported] == [ZeroDivisionError]


def test_start_and_stop_may_alternate_and_close_may_be_repeated(loop: PluginLoop) -> None:
    for _ in range(3):
        loop.add_callback(loop.stop)
        loop.start()
    loop.stop()  # before a start: it runs what is there, once, and stops
    loop.start()
    loop.close()
    loop.close()
    assert loop.is_closed()
    loop.stop_threadsafe()
    assert loop.post(print) is False
    loop.remove_handler(0)


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


def test_closing_a_running_loop_stops_it(loop: PluginLoop) -> None:
    loop.add_callback(loop.close)
    run(loop)
    assert not loop.is_closed()


def test_a_loop_becomes_and_ceases_to_be_the_current_one(loop: PluginLoop) -> None:
    loop.clear_current()
    loop.make_current()
    assert asyncio.get_event_loop_policy().get_event_loop() is loop


# asyncio and Tornado on top.


def test_asyncio_streams_work(loop: PluginLoop) -> None:
    payload = bytes(1000) * 1000  # more than fits into the kernel's buffers

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(len(payload)))
        await writer.drain()
        writer.close()

    async def talk() -> bytes:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(payload)
            received = await reader.read()
            writer.close()
            await writer.wait_closed()
            return received

    assert loop.run_until_complete(asyncio.wait_for(talk(), PATIENCE)) == payload


def test_work_on_another_thread_is_awaited(loop: PluginLoop) -> None:
    async def work() -> str:
        return await loop.run_in_executor(None, lambda: threading.current_thread().name)

    assert loop.run_until_complete(work()) != threading.current_thread().name
    loop.run_until_complete(loop.shutdown_default_executor())


def test_tornado_finds_the_loop_and_forgets_it_when_it_closes(loop: PluginLoop) -> None:
    ioloop = pytest.importorskip("tornado.ioloop")
    seen: list[Any] = []

    def note() -> None:
        seen.append(asyncio.get_running_loop())
        periodic.stop()
        loop.stop()

    periodic = ioloop.PeriodicCallback(note, 1)
    loop.call_directly(periodic.start)  # as in handle_init
    run(loop)
    assert seen == [loop]
    known = ioloop.IOLoop._ioloop_for_asyncio
    assert loop in known
    loop.close()
    assert loop not in known


def test_call_directly_makes_the_loop_the_running_one_for_a_call(loop: PluginLoop) -> None:
    assert loop.call_directly(asyncio.get_running_loop) is loop
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop.call_directly(fail)
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
