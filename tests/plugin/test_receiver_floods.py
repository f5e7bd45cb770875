# The receiver in a flood of events, of which it receives many at once.

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import zmq
from patience import PATIENCE
from receiver_rig import Rig

from circusplug._loop.plugin_loop import PluginLoop
from circusplug._plugin import receiver as receiver_module
from circusplug._plugin.receiver import Frames

FLOOD = [b"%d" % number for number in range(30)]


@pytest.fixture
def quick(loop: PluginLoop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """What is published is at hand at once, and a flood however slow the machine is."""
    monkeypatch.setattr(receiver_module, "_FLOOD_SECONDS", PATIENCE)
    monkeypatch.setattr(receiver_module, "_BATCH_SECONDS", PATIENCE)
    with zmq.Context() as context:
        rig = Rig(context, loop, "inproc://flood")
        yield rig
        rig.close()


@pytest.fixture
def flooded(quick: Rig) -> Rig:
    """Its events are all at hand."""
    quick.publish(*FLOOD)
    return quick


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


def test_who_is_told_of_an_exception_in_a_flood_finds_the_events_before_it_counted(
    flooded: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[tuple[int, int]] = []

    def on_error(error: BaseException, what: str) -> None:
        counters = flooded.counters
        counted.append((counters.received, counters.handled))

    def handle(frames: Frames) -> None:
        if frames[0] in (b"watcher.3", b"watcher.15"):
            raise ValueError

    monkeypatch.setattr(flooded.receiver, "_on_error", on_error)
    flooded.run(handle, until=FLOOD[-1])
    assert counted == [(4, 3), (30, 14)]


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
    odd: list[bytes], garbage: int, at: int, quick: Rig
) -> None:
    quick.publish(*FLOOD[:at])
    quick.publisher.send_multipart(odd)
    quick.publish(*FLOOD[at:], b"end")
    quick.run(lambda frames: None, until=b"end")
    event = [b"event"] if odd[0] == b"watcher.event" else []
    assert quick.told == [*FLOOD[:at], *event, *FLOOD[at:], b"end"]
    assert quick.counters.garbage == garbage
    assert quick.counters.received == quick.counters.handled == len(quick.told)
