# Who drains a flood: one at a time, in the order of asking, and nobody waits for one that hangs.

from __future__ import annotations

import itertools
import os
import threading
import warnings
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from patience import PATIENCE

from circusplug import CircusPlugin
from circusplug._plugin import receiver, turns
from circusplug._plugin.turns import Place, Turn
from circusplug.testing import FakeCircusd, run_plugin


class Taker:
    """A thread that asks for the turn, and holds it until it is told to hand it on."""

    def __init__(self, turn: Turn, order: list[str], name: str) -> None:
        self.has_it, self.may_give = threading.Event(), threading.Event()
        self.gave: bool | None = None
        self._turn, self._order, self._name = turn, order, name
        self._thread = threading.Thread(target=self._run)
        before = len(turn._line)
        self._thread.start()
        # In line, or holding it: only then the next one may ask.
        _until(lambda: self.has_it.is_set() or len(turn._line) > before)

    def _run(self) -> None:
        place = Place()
        self._turn.take(place)
        self._order.append(self._name)
        self.has_it.set()
        assert self.may_give.wait(PATIENCE)
        self.gave = self._turn.give(place)

    def give(self) -> None:
        self.may_give.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


def _until(condition: Callable[[], bool]) -> None:
    tick = threading.Event()
    for _ in itertools.takewhile(lambda _: not condition(), range(int(PATIENCE * 1000))):
        tick.wait(0.001)  # a place in line tells nobody
    assert condition()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nobody take the turn from one that holds it."""
    monkeypatch.setattr(turns, "LIMIT", PATIENCE)


@pytest.mark.usefixtures("patient")
def test_the_turn_is_handed_on_in_the_order_of_asking() -> None:
    turn, order = Turn(), []
    takers = [Taker(turn, order, name) for name in "abcd"]
    for taker in takers:
        assert taker.has_it.wait(PATIENCE)
        assert order == [item._name for item in takers[: takers.index(taker) + 1]]
        taker.give()
    assert [taker.gave for taker in takers] == [True] * 4
    assert (turn._holder, list(turn._line)) == (None, [])


def test_one_that_does_not_give_it_up_loses_it_to_the_next() -> None:
    turn, order = Turn(), []
    hangs, second = Taker(turn, order, "hangs"), Taker(turn, order, "second")
    assert second.has_it.wait(PATIENCE)
    third = Taker(turn, order, "third")
    assert not third.has_it.is_set() or order == ["hangs", "second", "third"]
    hangs.give()
    second.give()
    third.give()
    assert order == ["hangs", "second", "third"]
    assert hangs.gave is False
    assert turn._holder is None


@pytest.mark.usefixtures("patient")
def test_who_lost_the_turn_does_not_hand_on_that_of_another() -> None:
    turn, order = Turn(), []
    holder = Taker(turn, order, "holder")
    assert turn.give(Place()) is False
    assert turn._holder is not None
    holder.give()
    assert turn._holder is None


@pytest.mark.parametrize(("events", "asked"), [(4, False), (64, True)])
def test_a_flood_takes_the_turn_and_a_few_events_do_not(
    events: int, asked: bool, fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counts(CircusPlugin):
        def handle_recv(self, data: tuple[bytes, bytes]) -> None:
            if self.parse_event(data).action == "start":
                started.set()
                assert go.wait(PATIENCE)

    started, go, taken = threading.Event(), threading.Event(), []
    monkeypatch.setattr(receiver, "_FLOOD_SECONDS", PATIENCE)
    monkeypatch.setattr(receiver, "SLICE_SECONDS", PATIENCE)
    take = turns.turn.take
    monkeypatch.setattr(turns.turn, "take", lambda place: (taken.append(place), take(place)))
    with run_plugin(Counts, fake_circusd) as plugin:
        plugin.publish("web", "start")
        assert started.wait(PATIENCE)
        for _ in range(events):
            plugin.publish("web", "spawn")
        go.set()
        plugin.wait_handled(events + 1, PATIENCE)
    assert bool(taken) is asked
    assert turns.turn._holder is None


def test_the_turn_is_lost_after_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(turns, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    turn, holder, following, results = Turn(), Place(), Place(), []
    assert turn.take(holder)
    clock[0] += 0.01
    waiting = threading.Thread(target=lambda: results.append(turn.take(following)), daemon=True)
    waiting.start()
    waiting.join(PATIENCE)
    assert results == [True]
    assert turn.give(holder) is False


@pytest.mark.usefixtures("patient")
def test_one_that_is_to_stop_waits_no_longer_and_leaves_the_line() -> None:
    turn, order = Turn(), []
    holder = Taker(turn, order, "holder")
    place, results = Place(), []
    waiting = threading.Thread(target=lambda: results.append(turn.take(place)))
    waiting.start()
    _until(lambda: len(turn._line) == 1)
    turn.cancel(place)
    waiting.join(PATIENCE)
    assert results == [False]
    assert turn.take(place) is False
    holder.give()
    assert (turn._holder, list(turn._line)) == (None, [])


def test_a_forked_process_finds_the_turn_free() -> None:
    place = Place()
    assert turns.turn.take(place)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # other threads may be there
            child = os.fork()
        if not child:
            os._exit(0 if turns.turn._holder is None else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        turns.turn.give(place)


class Gate:
    """A place's gate whose every wait does something, and then finds it as it was before that."""

    def __init__(self, *happens: Callable[[], object]) -> None:
        self._happens = [*happens]
        self.is_open = False
        self.waits: list[float] = []

    def acquire(self, timeout: float) -> bool:
        self.waits.append(round(timeout, 6))
        was_open = self.is_open
        if self._happens:
            self._happens.pop(0)()
        return was_open

    def release(self) -> None:
        self.is_open = True


def test_the_turn_is_taken_only_from_one_that_has_had_it_for_long_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [100.0]
    monkeypatch.setattr(turns, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    turn, holder, other, place = Turn(), Place(), Place(), Place()
    assert turn.take(holder)
    turn._line.append(other)
    gate = Gate(
        lambda: clock.append(clock.pop() + 0.02),  # the other one is to take it
        lambda: (turn.cancel(other), setattr(turn, "_since", clock[0])),  # it is another's
        lambda: clock.append(clock.pop() + 0.01),
    )
    place.gate = gate  # type: ignore[assignment]
    assert turn.take(place)
    assert gate.waits == [0.02, 0.02, 0.01]
    assert (turn.give(holder), turn.give(place), turn._holder) == (False, True, None)


def test_one_that_gets_the_turn_in_the_moment_when_its_wait_ends_has_it() -> None:
    turn, holder, place = Turn(), Place(), Place()
    assert turn.take(holder)
    place.gate = gate = Gate(lambda: turn.give(holder))  # type: ignore[assignment]
    assert turn.take(place)
    assert gate.waits == [0.01, 0.01]
    assert turn._holder is place
