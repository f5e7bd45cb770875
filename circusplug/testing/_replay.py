# Runs a plugin against a recording, by a virtual clock, and tells what it would have done.
#
# Owner: the thread that calls `replay`, which also moves the clock.

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from circusplug._config.declared import declared_by
from circusplug._plugin.load import short_name

from ._clock_readers import ClockReaders
from ._fake import FakeCircusd
from ._notes import Notes
from ._recorded_circusd import RecordedCircusd, RecordedFleet
from ._recording import Back, Event, Figures, Options, Record, Recording
from ._replayed import Deed, Replayed
from ._run import RunningPlugin, run_plugin

#: So many records are read and published at a time.
_BATCH = 500
#: How often the clock goes on where a replay keeps the time, in real seconds.
_TICK = 0.05
_OUTSIDE = (
    "the plugin waits for what is no circusd's (a page, a server, a program); a recording does not "
    "hold that, so it is looked at as it is today"
)


def replay(
    path: Path | str,
    plugin_class: type,
    /,
    *,
    speed: float = math.inf,
    strict: bool = False,
    on_deed: Callable[[Deed], object] | None = None,
    **config: Any,
) -> Replayed:
    """Run a plugin against a recording, as of `circusplug record`, and return what it has done.

    The plugin lives by a virtual clock, so a day takes seconds. A fake circusd publishes the
    events, answers from what was recorded, and carries out nothing: what then happened is in the
    recording. `CircusPlugin.replaying` is true, so the bundled plugins send nothing to anybody.

    Args:
        path: The recording.
        plugin_class: The plugin's class.
        speed: How many times as fast as it was recorded; by default as fast as can be.
        strict: Also tell where the plugin reads the real clock, or sleeps; that makes it slower.
        on_deed: Takes each deed when it is done, in order; the result then keeps none.
        config: The plugin's options.

    Raises:
        RecordingError: The file is no recording.
        SpecError: An option is not valid.
        ValueError: *speed* is not more than 0.
        AssertionError: The plugin does not come to rest; see `RunningPlugin.advance`.
    """
    if not speed > 0:
        raise ValueError(f"speed={speed!r}: it is a number more than 0")
    name = str(config.pop("name", None) or short_name(plugin_class))
    if declared := declared_by(plugin_class):
        declared.read(config)
    result = Replayed()
    with Recording(path, result.warnings.append) as recording, FakeCircusd() as circusd:
        core = circusd._core
        notes = Notes(core.elapsed, on_deed or result.deeds.append)
        core.script = recorded = RecordedCircusd(core.elapsed)
        core.fleet = RecordedFleet(
            lambda *_: None, lambda: recorded.global_options, core.now, core.call_later
        )
        core.check_delay, core.epoch = recording.check_delay, recording.started
        core.on_error, core.on_command = notes.take_error, notes.take_command
        core.server.replays = True
        feed = _Feed(circusd, recorded, iter(recording))
        with contextlib.ExitStack() as stack:
            stack.enter_context(notes.listening(name))
            if strict:
                stack.enter_context(ClockReaders(plugin_class, notes.take_reading))
            running = stack.enter_context(
                run_plugin(
                    plugin_class,
                    circusd,
                    raise_errors=False,
                    clock="virtual",
                    name=name,
                    **config,
                )
            )
            feed.play(running, speed, notes)
            result.seconds = running.elapsed
            running.stop()
            result.plugin = running.plugin
            notes.flush()
        result.events = feed.events
        if result.plugin is not None and result.plugin._circusplug_worker.loop.went_outside:
            result.warnings.append(_OUTSIDE)
    return result


class _Feed:
    """Brings a recording to a plugin.

    Args:
        circusd: What publishes it.
        recorded: What answers for it.
        records: The recording.

    Attributes:
        events: How many events were published.
    """

    def __init__(
        self, circusd: FakeCircusd, recorded: RecordedCircusd, records: Iterator[Record]
    ) -> None:
        self._circusd = circusd
        self._server = circusd._core.server
        self._recorded = recorded
        self._records = records
        self._ahead: list[Record] = []
        self.events = 0
        # The state at the start; the plugin asks for it before the first event.
        for record in records:
            if not isinstance(record, Options | Figures):
                self._ahead.append(record)
                break
            recorded.coming.append(record._replace(at=0.0))
            if isinstance(record, Figures):
                break

    def play(self, running: RunningPlugin, speed: float, notes: Notes) -> None:
        """Bring it all, unless the plugin ends before."""
        begun, size = time.monotonic(), _BATCH if speed == math.inf else 1
        while self._runs(running, notes) and (batch := self._next(size)):
            for part in _until_back(batch):
                if speed != math.inf:
                    self._keep_time(running, part[0].at, begun, speed, notes)
                self._bring(running, part)
            notes.flush()
            self._circusd.clear()
            self._server.run(lambda: self._recorded.catch_up(self._circusd._core.fleet))

    def _next(self, size: int) -> list[Record]:
        ahead, self._ahead = self._ahead, []
        return [*ahead, *islice(self._records, size - len(ahead))]

    def _runs(self, running: RunningPlugin, notes: Notes) -> bool:
        """Whether the plugin runs; notes why, if it does not."""
        status = running.status
        if status.state == "running":
            return True
        notes.add("error", f"the plugin is {status.state}: {status.last_error or 'it has ended'}")
        return False

    def _bring(self, running: RunningPlugin, records: Sequence[Record]) -> None:
        """Bring records of which only the first one may be that circusd came back."""
        first = records[0]
        if isinstance(first, Back):
            running.advance(max(0.0, first.at - running.elapsed))
            self._circusd.restart()
        self._recorded.coming.extend(records)
        events = [record for record in records if isinstance(record, Event)]
        self.events += len(events)
        if self._server.is_subscribed():
            self._server.moments.extend(
                event.at for event in events if event.topic.startswith(self._server.topics)
            )
        self._server.run(lambda: self._publish(events))
        running.advance(max(0.0, records[-1].at - running.elapsed))

    def _publish(self, events: list[Event]) -> None:
        for event in events:
            self._server.publish(event.topic, event.payload)

    def _keep_time(
        self, running: RunningPlugin, at: float, begun: float, speed: float, notes: Notes
    ) -> None:
        """Go on to a moment as fast as time does, or so many times faster."""
        while (now := running.elapsed) < at:
            time.sleep(min(_TICK, max(0.0, at / speed - (time.monotonic() - begun))))
            due = min(at, (time.monotonic() - begun) * speed)
            running.advance(max(0.0, due - now))
            notes.flush()


def _until_back(records: list[Record]) -> Iterator[list[Record]]:
    """Parts, each of which begins where circusd came back, but the first one perhaps."""
    part: list[Record] = []
    for record in records:
        if isinstance(record, Back) and part:
            yield part
            part = []
        part.append(record)
    yield part
