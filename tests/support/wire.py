# The plainest possible ends of the two wires, for tests that look at what circusd really says:
# no circusplug in them. Each belongs to the thread that made it.

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

import zmq
from patience import PATIENCE


class Circusd(Protocol):
    """A circusd to talk to, real or fake."""

    @property
    def endpoint(self) -> str: ...

    @property
    def pubsub_endpoint(self) -> str: ...


class Wire:
    """A DEALER and a SUB on one circusd; a context manager.

    Args:
        circusd: Whom to talk to.
        topic: What to subscribe to.
    """

    def __init__(self, circusd: Circusd, topic: bytes = b"watcher.") -> None:
        self._circusd = circusd
        self._topic = topic
        self._ids = itertools.count(1)

    def __enter__(self) -> Wire:
        self.context = zmq.Context()
        self.dealer = self.new_dealer()
        self.sub = self.context.socket(zmq.SUB)
        self.sub.linger = 0
        self.sub.rcvhwm = 0
        self.sub.subscribe(self._topic)
        self.sub.connect(self._circusd.pubsub_endpoint)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.context.destroy(linger=0)

    def new_dealer(self) -> zmq.Socket[bytes]:
        """Return one more connection to the command socket."""
        dealer = self.context.socket(zmq.DEALER)
        dealer.linger = 0
        dealer.connect(self._circusd.endpoint)
        return dealer

    def send(self, frame: bytes) -> None:
        """Send any frame as a command."""
        self.dealer.send(frame)

    def request(self, command: str, **properties: Any) -> int:
        """Send a command and return its id."""
        call_id = next(self._ids)
        self.send(
            json.dumps({"id": call_id, "command": command, "properties": properties}).encode()
        )
        return call_id

    def cast(self, command: str, **properties: Any) -> None:
        """Send a cast."""
        message = {"command": command, "msg_type": "cast", "properties": properties}
        self.send(json.dumps(message).encode())

    def receive(self) -> Any:
        """Return the next reply, decoded."""
        return json.loads(self.receive_frame())

    def receive_frame(self) -> bytes:
        """Return the next reply."""
        if not self.dealer.poll(int(PATIENCE * 1000)):
            raise AssertionError("circusd does not answer")
        return self.dealer.recv()

    def call(self, command: str, **properties: Any) -> dict[str, Any]:
        """Send a command and return the next reply; a busy circusd is asked again."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self.request(command, **properties)
            reply: dict[str, Any] = self.receive()
            busy = reply["status"] == "error" and reply["reason"].startswith("arbiter is already")
            if not busy or time.monotonic() > deadline:
                return reply

    def call_raw(self, command: str, **properties: Any) -> Any:
        """Send a command and return the next reply, whatever it is."""
        self.request(command, **properties)
        return self.receive()

    def event(self) -> tuple[str, dict[str, Any]]:
        """Return the next event's topic and payload."""
        topic, payload = self.event_frames()
        return topic.decode(), json.loads(payload)

    def event_frames(self) -> list[bytes]:
        """Return the next event's frames."""
        if not self.sub.poll(int(PATIENCE * 1000)):
            raise AssertionError("no event comes")
        return self.sub.recv_multipart()

    def subscribe_with(self, sentinel: str) -> None:
        """Wait until events arrive, which those of the watcher *sentinel* show."""
        deadline = time.monotonic() + PATIENCE
        while not self.sub.poll(20):
            if time.monotonic() > deadline:
                raise AssertionError("the subscription brings no event")
            self.call("set", name=sentinel, options={"max_retry": 5}, waiting=True)
        self.events_until(sentinel)

    def events_until(self, sentinel: str) -> list[tuple[str, dict[str, Any]]]:
        """Return the events that came before now, in order.

        An event of the stopped watcher *sentinel* marks the place; its events are left out.
        """
        self.call("set", name=sentinel, options={"max_retry": 6}, waiting=True)
        self.call("rm", name=sentinel, waiting=True)
        self.call("add", name=sentinel, cmd="true", waiting=True)
        own, events = f"watcher.{sentinel}.", []
        while True:
            topic, payload = self.event()
            if topic == f"{own}add":
                return events
            if not topic.startswith(own):
                events.append((topic, payload))

    def poll_until(self, condition: Callable[[], object]) -> None:
        """Poll the event socket until *condition* holds.

        A SUB socket connects again by itself, but subscribes again only while it is polled.
        """
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError("the condition does not come true")
            self.sub.poll(10)

    def drain(self) -> list[Any]:
        """Return the replies that have already come."""
        replies = []
        with contextlib.suppress(zmq.Again):
            while True:
                replies.append(json.loads(self.dealer.recv(zmq.NOBLOCK)))
        return replies
