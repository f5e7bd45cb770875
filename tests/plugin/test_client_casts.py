# The client on a loop of its own, against a FakeCircusd or a bare ROUTER socket. A `Bench` is
# the least that a client needs around it: a thread, its loop and the sockets it makes.

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import zmq
from patience import PATIENCE, wait_while

from circusplug import CallConflict, CallError, CallTimeout, CircusPlugError, PluginStateError
from circusplug._loop.plugin_loop import PluginLoop
from circusplug._plugin.calls import Call, raise_for_status
from circusplug._plugin.client import Client
from circusplug._status import Counters
from circusplug._wire.commands import CALL_TIMEOUT
from circusplug._wire.endpoints import configure_link
from circusplug.testing import FakeCircusd
from circusplug.testing._server import _PORTS, part_of

LOGGER = logging.getLogger("circusplug.plugin.bench")

#: circusd's answer while another command excludes this one.
CONFLICT: dict[str, Any] = {
    "status": "error",
    "reason": "arbiter is already running incr command",
    "errno": 5,
}

#: A deadline that shall pass.
SOON = 0.05


def deadlines() -> Iterator[float]:
    """Deadlines for what shall happen before they pass: each is longer than the one before.

    The first few may be too short on a busy machine. Who has one that was not breaks off.
    """
    timeout = SOON
    while timeout < PATIENCE:
        yield timeout
        timeout *= 2
    pytest.fail("no deadline was long enough")


def ask_in_vain(ask: Callable[[float], Any]) -> CallTimeout:
    """Send one command that has no reply; returns what is raised at its deadline."""
    for timeout in deadlines():
        with pytest.raises(CallTimeout) as caught:
            ask(timeout)
        if "command not sent" not in str(caught.value):  # the owner was busy until then
            assert caught.value.timeout == timeout
            break
    return caught.value


class AdvancedLoop(PluginLoop):
    """A loop whose clock a test may put forward, and that of all others with it."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + AdvancedLoop.ahead


@pytest.fixture(autouse=True)
def the_owner_may_be_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the owner say itself that a deadline has passed, however late it gets to it."""
    monkeypatch.setattr("circusplug._plugin.calls_from_threads.SLACK", PATIENCE)


@pytest.fixture(autouse=True)
def clock_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a parked client tell the time by the same clock, and put that back in the end."""
    monkeypatch.setattr(AdvancedLoop, "ahead", 0.0)
    monkeypatch.setattr("circusplug._plugin.client.PluginLoop", AdvancedLoop)


class Bench:
    """A client on a thread of its own, whose loop runs until the bench is closed."""

    def __init__(self, endpoint: str, door: str = "") -> None:
        self.endpoint = endpoint
        self.sockets: list[zmq.Socket[bytes]] = []
        self.no_more_sockets = False
        self.counters = Counters()
        self.loop = AdvancedLoop()
        self.client = Client(
            self.loop,
            lambda: self._make_socket(endpoint),
            self.counters,
            LOGGER,
            make_door_socket=(lambda: self._make_socket(door)) if door else None,
        )
        self._context: zmq.Context[Any] = zmq.Context()
        self._opened = threading.Event()
        self.parked = threading.Event()
        self.thread = threading.Thread(target=self._run, name="owner")
        self.thread.start()
        assert self._opened.wait(PATIENCE)

    def _make_socket(self, endpoint: str) -> zmq.Socket[bytes]:
        # As a plugin's worker does.
        if self.no_more_sockets:
            raise zmq.ZMQError(errno.EMFILE)
        dealer: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        configure_link(dealer, endpoint)
        dealer.setsockopt(zmq.IMMEDIATE, 1)
        dealer.connect(endpoint)
        self.sockets.append(dealer)
        return dealer

    @property
    def sent(self) -> int:
        return self.counters.calls

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.client.open()
        self._opened.set()
        self.loop.run_forever()
        self.parked.set()
        self.client.serve_parked()
        self.client.close()
        self.loop.close()
        asyncio.set_event_loop(None)

    def pass_by(self, seconds: float) -> None:
        """Put the clock forward; what is due then is done at once."""
        AdvancedLoop.ahead += seconds
        self.client._post(lambda: None)  # it wakes up, and looks

    def park(self) -> None:
        """Stop the loop; what is handed over is served all the same."""
        self.loop.stop_threadsafe()
        assert self.parked.wait(PATIENCE)

    def close(self) -> None:
        self.park()
        self.client.end_parked()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        assert all(each.closed for each in self.sockets)
        self._context.term()

    def call(
        self,
        command: str,
        timeout: float | None = PATIENCE,
        patience: float | None = None,
        **properties: Any,
    ) -> Any:
        return self.client.call(command, properties, timeout, patience)

    def on_owner(self, function: Callable[[], Any]) -> Any:
        """Call on the client's own thread, as a handler would."""
        outcome: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                outcome.put((function(), None))
            except BaseException as error:
                outcome.put((None, error))

        self.loop.add_callback(run)
        result, error = outcome.get(timeout=PATIENCE)
        if error is not None:
            raise error
        return result

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the client's loop to its end."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE)

    def open_sockets(self) -> int:
        return sum(not each.closed for each in self.sockets)


@pytest.fixture
def bench(fake_circusd: FakeCircusd) -> Iterator[Bench]:
    """A client that is connected, and whose calls the fake circusd has forgotten."""
    bench = Bench(fake_circusd.endpoint)
    bench.call("list")
    fake_circusd.clear()
    bench.counters.calls = 0
    yield bench
    bench.close()


#: The four ways to call: handed over by another thread, on the own one, awaited on the loop.
Way = Callable[..., Any]


@pytest.fixture(params=["other thread", "own thread", "awaited", "parked"])
def way(request: pytest.FixtureRequest, bench: Bench) -> Way:
    def call(
        command: str,
        timeout: float | None = PATIENCE,
        patience: float | None = None,
        **properties: Any,
    ) -> Any:
        if request.param == "own thread":
            return bench.on_owner(lambda: bench.call(command, timeout, patience, **properties))
        if request.param == "awaited":
            return bench.run(bench.client.call_async(command, properties, timeout, patience))
        return bench.call(command, timeout, patience, **properties)

    if request.param == "parked":
        bench.park()
    return call


