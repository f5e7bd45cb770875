# The inside of a FakeCircusd: it takes requests, has them answered and recorded, and lets
# tests wait for what happens.
#
# Who owns what: `fleet`, `script` and the sockets belong to the serving thread; `run` hands
# work to it. `commands` is shared and guarded by `changed`.

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from circusplug._control.language import Answer, Request, error_reply, read_request
from circusplug._errors import COMMAND_ERROR, CircusdError
from circusplug._wire.commands import ANSWERED_CAST, CAST, Reply

from ._fleet import Fleet
from ._script import Command, Delivery, Fault, Rule, Script
from ._server import SYNC, FakeServer
from ._virtual_clock import EPOCH, VirtualClock

T = TypeVar("T")

#: How long circusd's last replies may take to leave when it ends, in milliseconds.
_FAREWELL = 500


class Core:
    """What a FakeCircusd consists of.

    Args:
        check_delay: What ``globaloptions`` says of it, in seconds.
        sndhwm: The send high-water mark of events, per subscriber.

    Attributes:
        epoch: The time of day at which a virtual clock starts, in seconds since 1970.
        on_error: Takes what a plugin raises that `run_plugin` runs, on the plugin's thread.
        on_command: Takes each command before it is carried out, on the serving thread.
        beginnings: What to do when time begins: the scripts'.
    """

    def __init__(self, check_delay: float, sndhwm: int) -> None:
        self.check_delay = check_delay
        self.clock: VirtualClock | None = None
        self.epoch = EPOCH
        self.on_error: Callable[[BaseException], object] = lambda _: None
        self.on_command: Callable[[Command], object] = lambda _: None
        self.server = FakeServer(self._on_request, self.notify, sndhwm)
        self.fleet = Fleet(self._emit, self._global_options, self.now, self.call_later)
        self.script = Script()
        self.changed = threading.Condition()
        self.commands: list[Command] = []
        self.beginnings: list[Callable[[], None]] = []

    def now(self) -> float:
        """The time of day, in seconds since the epoch."""
        return time.time() if self.clock is None else self.clock.wall_time()

    def elapsed(self) -> float:
        """What the virtual clock says, in seconds since it was made; 0 if there is none."""
        return self.clock.now if self.clock is not None else 0.0

    def monotonic(self) -> float:
        """The clock that timers go by, in seconds."""
        return time.monotonic() if self.clock is None else self.clock.now

    def use_clock(self, clock: VirtualClock | None) -> None:
        """Live by a virtual clock, as if everything had just begun; None: by the real one."""
        self.clock = clock
        self.run(self.begin)

    def begin(self) -> None:
        """Let everything have just begun, the scripts' time, too; on the serving thread."""
        self.turn(self.fleet.begin_anew)
        for begin in self.beginnings:
            begin()

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        """Run *function* in *seconds* by the clock; only on the serving thread."""
        turn = functools.partial(self.turn, function)
        if self.clock is None:
            self.server.call_later(seconds, turn)
        else:
            self.clock.at(self.clock.now + seconds, lambda: self.do(turn))

    def turn(self, function: Callable[[], T]) -> T:
        """Run *function*, and have circusd do what follows from it; on the serving thread."""
        result = function()
        self.fleet.manage()
        if self.fleet.ends:
            again = self.fleet.restarts
            self.fleet.ends = self.fleet.restarts = False
            self.server.unbind(_FAREWELL)
            if again:
                self.start_circusd()
        return result

    def start_circusd(self) -> None:
        """Have circusd come up and start its watchers; on the serving thread."""
        self.server.bind()
        self.fleet.started = self.now()
        watchers = self.fleet.by_priority()
        self.fleet.when_idle(
            lambda: self.fleet.exclusively("arbiter_start_watchers", self.fleet.start(watchers))
        )

    def run(self, function: Callable[[], T]) -> T:
        """Run *function* on the serving thread, or here if there is none."""
        return self.do(function) if self.server.running else function()

    def do(self, function: Callable[[], T]) -> T:
        """Run *function* on the serving thread.

        With a virtual clock the test waits until the plugin has dealt with what comes of it.

        Raises:
            CircusdError: The thread is not running, or does not get to it.
            AssertionError: The plugin does not come to rest.
        """
        result = self.server.run(function)
        if self.clock is not None:
            self.clock.settle()
        return result

    def add_fault(
        self, fault: Fault, command: str | None, count: int | None, properties: Mapping[str, Any]
    ) -> None:
        """Have the replies to certain commands meet *fault*."""
        rule = Rule(command, properties, count, fault=fault)
        self.run(lambda: self.script.faults.append(rule))

    def wait(self, find: Callable[[], T | None], timeout: float, what: Callable[[], str]) -> T:
        """Wait until *find* returns something else than None, and return that.

        Raises:
            AssertionError: It took longer than *timeout* seconds; the message says *what* was
                waited for.
            CircusdError: Something failed on the serving thread meanwhile.
        """
        found: list[T] = []

        def look() -> bool:
            result = find()
            if result is not None:
                found.append(result)
            return bool(found or self.server.errors)

        with self.changed:
            self.changed.wait_for(look, timeout)
            if found:
                return found[0]
            if self.server.errors:
                error = self.server.errors[0]
                raise CircusdError(f"the fake circusd failed: {error!r}") from error
            raise AssertionError(f"waited {timeout:g} s in vain for {what()}")

    def notify(self) -> None:
        """Have those who wait look again."""
        with self.changed:
            self.changed.notify_all()

    def _emit(self, name: str, action: str, payload: Mapping[str, Any]) -> None:
        if self.server.bound:
            topic = f"watcher.{name}.{action}".encode()
            self.server.publish(topic, json.dumps({"time": self.now(), **payload}).encode())

    def _global_options(self) -> dict[str, Any]:
        return {
            "endpoint": self.server.endpoint,
            "stats_endpoint": "tcp://127.0.0.1:5557",
            "pubsub_endpoint": self.server.pubsub_endpoint,
            "check_delay": self.check_delay,
            "multicast_endpoint": "",
        }

    def _on_request(self, send_back: Callable[[bytes], None], frame: bytes) -> None:
        if frame.startswith(SYNC):
            send_back(frame)
            return
        request = read_request(frame)
        if request is None:
            return
        if not isinstance(request, Request):
            send_back(json.dumps(request).encode())
            return
        properties = request.properties
        known = properties if isinstance(properties, dict) else {}
        is_cast = request.kind in (CAST, ANSWERED_CAST)
        command = Command(request.command, known, request.id, is_cast)
        with self.changed:
            self.commands.append(command)
            self.changed.notify_all()
        self.on_command(command)
        self.turn(functools.partial(self._answer, command, properties, request, send_back))

    def _answer(
        self,
        command: Command,
        properties: Any,
        request: Request,
        send_back: Callable[[bytes], None],
    ) -> None:
        reply = self._reply_to(command, properties)
        self.fleet.manage()  # what is done at once is done before it is told
        if isinstance(reply, Future) and reply.done():
            reply = reply.result()
        if not isinstance(reply, Future):
            self._deliver(command, reply, request, send_back)
            return
        reply.add_done_callback(
            lambda reply: self._deliver(command, reply.result(), request, send_back)
        )

    def _deliver(
        self, command: Command, reply: Reply, request: Request, send_back: Callable[[bytes], None]
    ) -> None:
        if request.wants_reply:
            delivery = Delivery({"time": self.now(), "id": command.id, **reply}, send_back)
            fault = self.script.fault_for(command) or Delivery.send
            fault(delivery)

    def _reply_to(self, command: Command, properties: Any) -> Answer:
        try:
            return self.script.answer(self.fleet, command, properties)
        except Exception as error:  # noqa: BLE001 - what the test's own function raised
            self.server.errors.append(error)
            self.notify()
            return error_reply(f"computed reply: {error!r}", COMMAND_ERROR)
