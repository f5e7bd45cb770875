# Which plugin is due when.

from __future__ import annotations

from circusplug._host.timers import Timers


def test_those_are_due_whose_moment_has_come_the_earliest_first() -> None:
    timers = Timers[str]()
    assert timers.next() is None
    for item, moment in (("late", 30.0), ("early", 10.0), ("middle", 20.0), ("as early", 10.0)):
        timers.set(item, moment)
    assert timers.next() == 10.0
    assert timers.take_due(9.9) == []
    assert timers.take_due(20.0) == ["early", "as early", "middle"]
    assert (timers.next(), timers.take_due(29.0)) == (30.0, [])


def test_a_timer_may_be_moved_either_way_or_taken_away() -> None:
    timers = Timers[str]()
    for item in "abc":
        timers.set(item, 20.0)
    timers.set("a", 30.0)
    timers.set("b", 10.0)
    timers.set("c", None)
    timers.set("nobody", None)
    assert timers.next() == 10.0
    assert timers.take_due(25.0) == ["b"]
    assert timers.next() == 30.0
    timers.set("a", None)
    assert (timers.next(), timers.take_due(1e9)) == (None, [])


def test_one_that_was_due_may_be_set_to_the_same_moment_again() -> None:
    timers = Timers[str]()
    for _ in range(2):
        timers.set("a", 10.0)
        timers.set("a", 10.0)
        assert timers.take_due(10.0) == ["a"]


def test_to_say_the_same_again_takes_no_room() -> None:
    timers = Timers[str]()
    for _ in range(100):
        timers.set("a", 10.0)
    assert len(timers._heap) == 1