class Router:
    """A ROUTER of the test's own, to see routing ids and to answer frame by frame."""

    def __init__(self) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self._router: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        self._router.linger = 0
        # Out of this process's part: a fake circusd of another one may be down, and come back.
        ports = part_of(_PORTS)
        port = self._router.bind_to_random_port("tcp://127.0.0.1", ports.start, ports.stop)
        self.endpoint = f"tcp://127.0.0.1:{port}"

    def take(self) -> tuple[bytes, dict[str, Any]]:
        """The next request, with the routing id of who sent it."""
        assert self._router.poll(int(PATIENCE * 1000))
        routing_id, frame = self._router.recv_multipart()
        return routing_id, json.loads(frame)

    def send(self, routing_id: bytes, *frames: bytes) -> None:
        self._router.send_multipart([routing_id, *frames])

    def answer(self, routing_id: bytes, request: dict[str, Any], /, **reply: Any) -> None:
        self.send(routing_id, json.dumps({"id": request["id"], "status": "ok", **reply}).encode())

    @property
    def empty(self) -> bool:
        return not self._router.poll(0)

    def close(self) -> None:
        self._router.close()
        self._context.term()


@pytest.fixture
def router() -> Iterator[Router]:
    router = Router()
    yield router
    router.close()


@pytest.fixture
def routed(router: Router) -> Iterator[Bench]:
    """A client that is connected."""
    bench = Bench(router.endpoint)
    asking = Asking(lambda: bench.call("list"))
    router.answer(*router.take())
    asking.result()
    yield bench
    bench.close()


