# A plugin under development: hosted against a fake circusd whose time goes on as it does here, or
# faster, or against a given circusd; all it does is noted, and its code is loaded anew.
#
# Owner: the thread that made it, but the notes.

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from circusplug._config.specs import HostConfig, PluginSpec
from circusplug._errors import PluginStateError
from circusplug._host.arbiter import Arbiter
from circusplug._plugin.client import Client
from circusplug._plugin.receiver import Frames
from circusplug._plugin.status import PluginStatus
from circusplug._plugin.worker import Worker
from circusplug._runners.runner import Hooks
from circusplug._wire.commands import Reply

from ._fake import FakeCircusd
from ._notes import Notes
from ._replayed import Deed
from ._run import RunningPlugin, has_settled, run_spec
from ._script import Command
from ._virtual_clock import VirtualClock

#: How long a plugin may take to start, in seconds.
_START = 60.0


class Workbench:
    """A plugin that is being written.

    Attributes:
        arbiter: The host that runs it.
        name: The plugin's name.
    """

    arbiter: Arbiter
    name: str

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    @property
    def status(self) -> PluginStatus:
        """What the host says of it."""
        return self.arbiter.plugins[self.name]

    def tick(self) -> None:
        """Let time go on to now, and hand on what has happened."""
        self._notes.flush()

    def load_anew(self) -> None:
        """Start a new life with the code as it is now; if that cannot be, the old one goes on.

        Raises:
            ConfigError: It cannot be loaded, or an option does not fit.
        """
        self.arbiter.restart_plugin(self.name)
        self._wait()

    def change(self, spec: PluginSpec) -> None:
        """Go on with other options; raises as `load_anew`."""
        config = HostConfig(
            (spec,), self.arbiter.config.endpoint, self.arbiter.config.pubsub_endpoint
        )
        self.arbiter.reconfigure(config)
        self._wait()

    def publish(self, watcher: str, action: str, payload: Mapping[str, Any]) -> None:
        """Publish an event."""
        raise PluginStateError(_GIVEN)

    def advance(self, seconds: float) -> None:
        """Let so much time pass at once."""
        raise PluginStateError(_GIVEN)

    def lose_replies(self) -> str:
        """Have all replies lost, or none any more; returns which."""
        raise PluginStateError(_GIVEN)

    def stop_circusd(self) -> str:
        """Have circusd die, or come back; returns which."""
        raise PluginStateError(_GIVEN)

    def _wait(self) -> None:
        with contextlib.suppress(TimeoutError):
            self.arbiter.wait(lambda statuses: has_settled(statuses[self.name]), _START)


_GIVEN = "a circusd that was given does what it does; without one there is a fake"


class _AtFake(Workbench):
    def __init__(
        self, notes: Notes, circusd: FakeCircusd, running: RunningPlugin, clock: VirtualClock
    ) -> None:
        super().__init__(notes)
        self.arbiter, self.name = running.arbiter, running.name
        self._circusd = circusd
        self._clock = clock
        self._lost = False
        self._last = time.monotonic()

    def tick(self) -> None:
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        with contextlib.suppress(AssertionError):  # it is busy; the next tick tries again
            self._clock.advance(seconds)
        super().tick()

    def advance(self, seconds: float) -> None:
        self._clock.advance(seconds)

    def publish(self, watcher: str, action: str, payload: Mapping[str, Any]) -> None:
        self._circusd.publish(watcher, action, **payload)

    def lose_replies(self) -> str:
        self._lost = not self._lost
        if self._lost:
            self._circusd.silence()
            return "all replies are lost from now on"
        self._circusd.clear_faults()
        return "replies arrive again"

    def stop_circusd(self) -> str:
        if self._circusd._core.server.bound:
            self._circusd.stop()
            return "circusd is dead"
        self._circusd.start()
        return "circusd is back"


@contextlib.contextmanager
def at_fake_circusd(
    spec: PluginSpec, script: str | Path, on_deed: Callable[[Deed], object]
) -> Iterator[Workbench]:
    """Host a plugin against a fake circusd.

    Args:
        spec: The plugin.
        script: What the watchers' lives are like; see `FakeCircusd`.
        on_deed: Takes what is done.
    """
    with FakeCircusd(script=script) as circusd:
        core = circusd._core
        core.epoch = time.time()
        notes = Notes(core.elapsed, on_deed)
        core.on_error, core.on_command = notes.take_error, notes.take_command
        core.server.on_publish = notes.take_event
        clock = VirtualClock(core.epoch)
        with (
            notes.listening(spec.name),
            run_spec(spec, circusd, False, _START, clock) as running,
        ):
            yield _AtFake(notes, circusd, running, clock)
        notes.flush()


@contextlib.contextmanager
def at_circusd(
    spec: PluginSpec, endpoint: str, pubsub_endpoint: str, on_deed: Callable[[Deed], object]
) -> Iterator[Workbench]:
    """Host a plugin against a circusd that runs; other arguments as of `at_fake_circusd`."""
    begun = time.monotonic()
    notes = Notes(lambda: time.monotonic() - begun, on_deed)
    bench = Workbench(notes)
    bench.name = spec.name
    bench.arbiter = Arbiter.from_config(
        HostConfig((spec,), endpoint, pubsub_endpoint),
        hooks=Hooks(
            on_exception=lambda _, error: notes.take_error(error),
            make_worker=functools.partial(_NotingWorker, notes),
        ),
    )
    with notes.listening(spec.name), bench.arbiter:
        yield bench
    notes.flush()


class _NotingClient(Client):
    notes: Notes

    def call(self, command: str, properties: Mapping[str, Any], *args: Any) -> Reply:
        self.notes.take_command(Command(command, properties))
        return super().call(command, properties, *args)

    def cast(self, command: str, properties: Mapping[str, Any]) -> None:
        self.notes.take_command(Command(command, properties, cast=True))
        super().cast(command, properties)

    async def call_async(self, command: str, properties: Mapping[str, Any], *args: Any) -> Reply:
        self.notes.take_command(Command(command, properties))
        return await super().call_async(command, properties, *args)


class _NotingWorker(Worker):
    client_class = _NotingClient
    client: _NotingClient

    def __init__(self, notes: Notes, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._notes = self.client.notes = notes

    def _receive(self, handler: Callable[[Frames], Any]) -> BaseException | None:
        def noting(frames: Frames) -> Any:
            self._notes.take_event(*frames)
            return handler(frames)

        return super()._receive(noting)
