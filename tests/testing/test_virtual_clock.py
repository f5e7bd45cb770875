# The virtual clock by itself, and who lives by it.

from __future__ import annotations

import threading

import pytest
from members import in_thread
from patience import PATIENCE

from circusplug.testing import _virtual_clock
from circusplug.testing._virtual_clock import VirtualClock


class Member:
    """A plugin that never comes to rest."""

    def __init__(self) -> None:
        self.woken = threading.Event()

    def wake(self) -> None:
        self.woken.set()

    def waits_for(self) -> str:
        return "the plugin is busy"


def test_whoever_waits_for_a_plugin_waits_no_longer_when_that_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert _virtual_clock.PATIENCE == 5.0  # as the documentation says
    monkeypatch.setattr(_virtual_clock, "PATIENCE", 10 * PATIENCE)
    member = Member()
    clocks: list[VirtualClock] = []

    def advance() -> None:
        clocks.append(VirtualClock())
        clocks[0].join(member)
        clocks[0].advance(7.0)

    waiting = threading.Thread(target=lambda: in_thread(advance))
    waiting.start()
    assert member.woken.wait(PATIENCE)
    clocks[0].leave(member)
    waiting.join(PATIENCE)
    assert not waiting.is_alive()
    assert clocks[0].now == 7.0


def test_a_plugin_that_leaves_late_does_not_take_the_next_one_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_virtual_clock, "PATIENCE", 0.01)
    clock, first, second = VirtualClock(), Member(), Member()
    for member in (first, second):
        clock.join(member)
    clock.leave(first)
    with pytest.raises(AssertionError, match="the plugin is busy"):
        clock.advance(1.0)
    clock.leave(second)
    clock.advance(1.0)
    assert clock.now == 1.0