class Asking(threading.Thread):
    """A call under way on another thread."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(name="asking")
        self._call = call
        self._result: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        self.join(PATIENCE)
        assert not self.is_alive()
        if self._error is not None:
            raise self._error
        return self._result


# Replies.


def test_a_call_returns_the_reply_to_it(way: Way, fake_circusd: FakeCircusd) -> None:
    fake_circusd.add_watcher("web")
    assert way("list")["watchers"] == ["web"]
    assert way("numprocesses", name="web")["numprocesses"] == 1


def test_each_command_has_an_id_of_its_own(way: Way, fake_circusd: FakeCircusd) -> None:
    replies = [way("list") for _ in range(3)]
    ids = [command.id for command in fake_circusd.commands]
    assert len(set(ids)) == 3
    assert [reply["id"] for reply in replies] == ids


@pytest.mark.parametrize("instead", [False, True], ids=["then the reply", "instead"])
@pytest.mark.parametrize("what", ["wrong_id", "garbage"])
def test_what_is_not_the_reply_is_dropped(
    what: str, instead: bool, way: Way, fake_circusd: FakeCircusd
) -> None:
    getattr(fake_circusd, what)("list", instead=instead, count=None)
    if instead:
        with pytest.raises(CallTimeout):
            way("list", SOON)
        fake_circusd.clear_faults()
    assert way("list")["watchers"] == []


@pytest.mark.parametrize(
    "frames",
    [
        (b"",),
        (b"\xff",),
        (b"[]",),
        (b"7",),
        (b"[" * 100_000,),
        (b'{"id": "2"}',),
        (b'{"id": [2]}',),
        (b'{"id": null, "status": "error"}',),
        (b"{}",),
        (b'{"id": 2, "status": "ok"}', b"more"),
        (b"more", b'{"id": 2, "status": "ok"}'),
    ],
    ids=lambda frames: str([frame[:30] for frame in frames]),
)
@pytest.mark.parametrize("where", ["other thread", "own thread"])
def test_a_reply_that_is_no_reply_to_anybody_is_dropped(
    where: str, frames: tuple[bytes, ...], router: Router, routed: Bench
) -> None:
    def call() -> Any:
        if where == "own thread":
            return routed.on_owner(lambda: routed.call("list"))
        return routed.call("list")

    asking = Asking(call)
    routing_id, request = router.take()
    assert request["id"] == 2
    router.send(routing_id, *frames)
    router.answer(routing_id, request, watchers=["right"])
    assert asking.result()["watchers"] == ["right"]


def test_a_late_reply_is_not_taken_for_the_next_commands(
    way: Way, fake_circusd: FakeCircusd
) -> None:
    hold = fake_circusd.hold("list")
    with pytest.raises(CallTimeout):
        way("list", SOON)
    fake_circusd.reply("numwatchers", {"numwatchers": 42})
    hold.release()
    assert way("numwatchers")["numwatchers"] == 42


# Errors.


def test_an_error_reply_becomes_a_call_error_with_circusds_words(fake_circusd: FakeCircusd) -> None:
    reply = {"status": "error", "reason": "program absent not found", "errno": 3, "tb": None}
    with pytest.raises(CallError) as caught:
        raise_for_status("incr", {"name": "absent"}, reply)
    error = caught.value
    assert (error.command, error.properties, error.errno) == ("incr", {"name": "absent"}, 3)
    assert error.reason == "program absent not found"
    assert error.reply == reply
    assert not error.retryable
    assert not isinstance(error, CallConflict)


@pytest.mark.parametrize(
    ("reason", "conflict"),
    [
        ("arbiter is already running watcher_restart command", True),
        ("arbiter is restarting...", True),
        ("command 'incr': invalid literal for int()", False),
    ],
)
def test_a_conflict_is_told_from_a_failing_command(reason: str, conflict: bool) -> None:
    with pytest.raises(CallError) as caught:
        raise_for_status("incr", {}, {"status": "error", "reason": reason, "errno": 5})
    assert isinstance(caught.value, CallConflict) is conflict
    assert caught.value.retryable is conflict


def test_a_reply_that_is_no_error_is_returned_as_it_is() -> None:
    reply = {"status": "stopped", "time": 1}
    assert raise_for_status("status", {"name": "web"}, reply) is reply


def test_what_cannot_be_said_in_json_is_refused_and_nothing_is_sent(
    way: Way, bench: Bench, fake_circusd: FakeCircusd
) -> None:
    loop: dict[str, Any] = {}
    loop["self"] = loop
    for value in (object(), b"bytes", {1, 2}, loop):
        with pytest.raises(CallError, match="cannot be sent as JSON"):
            way("set", name="web", options=value)
    with pytest.raises(CallError, match="cannot be sent as JSON"):
        bench.client.cast("set", {"name": object()})
    assert way("list")["watchers"] == []
    assert [command.command for command in fake_circusd.commands] == ["list"]


# Deadlines.


def test_a_call_without_a_reply_fails_at_its_deadline(way: Way, fake_circusd: FakeCircusd) -> None:
    fake_circusd.silence("list")
    error = ask_in_vain(lambda timeout: way("list", timeout, name="web"))
    assert (error.command, error.retryable) == ("list", True)
    assert str(error) == f"list name='web': no reply within {error.timeout:g} s"
    assert isinstance(error, TimeoutError)
    assert isinstance(error, CircusPlugError)


def test_replies_to_others_do_not_move_a_deadline(
    way: Way, bench: Bench, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.garbage("list", count=None)
    for _ in range(3):
        with pytest.raises(CallTimeout):
            way("list", SOON)


@pytest.mark.parametrize("timeout", [0, -1.0])
def test_a_deadline_that_is_over_at_once_fails_the_call(
    timeout: float, way: Way, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.silence("list")
    with pytest.raises(CallTimeout):
        way("list", timeout)


@pytest.mark.parametrize("timeout", [float("inf"), 1e12])
def test_a_deadline_may_be_as_far_away_as_one_likes(
    timeout: float, way: Way, fake_circusd: FakeCircusd
) -> None:
    assert way("list", timeout)["watchers"] == []


def test_the_default_deadline_is_longer_for_a_command_that_waits_for_the_work(
    way: Way, fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug._plugin.calls.CALL_TIMEOUT", SOON)
    monkeypatch.setattr("circusplug._plugin.calls.WAITING_TIMEOUT", 2 * SOON)
    fake_circusd.silence()
    for properties, timeout in (({}, SOON), ({"waiting": False}, SOON), ({"waiting": True}, 0.1)):
        with pytest.raises(CallTimeout) as caught:
            way("incr", None, name="web", **properties)
        assert caught.value.timeout == timeout


@pytest.mark.parametrize("where", ["other thread", "own thread", "awaited", "parked"])
def test_after_a_timeout_the_next_call_comes_from_a_fresh_socket(
    where: str, router: Router, routed: Bench
) -> None:
    def ask(timeout: float = PATIENCE) -> Any:
        if where == "own thread":
            return routed.on_owner(lambda: routed.call("list", timeout))
        if where == "awaited":
            return routed.run(routed.client.call_async("list", {}, timeout))
        return routed.call("list", timeout)

    if where == "parked":
        routed.park()
    asking = Asking(ask)
    first, request = router.take()
    router.answer(first, request)
    asking.result()
    ask_in_vain(ask)
    assert router.take()[0] == first
    asking = Asking(ask)
    second, request = router.take()
    assert second != first
    router.answer(second, request)
    asking.result()
    assert routed.open_sockets() == 1


def test_a_retired_socket_serves_the_calls_that_are_open_on_it(
    router: Router, routed: Bench
) -> None:
    patient = asyncio.run_coroutine_threadsafe(
        routed.client.call_async("stats", {}, PATIENCE), routed.loop
    )
    first, request = router.take()
    hasty = Asking(lambda: routed.on_owner(lambda: routed.call("list", SOON)))
    assert router.take()[0] == first
    with pytest.raises(CallTimeout):
        hasty.result()
    assert routed.open_sockets() == 2
    asking = Asking(lambda: routed.call("numwatchers"))
    second, other = router.take()
    assert second != first
    router.answer(first, request, infos={"web": {}})
    assert patient.result(PATIENCE)["infos"] == {"web": {}}
    router.answer(second, other)
    asking.result()
    assert routed.open_sockets() == 1


def test_timeouts_in_a_row_leave_no_sockets_behind(bench: Bench, fake_circusd: FakeCircusd) -> None:
    fake_circusd.silence()

    async def ask_all() -> list[Any]:
        calls = [bench.client.call_async("list", {}, SOON) for _ in range(20)]
        return await asyncio.gather(*calls, return_exceptions=True)

    for _ in range(3):
        assert {type(outcome) for outcome in bench.run(ask_all())} == {CallTimeout}
        for _ in range(3):
            with pytest.raises(CallTimeout):
                bench.call("list", 0.002)
        # Only there: it tells of a timeout before it has put a fresh socket in the old one's place.
        assert bench.on_owner(bench.open_sockets) == 1


# circusd is down.


def until_unreachable(send: Callable[[float], Any]) -> None:
    """Send until the client says that there is no circusd to send to; so it is from then on.

    libzmq notices the end of a connection on a thread of its own and tells nobody; and the owner
    may not get to a command within a short deadline, so each one is longer than the one before.
    """
    for timeout in deadlines():
        with pytest.raises(CallTimeout, match=r"cannot be reached|no reply|not sent") as told:
            send(timeout)
        if f"circusd cannot be reached within {timeout:g} s" in str(told.value):
            break


@pytest.mark.circusd_leaves
def test_a_command_for_a_circusd_that_is_down_is_never_sent(
    way: Way, bench: Bench, fake_circusd: FakeCircusd
) -> None:
    way("list")
    fake_circusd.stop()
    until_unreachable(lambda timeout: way("quit", timeout))
    with pytest.raises(CallTimeout, match=r"cannot be reached|not sent"):
        way("quit", -1.0)  # which is not without end
    fake_circusd.start()
    assert way("numwatchers")["numwatchers"] == 0
    assert [command.command for command in fake_circusd.commands] == ["list", "numwatchers"]


@pytest.mark.circusd_leaves
def test_a_call_made_while_circusd_is_down_is_answered_when_it_comes_back_in_time(
    way: Way, bench: Bench, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.stop()
    until_unreachable(lambda timeout: way("list", timeout))
    asking = Asking(lambda: way("list"))
    fake_circusd.start()
    assert asking.result()["watchers"] == []
    assert len(fake_circusd.commands) == 1


@pytest.mark.circusd_leaves
def test_an_awaited_call_that_waits_for_circusd_does_not_hold_up_the_loop(
    bench: Bench, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.stop()
    until_unreachable(lambda timeout: bench.call("list", timeout))
    future = asyncio.run_coroutine_threadsafe(
        bench.client.call_async("list", {}, PATIENCE), bench.loop
    )
    assert bench.on_owner(lambda: "at once") == "at once"
    assert not future.done()
    fake_circusd.start()
    assert future.result(PATIENCE)["watchers"] == []


@pytest.mark.circusd_leaves
def test_a_call_that_gave_up_waiting_for_circusd_is_cancelled_for_good(
    bench: Bench, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.stop()
    until_unreachable(lambda timeout: bench.call("list", timeout))

    async def give_up() -> None:
        task = asyncio.ensure_future(bench.client.call_async("quit", {}, PATIENCE))
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    bench.run(give_up())
    fake_circusd.start()
    bench.call("list")
    assert [command.command for command in fake_circusd.commands] == ["list"]


@pytest.mark.circusd_leaves
def test_a_command_whose_deadline_passed_while_the_owner_was_busy_is_not_sent_when_it_goes_on(
    bench: Bench, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.stop()
    until_unreachable(lambda timeout: bench.call("list", timeout))

    async def be_busy() -> None:
        asking = asyncio.ensure_future(bench.client.call_async("quit", {}, PATIENCE))
        await asyncio.sleep(0)
        channel = bench.client._calls.channel
        assert channel is not None
        (call,) = bench.client._calls._unsent.values()
        fake_circusd.start()
        assert channel.socket.poll(int(PATIENCE * 1000), zmq.POLLOUT)
        call.deadline = 0.0  # has passed meanwhile, and the timer's turn comes after the socket's
        with pytest.raises(CallTimeout, match="circusd cannot be reached"):
            await asking

    bench.run(be_busy())
    bench.call("list")
    assert [command.command for command in fake_circusd.commands] == ["list"]


# Conflicts.


def test_a_command_that_meets_conflicts_is_sent_again_until_it_is_carried_out(
    way: Way, bench: Bench, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.add_watcher("web")
    fake_circusd.reply("incr", CONFLICT, count=3)
    assert way("incr", name="web")["status"] == "ok"
    assert len(fake_circusd.commands) == 4
    assert (bench.counters.conflicts, bench.counters.calls) == (3, 4)
    assert way("numprocesses", name="web")["numprocesses"] == 2


def test_a_conflict_is_the_outcome_when_there_is_no_time_for_another_try(
    way: Way, bench: Bench, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.reply("incr", CONFLICT)
    for long in (PATIENCE, None):
        for short in deadlines():
            timeout, patience = (short, None) if long is None else (long, short)
            fake_circusd.clear()
            reply = {}
            with contextlib.suppress(CallTimeout):  # the last try was late; the machine is busy
                reply = way("incr", timeout, patience=patience)
            if reply and len(fake_circusd.commands) > 1:
                break
        assert (reply["status"], reply["reason"]) == ("error", CONFLICT["reason"])


def test_without_patience_a_conflict_is_the_outcome_at_once(
    way: Way, bench: Bench, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.reply("incr", CONFLICT)
    assert way("incr", patience=0)["errno"] == 5
    assert len(fake_circusd.commands) == 1
    assert bench.counters.conflicts == 1


def test_patience_may_be_longer_than_the_deadline_which_holds_for_each_try(
    way: Way, fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug._plugin.calls_from_threads.SLACK", 0.0)
    for timeout in deadlines():
        over = time.monotonic() + 2 * timeout

        def answer(_: Any, over: float = over) -> dict[str, Any]:
            return CONFLICT if time.monotonic() < over else {"watchers": []}

        fake_circusd.reply("list", answer)
        with contextlib.suppress(CallTimeout):  # one of the tries was late
            assert way("list", timeout, patience=PATIENCE)["watchers"] == []
            break
    fake_circusd.silence("list")
    error = ask_in_vain(lambda timeout: way("list", timeout, patience=PATIENCE))
    assert str(error) == f"list: no reply within {error.timeout:g} s"


@pytest.mark.parametrize(
    "error",
    [
        {"status": "error", "reason": "command 'incr': invalid literal", "errno": 5},
        {"status": "error", "reason": "program web not found", "errno": 3},
        {"status": "arbiter is fine", "reason": "arbiter is fine", "errno": 5},
    ],
    ids=lambda error: error["reason"],
)
def test_nothing_but_a_conflict_is_sent_again(
    error: dict[str, Any], way: Way, bench: Bench, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.reply("incr", error)
    assert way("incr")["reason"] == error["reason"]
    assert len(fake_circusd.commands) == 1
    assert bench.counters.conflicts == 0


def test_a_call_without_a_reply_is_not_sent_again_after_a_conflict(
    way: Way, bench: Bench, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.reply("incr", CONFLICT)
    for timeout in deadlines():
        fake_circusd.clear()
        fake_circusd.clear_faults()
        fake_circusd.silence("incr")
        fake_circusd.late("incr", 0, count=1)  # that one is not lost
        with contextlib.suppress(CallTimeout):
            way("incr", timeout)  # returns the conflict, if there was no time for another try
            continue
        # By its number: the one before may have been sent again in the last moment.
        number = bench.client._calls.last_id
        tries = sum(command.id == number for command in fake_circusd.commands)
        if tries > 1:  # the conflict has come in time
            break
    assert tries == 2


def test_an_owner_that_waits_to_try_again_passes_on_the_replies_of_others(
    router: Router, routed: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug._plugin.client.FIRST_DELAY", PATIENCE)
    other = Asking(lambda: routed.call("other"))
    routing_id, request = router.take()
    own = Asking(lambda: routed.on_owner(lambda: routed.call("incr", 3 * PATIENCE)))
    _, refused = router.take()
    router.answer(routing_id, refused, **CONFLICT)
    router.answer(routing_id, request, said="right")
    assert other.result()["said"] == "right"
    assert router.empty  # it waits still
    routed.pass_by(PATIENCE)
    router.send(routing_id, b"for nobody, but the owner looks at the clock")
    router.answer(*router.take(), said="done")
    assert own.result()["said"] == "done"


def test_a_conflict_from_before_the_parking_is_tried_again_after_it(
    bench: Bench, fake_circusd: FakeCircusd
) -> None:
    parked = threading.Event()
    fake_circusd.reply("incr", lambda _: {} if parked.is_set() else CONFLICT)
    asking = Asking(lambda: bench.call("incr"))
    fake_circusd.wait_command("incr", timeout=PATIENCE, count=2)
    bench.park()
    parked.set()
    assert asking.result()["status"] == "ok"


def test_a_call_that_is_cancelled_after_a_conflict_is_not_sent_again(
    router: Router, routed: Bench
) -> None:
    async def give_up() -> None:
        task = asyncio.ensure_future(routed.client.call_async("quit", {}, PATIENCE))
        await asyncio.sleep(0)
        routing_id, request = router.take()
        router.answer(routing_id, request, **CONFLICT)
        while not routed.counters.conflicts:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    routed.run(give_up())
    assert not routed.client._calls._all


# Casts.


@pytest.mark.parametrize("where", ["other thread", "own thread", "parked"])
def test_a_cast_is_sent_with_an_id_and_no_reply_is_waited_for(
    where: str, bench: Bench, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.silence("incr")
    if where == "parked":
        bench.park()
    if where == "own thread":
        bench.on_owner(lambda: bench.client.cast("incr", {"name": "web"}))
    else:
        bench.client.cast("incr", {"name": "web"})
    command = fake_circusd.wait_command("incr", name="web")
    assert (command.cast, type(command.id)) == (True, int)
    assert bench.sent == 1


@pytest.mark.circusd_leaves
@pytest.mark.parametrize("where", ["other thread", "own thread", "parked"])
def test_a_cast_that_cannot_be_sent_fails_and_is_not_sent_later(
    where: str, bench: Bench, fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_circusd.stop()
    until_unreachable(lambda timeout: bench.call("list", timeout))
    if where == "parked":
        bench.park()

    def cast(timeout: float) -> None:
        monkeypatch.setattr("circusplug._plugin.calls.CALL_TIMEOUT", timeout)
        if where == "own thread":
            bench.on_owner(lambda: bench.client.cast("quit", {"waiting": True}))
        else:
            bench.client.cast("quit", {"waiting": True})

    until_unreachable(cast)
    fake_circusd.start()
    bench.call("numwatchers")
    assert [command.command for command in fake_circusd.commands] == ["numwatchers"]


Cast = Callable[..., None]


@pytest.fixture(params=["other thread", "own thread", "parked"])
def cast(request: pytest.FixtureRequest, bench: Bench) -> Cast:
    def cast(command: str, **properties: Any) -> None:
        if request.param == "own thread":
            bench.on_owner(lambda: bench.client.cast(command, properties))
        else:
            bench.client.cast(command, properties)

    if request.param == "parked":
        bench.park()
    return cast


def test_a_cast_that_meets_conflicts_is_sent_again_until_it_is_carried_out(
    cast: Cast, bench: Bench, fake_circusd: FakeCircusd, caplog: pytest.LogCaptureFixture
) -> None:
    fake_circusd.add_watcher("web")
    fake_circusd.reply("incr", CONFLICT, count=3)
    cast("incr", name="web")
    fake_circusd.wait_command("incr", cast=True, count=4, timeout=PATIENCE)
    assert bench.call("numprocesses", name="web")["numprocesses"] == 2
    assert (bench.counters.conflicts, bench.counters.casts_failed) == (3, 0)
    assert caplog.messages == []
    assert not bench.client._calls.casts


def test_a_cast_that_fails_is_logged_once_and_counted(
    cast: Cast, bench: Bench, fake_circusd: FakeCircusd, caplog: pytest.LogCaptureFixture
) -> None:
    cast("incr", name="absent")
    bench.call("list")  # whose reply comes after the cast's
    assert bench.counters.casts_failed == 1
    assert caplog.messages == ["cast failed: incr name='absent': program absent not found"]
    assert caplog.records[0].name == LOGGER.name
    assert caplog.records[0].levelno == logging.WARNING


def test_a_cast_whose_conflicts_do_not_end_fails_after_a_while(
    cast: Cast,
    bench: Bench,
    fake_circusd: FakeCircusd,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = failing_casts(bench, monkeypatch)

    def answer(_: Any) -> dict[str, Any]:
        bench.pass_by(0.4 * CALL_TIMEOUT)
        return CONFLICT

    fake_circusd.reply("incr", answer)
    cast("incr", name="web")
    assert failed.get(timeout=PATIENCE)
    assert caplog.messages == [f"cast failed: incr name='web': {CONFLICT['reason']}"]
    assert bench.counters.conflicts == len(fake_circusd.commands) > 2


def test_a_cast_without_a_reply_is_forgotten_and_told_of(
    cast: Cast,
    bench: Bench,
    fake_circusd: FakeCircusd,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = failing_casts(bench, monkeypatch)
    fake_circusd.silence("incr")
    cast("incr", name="web")
    fake_circusd.wait_command("incr", timeout=PATIENCE)
    bench.pass_by(CALL_TIMEOUT)
    assert failed.get(timeout=PATIENCE)
    assert caplog.messages == ["cast failed: incr name='web': no reply within 5 s"]
    assert bench.call("list")["watchers"] == []
    assert not bench.client._calls._all


def test_casts_that_a_hanging_circusd_never_answers_are_told_of_at_growing_distances(
    bench: Bench,
    fake_circusd: FakeCircusd,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = failing_casts(bench, monkeypatch)
    fake_circusd.silence("incr")

    def cast_often() -> None:
        for number in range(120):
            bench.client.cast("incr", {"name": "web", "nb": number})
        bench.client.cast("incr", {"name": "db"})

    bench.on_owner(cast_often)
    bench.pass_by(CALL_TIMEOUT)
    for _ in range(121):
        failed.get(timeout=PATIENCE)
    assert set(caplog.messages) == {
        "cast failed: incr name='db': no reply within 5 s",
        "cast failed: incr name='web' nb=0: no reply within 5 s",
        "cast failed: incr name='web' nb=9: no reply within 5 s (10 times so far)",
        "cast failed: incr name='web' nb=99: no reply within 5 s (100 times so far)",
    }
    assert len(caplog.messages) == 4
    assert bench.counters.casts_failed == 121


def failing_casts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> queue.SimpleQueue[tuple[Any, ...]]:
    """Where each cast that has failed shows up, after all that is done about it."""
    failed: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
    calls = bench.client._calls
    done = calls._cast_done

    def cast_done(*outcome: Any) -> None:
        done(*outcome)
        failed.put(outcome)

    monkeypatch.setattr(calls, "_cast_done", cast_done)
    return failed


def test_a_cast_that_waits_for_the_work_may_be_answered_late(
    cast: Cast, bench: Bench, fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug._plugin.calls.CALL_TIMEOUT", SOON)
    fake_circusd.hold("incr")
    cast("incr", name="absent", waiting=True)
    with pytest.raises(CallTimeout):
        bench.call("incr", 3 * SOON)
    assert bench.counters.casts_failed == 0
    assert len(bench.client._calls.casts) == 1


def test_casts_that_are_not_answered_are_bounded(
    cast: Cast, bench: Bench, fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("client", "open_calls"):
        monkeypatch.setattr(f"circusplug._plugin.{module}.MOST_CASTS", 3)
    hold = fake_circusd.hold("incr")
    for _ in range(3):
        cast("incr", name="web")
    monkeypatch.setattr("circusplug._plugin.calls.CALL_TIMEOUT", SOON)
    with pytest.raises(CallTimeout, match="not sent, no reply to 3 casts before it"):
        cast("incr", name="web")
    bench.call("list")
    assert [command.command for command in fake_circusd.commands] == ["incr"] * 3 + ["list"]
    hold.release()
    bench.call("list")
    monkeypatch.setattr("circusplug._plugin.calls.CALL_TIMEOUT", PATIENCE)
    cast("incr", name="web")


def test_a_handler_may_cast_more_than_may_be_open_at_once(
    bench: Bench, fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("client", "open_calls"):
        monkeypatch.setattr(f"circusplug._plugin.{module}.MOST_CASTS", 1_500)

    def cast_often() -> None:
        for _ in range(4_000):
            bench.client.cast("list", {})

    bench.on_owner(cast_often)
    bench.call("list")
    assert len(fake_circusd.commands) == 4_001
    assert bench.counters.casts_failed == 0
    assert not bench.client._calls.casts


def test_a_cast_that_waits_to_be_sent_again_when_the_client_closes_is_told_of(
    bench: Bench,
    fake_circusd: FakeCircusd,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("circusplug._plugin.calls.Call.delay", CALL_TIMEOUT - 1.0)
    fake_circusd.reply("incr", CONFLICT)
    bench.client.cast("incr", {"name": "web"})
    bench.call("list")  # whose reply comes after the conflict
    bench.close()
    assert caplog.messages == [f"cast failed: incr name='web': {CONFLICT['reason']}"]
    assert bench.counters.casts_failed == 1


def test_a_cast_that_has_failed_by_the_time_the_client_closes_is_told_of(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def cast_and_end() -> None:
        bench.client.cast("incr", {"name": "absent"})
        channel = bench.client._calls.channel
        assert channel is not None
        assert channel.socket.poll(int(PATIENCE * 1000))
        bench.client.end_parked()
        bench.loop.stop()

    bench.on_owner(cast_and_end)
    bench.close()
    assert caplog.messages == ["cast failed: incr name='absent': program absent not found"]


def test_casts_that_were_just_sent_when_the_client_closes_arrive_and_are_let_go(
    router: Router, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        with client_here(router.endpoint) as (client, counters, _):
            for number in range(200):
                client.cast("incr", {"number": number, "padding": "x" * 200})
        for number in range(200):
            assert router.take()[1]["properties"]["number"] == number
        assert counters.casts_failed == 0
    assert caplog.messages == []


@contextlib.contextmanager
def client_here(endpoint: str, door: str = "") -> Iterator[tuple[Client, Counters, PluginLoop]]:
    """A client whose owner is the calling thread."""
    context: zmq.Context[Any] = zmq.Context()

    def make_socket(endpoint: str = endpoint) -> zmq.Socket[bytes]:
        dealer: zmq.Socket[bytes] = context.socket(zmq.DEALER)
        dealer.linger = 0
        dealer.setsockopt(zmq.IMMEDIATE, 1)
        dealer.connect(endpoint)
        return dealer

    loop, counters = PluginLoop(), Counters()
    make_door_socket = functools.partial(make_socket, door) if door else None
    client = Client(loop, make_socket, counters, LOGGER, make_door_socket=make_door_socket)
    client.open()
    yield client, counters, loop
    client.close()
    loop.close()
    context.term()


# No descriptors left.


def test_a_timeout_is_told_and_the_old_socket_stays_if_no_new_one_can_be_made(
    way: Way, bench: Bench, fake_circusd: FakeCircusd
) -> None:
    bench.no_more_sockets = True
    hold = fake_circusd.hold("list")
    for _ in range(2):
        assert "no reply" in str(ask_in_vain(lambda timeout: way("list", timeout)))
    hold.release()
    assert way("numwatchers")["numwatchers"] == 0
    assert len(bench.sockets) == 1
    bench.no_more_sockets = False
    fake_circusd.silence("list")
    with pytest.raises(CallTimeout):
        way("list", SOON)
    assert way("numwatchers")["numwatchers"] == 0
    assert len(bench.sockets) == 2


def test_it_goes_on_if_no_new_socket_can_be_made_when_circusd_is_back(bench: Bench) -> None:
    bench.no_more_sockets = True
    bench.on_owner(bench.client.renew)
    assert bench.call("list")["watchers"] == []


def test_parked_without_a_descriptor_left_it_refuses_calls_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left() -> PluginLoop:
        raise OSError(errno.EMFILE, "Too many open files")

    refused = threading.Event()

    def refuse(why: str) -> None:
        Client.refuse(bench.client, why)
        refused.set()

    class Over(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.set()
            return super().wait(timeout)

    waits = threading.Event()
    monkeypatch.setattr(bench.client, "refuse", refuse)
    monkeypatch.setattr(bench.client, "_parked_over", Over())
    monkeypatch.setattr("circusplug._plugin.client.PluginLoop", none_left)
    bench.park()
    assert refused.wait(PATIENCE)
    assert waits.wait(PATIENCE)  # it keeps its sockets as long as handle_stop runs
    with pytest.raises(PluginStateError, match="no descriptor is left"):
        bench.call("list")


# Threads.


def test_many_threads_call_at_once_and_each_gets_its_own_reply(
    bench: Bench, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.reply("echo", lambda properties: {"said": properties["number"]})

    def ask(number: int) -> list[int]:
        return [bench.call("echo", number=turn)["said"] for turn in range(number, number + 50)]

    asking = [Asking(lambda number=number: ask(number)) for number in range(0, 800, 100)]
    for number, each in zip(range(0, 800, 100), asking, strict=True):
        assert each.result() == list(range(number, number + 50))
    assert bench.sent == 400


def test_a_call_that_the_owner_is_too_busy_for_is_never_sent(
    bench: Bench, fake_circusd: FakeCircusd
) -> None:
    begun, release = threading.Event(), threading.Event()
    busy = Asking(lambda: bench.on_owner(lambda: (begun.set(), release.wait(PATIENCE))))
    assert begun.wait(PATIENCE)
    with pytest.raises(CallTimeout, match="thread is busy, command not sent"):
        bench.call("quit", SOON)
    release.set()
    busy.result()
    assert bench.call("list")["watchers"] == []
    assert [command.command for command in fake_circusd.commands] == ["list"]
    assert bench.sent == 1


def test_a_blocking_call_on_the_owners_thread_passes_on_the_replies_of_others(
    router: Router, routed: Bench
) -> None:
    first = Asking(lambda: routed.call("first"))
    routing_id, request = router.take()
    own = Asking(lambda: routed.on_owner(lambda: routed.call("second")))
    _, other = router.take()
    router.answer(routing_id, request, said=1)
    assert first.result()["said"] == 1  # while the own thread still waits
    router.answer(routing_id, other, said=2)
    assert own.result()["said"] == 2


def test_a_call_works_from_another_loop(bench: Bench, fake_circusd: FakeCircusd) -> None:
    async def ask() -> list[Any]:
        calls = [bench.client.call_async("list", {}, PATIENCE) for _ in range(5)]
        return await asyncio.gather(*calls)

    assert [reply["watchers"] for reply in asyncio.run(ask())] == [[]] * 5


def test_deadlines_hold_for_a_call_from_another_loop(
    bench: Bench, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.silence()
    with pytest.raises(CallTimeout, match="no reply within"):
        asyncio.run(bench.client.call_async("list", {}, SOON))


def test_a_call_from_another_loop_that_the_owner_is_too_busy_for_is_never_sent(
    bench: Bench, fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug._plugin.calls_from_threads.SLACK", 0.01)
    begun, release = threading.Event(), threading.Event()
    busy = Asking(lambda: bench.on_owner(lambda: (begun.set(), release.wait(PATIENCE))))
    assert begun.wait(PATIENCE)
    with pytest.raises(CallTimeout, match="busy"):
        asyncio.run(bench.client.call_async("quit", {}, SOON))
    release.set()
    busy.result()
    bench.call("list")
    assert [command.command for command in fake_circusd.commands] == ["list"]


# call_async.


def test_awaited_calls_run_side_by_side_and_are_answered_in_any_order(
    router: Router, routed: Bench
) -> None:
    async def ask() -> list[Any]:
        calls = [routed.client.call_async(f"command{n}", {}, PATIENCE) for n in range(5)]
        return await asyncio.gather(*calls)

    asking = asyncio.run_coroutine_threadsafe(ask(), routed.loop)
    requests = [router.take() for _ in range(5)]
    for routing_id, request in reversed(requests):
        router.answer(routing_id, request, said=request["command"])
    assert [reply["said"] for reply in asking.result(PATIENCE)] == [f"command{n}" for n in range(5)]
    assert len({routing_id for routing_id, _ in requests}) == 1


def test_a_cancelled_call_leaves_nothing_behind_and_its_reply_is_dropped(
    router: Router, routed: Bench
) -> None:
    async def give_up() -> None:
        task = asyncio.ensure_future(routed.client.call_async("stats", {}, PATIENCE))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    routed.run(give_up())
    routing_id, request = router.take()
    router.answer(routing_id, request)
    asking = Asking(lambda: routed.call("list"))
    same, request = router.take()
    assert same == routing_id
    router.answer(same, request, said="right")
    assert asking.result()["said"] == "right"
    assert not routed.client._calls._all


# The door, where commands about plugins go; a test's own ROUTER stands there.

ABOUT = {"name": "plugin:two"}


@pytest.fixture
def at_door(router: Router, fake_circusd: FakeCircusd) -> Iterator[Bench]:
    """A client that has a door."""
    fake_circusd.add_watcher("web")
    bench = Bench(fake_circusd.endpoint, router.endpoint)
    bench.call("numprocesses", name="web")
    yield bench
    bench.close()


@pytest.fixture(params=["other thread", "own thread"])
def ask_at_door(request: pytest.FixtureRequest, at_door: Bench) -> Callable[..., Asking]:
    def ask(timeout: float | None = PATIENCE, **properties: Any) -> Asking:
        def call() -> Any:
            return at_door.client.call("restart", {**ABOUT, **properties}, timeout)

        return Asking(call if request.param == "other thread" else lambda: at_door.on_owner(call))

    return ask


def test_what_waits_at_the_door_need_not_wait_when_the_plugin_stops(
    ask_at_door: Callable[..., Asking], at_door: Bench, router: Router
) -> None:
    asking = ask_at_door(waiting=True)
    assert router.take()[1]["properties"] == {**ABOUT, "waiting": True}
    at_door.client.stop_waiting()
    reply = asking.result()
    assert (reply["status"], type(reply["id"]), type(reply["time"])) == ("ok", int, float)
    assert at_door.call("numprocesses", name="web")["numprocesses"] == 1


def test_what_waits_at_the_door_has_its_deadline_and_its_reply(
    ask_at_door: Callable[..., Asking], at_door: Bench, router: Router
) -> None:
    asking = ask_at_door(100.0, waiting=True)
    router.take()
    at_door.pass_by(100.0)
    with pytest.raises(CallTimeout, match="no reply within 100 s"):
        asking.result()
    asking = ask_at_door(waiting=True)
    router.answer(*router.take(), said="done")
    assert asking.result()["said"] == "done"


def test_what_does_not_wait_for_the_work_is_answered_when_the_plugin_stops_as_well(
    at_door: Bench, router: Router
) -> None:
    asking = Asking(lambda: at_door.client.call("restart", ABOUT, PATIENCE))
    request = router.take()
    at_door.client.cast("restart", {**ABOUT, "waiting": True})
    cast = router.take()
    at_door.client.stop_waiting()
    later = Asking(lambda: at_door.client.call("restart", {**ABOUT, "waiting": True}, PATIENCE))
    third = router.take()
    assert third[1]["properties"] == {**ABOUT, "waiting": False}
    router.answer(*cast, status="error", reason="cannot be")
    router.answer(*request, said="first")
    router.answer(*third, said="third")
    assert (asking.result()["said"], later.result()["said"]) == ("first", "third")
    assert at_door.counters.casts_failed == 1


def test_what_could_not_be_sent_to_the_door_is_no_success_when_the_plugin_stops(
    router: Router, fake_circusd: FakeCircusd
) -> None:
    nobody = router.endpoint
    router.close()
    bench = Bench(fake_circusd.endpoint, nobody)
    asking = Asking(lambda: bench.client.call("restart", {**ABOUT, "waiting": True}, PATIENCE))
    door = bench.client._door
    assert door is not None
    wait_while(lambda: not door._unsent)
    bench.client.stop_waiting()
    with pytest.raises(PluginStateError, match="cannot send 'restart': the plugin stops"):
        asking.result()
    bench.close()


def test_without_a_descriptor_for_the_door_there_is_one_clear_error(
    ask_at_door: Callable[..., Asking], at_door: Bench, router: Router
) -> None:
    at_door.no_more_sockets = True
    with pytest.raises(CallError, match=r"restart name='plugin:two': Too many open files"):
        ask_at_door().result()
    at_door.no_more_sockets = False
    asking = ask_at_door()
    router.answer(*router.take())
    assert asking.result()["status"] == "ok"


def test_when_it_has_closed_nothing_goes_to_the_door(fake_circusd: FakeCircusd) -> None:
    with client_here(fake_circusd.endpoint, fake_circusd.endpoint) as (client, _, _):
        pass
    with pytest.raises(PluginStateError, match="not connected"):
        client.call("restart", ABOUT)


# Life.


def test_before_it_is_open_a_client_refuses_commands() -> None:
    loop = PluginLoop()
    client = Client(loop, lambda: pytest.fail("no socket is wanted"), Counters(), LOGGER)
    with pytest.raises(PluginStateError, match="cannot send 'list': the plugin is not connected"):
        client.call("list", {}, None)
    with pytest.raises(PluginStateError):
        client.cast("list", {})
    with pytest.raises(PluginStateError):
        loop.run_sync(lambda: client.call_async("list", {}, None))
    client.close()
    loop.close()


def test_with_its_loop_closed_the_owner_can_still_call_and_cast(fake_circusd: FakeCircusd) -> None:
    with client_here(fake_circusd.endpoint) as (client, counters, loop):
        loop.close()
        client.cast("incr", {"name": "absent"})
        assert client.call("list", {})["watchers"] == []
        assert counters.casts_failed == 1


def test_when_it_closes_every_call_under_way_fails(router: Router) -> None:
    bench = Bench(router.endpoint)
    asking = [Asking(lambda: bench.call("list")) for _ in range(2)]
    awaiting = Asking(lambda: asyncio.run(bench.client.call_async("list", {}, PATIENCE)))
    for _ in range(3):
        router.take()
    bench.close()
    for each in (*asking, awaiting):
        with pytest.raises(PluginStateError, match="not connected"):
            each.result()
    with pytest.raises(PluginStateError):
        bench.call("list")
    with pytest.raises(PluginStateError):
        bench.client.cast("list", {})


def test_when_it_closes_a_call_that_it_has_not_looked_at_yet_fails_at_once(
    fake_circusd: FakeCircusd,
) -> None:
    with client_here(fake_circusd.endpoint) as (client, _, _):
        # As another thread does; the owner, which is this one, does not come to run its loop.
        done = client._handover.submit(Call("list", {}, PATIENCE))
    assert isinstance(done.exception(0), PluginStateError)


def test_a_call_that_comes_in_the_moment_before_it_parks_is_carried_out(
    bench: Bench, fake_circusd: FakeCircusd
) -> None:
    asking: list[Asking] = []

    def ask_and_park() -> None:
        asking.append(Asking(lambda: bench.call("list")))
        wait_while(bench.client._handover._queue.empty)
        bench.loop.stop()

    bench.on_owner(ask_and_park)
    assert asking[0].result()["watchers"] == []


def test_a_reply_that_comes_while_it_is_parked_reaches_whoever_waits(
    router: Router, routed: Bench
) -> None:
    asking = Asking(lambda: routed.call("list"))
    awaiting = Asking(lambda: asyncio.run(routed.client.call_async("list", {}, PATIENCE)))
    requests = [router.take() for _ in range(2)]
    routed.park()
    for routing_id, request in requests:
        router.answer(routing_id, request, said="right")
    assert asking.result()["said"] == "right"
    assert awaiting.result()["said"] == "right"


def test_a_deadline_passes_while_it_is_parked_and_the_socket_is_a_fresh_one(
    router: Router, routed: Bench
) -> None:
    asking = Asking(lambda: routed.call("list", PATIENCE))
    first, _ = router.take()
    routed.park()
    routed.pass_by(PATIENCE)
    with pytest.raises(CallTimeout, match="no reply within"):
        asking.result()
    asking = Asking(lambda: routed.call("list"))
    second, request = router.take()
    assert second != first
    router.answer(second, request)
    asking.result()
    assert routed.open_sockets() == 1


def test_a_parked_call_that_gets_no_reply_does_not_hold_up_the_others(
    bench: Bench, fake_circusd: FakeCircusd
) -> None:
    bench.park()
    fake_circusd.silence("stats")
    silent = Asking(lambda: bench.call("stats", PATIENCE))
    fake_circusd.wait_command("stats")
    assert bench.call("list")["watchers"] == []
    bench.client.cast("incr", {"name": "web"})
    fake_circusd.wait_command("incr", name="web")
    bench.client.end_parked()
    with pytest.raises(PluginStateError):
        silent.result()


def test_while_it_is_parked_nothing_of_the_plugins_loop_runs(
    bench: Bench, fake_circusd: FakeCircusd
) -> None:
    ran: list[str] = []
    bench.loop.post(bench.loop.call_later, 0, ran.append, "timer")
    bench.park()
    ran.clear()  # it may have run before
    bench.loop.add_callback(ran.append, "callback")
    bench.call("list")
    bench.client.cast("list", {})
    assert ran == []


def test_parked_calls_from_several_threads_are_all_served(
    bench: Bench, fake_circusd: FakeCircusd
) -> None:
    bench.park()
    asking = [Asking(lambda: bench.call("list")) for _ in range(10)]
    assert [each.result()["watchers"] for each in asking] == [[]] * 10


def test_only_what_was_sent_is_counted(bench: Bench, fake_circusd: FakeCircusd) -> None:
    bench.call("list")
    bench.client.cast("list", {})
    fake_circusd.silence("incr")
    ask_in_vain(lambda timeout: bench.call("incr", timeout))
    with pytest.raises(CallError):
        bench.call("set", options=object())
    assert bench.sent == 3
