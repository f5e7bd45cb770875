# A host with a control endpoint, and a plain client at it.

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from hosts import all_run
from patience import PATIENCE
from wire import Wire

from circusplug import Arbiter, PluginStatus
from circusplug._control.control_server import ControlServer
from circusplug._control.language import Request
from circusplug._control.server import SendBack
from circusplug.testing import FakeCircusd


def asked_of(server_class: type[ControlServer], patch: pytest.MonkeyPatch) -> list[str]:
    """The commands that come to servers of a class from now on, as they come."""
    asked: list[str] = []
    respond = server_class.respond

    def note(self: ControlServer, request: Request, send_back: SendBack) -> None:
        asked.append(request.command)
        respond(self, request, send_back)

    patch.setattr(server_class, "respond", note)
    return asked


class Ends(NamedTuple):
    """Where a host is steered and heard."""

    endpoint: str
    pubsub_endpoint: str


class Steered:
    """A host and a client at its control endpoint.

    Attributes:
        wire: The client: ``call`` and ``request`` send commands, ``event`` receives events.
    """

    def __init__(self, arbiter: Arbiter, wire: Wire, circusd: FakeCircusd, ends: Ends) -> None:
        self.arbiter = arbiter
        self.wire = wire
        self.circusd = circusd
        self.ends = ends

    @property
    def server(self) -> ControlServer:
        """What serves the host's control endpoint."""
        assert self.arbiter._steering is not None
        assert self.arbiter._steering._server is not None
        return self.arbiter._steering._server

    def ok(self, command: str, **properties: Any) -> dict[str, Any]:
        """Send a command that succeeds; returns the reply."""
        reply: dict[str, Any] = self.wire.call_raw(command, **properties)
        assert reply["status"] == "ok", reply
        return reply

    def refused(self, command: str, **properties: Any) -> tuple[int, str]:
        """Send a command that fails; returns its number and reason."""
        reply = self.wire.call_raw(command, **properties)
        assert reply["status"] == "error", reply
        return reply["errno"], reply["reason"]

    def status(self, name: str) -> PluginStatus:
        return self.arbiter.plugins[name]

    def wait(self, name: str, state: str) -> PluginStatus:
        """Wait until a plugin is in a state."""
        return self.arbiter.wait(lambda now: now[name].state == state, PATIENCE)[name]

    def subscribe(self) -> None:
        """Wait until events arrive; what has happened so far is not among them."""
        # The host announces a change of state after it shows it, on the thread that takes orders.
        self.arbiter._started.order(lambda supervisor: (None, ()))
        self.server.announce("sentinel", "here")
        while not self.wire.sub.poll(20):
            self.server.announce("sentinel", "here")
        self.server.announce("sentinel", "last")
        while not self.wire.event()[0].endswith("sentinel.last"):
            pass

    def unsubscribe(self) -> None:
        """Wait until the host knows that the client does not listen any more."""
        self.wait_subscriptions(1)  # it may be on its way still, and would arrive later
        self.wire.sub.unsubscribe(b"watcher.")
        self.wait_subscriptions(0)

    def wait_subscriptions(self, count: int) -> None:
        """Wait until the host knows of so many subscriptions to different topics."""
        self.arbiter.wait(lambda _: self.server._subscriptions == count, PATIENCE)

    def event_of(self, name: str, action: str) -> dict[str, Any]:
        """Wait for an event; returns what it says, without the ones before."""
        while True:
            topic, payload = self.wire.event()
            if topic == f"watcher.plugin:{name}.{action}":
                return payload


@contextlib.contextmanager
def control_ends() -> Iterator[Ends]:
    """Endpoints in a directory of their own."""
    with tempfile.TemporaryDirectory(dir=os.environ["XDG_RUNTIME_DIR"]) as path:
        yield Ends(f"ipc://{path}/c.sock", f"ipc://{path}/c.events.sock")


@contextlib.contextmanager
def steered(
    circusd: FakeCircusd,
    *plugins: dict[str, Any],
    until: Callable[[Any], bool] = all_run,
    **options: Any,
) -> Iterator[Steered]:
    """A host of some plugins, on which a client is connected."""
    with control_ends() as ends:
        arbiter = Arbiter(
            plugins,
            circusd.endpoint,
            circusd.pubsub_endpoint,
            control=ends.endpoint,
            **options,
        )
        with arbiter, Wire(ends) as wire:
            arbiter.wait(until, PATIENCE)
            yield Steered(arbiter, wire, circusd, ends)
