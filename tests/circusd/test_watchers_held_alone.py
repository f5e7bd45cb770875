# Holding back the watchers of a stand-in for Circus: when they are started, and when not.

from __future__ import annotations

import asyncio
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from circusplug._circusd import circusd_main
from circusplug._circusd.circusd_main import WatchersHeld

pytest.importorskip("tornado")


class ConflictError(Exception):
    """Stands for Circus's."""


class Circus:
    """As much of Circus as starts watchers; it is busy so many times."""

    busy = 0
    _stopping = False

    def __init__(self) -> None:
        self.asked = 0

    async def start_watchers(self) -> None:
        self.asked += 1
        if self.asked <= self.busy:
            raise ConflictError


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What that Circus logs."""
    said: list[Any] = []
    modules = {name: ModuleType(name) for name in ("circus", "circus.arbiter", "circus.exc")}
    logger = SimpleNamespace(warning=lambda *what: said.append(what))
    modules["circus"].__dict__.update(logger=logger)
    modules["circus.arbiter"].__dict__.update(Arbiter=Circus)
    modules["circus.exc"].__dict__.update(ConflictError=ConflictError)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(Circus, "start_watchers", Circus.start_watchers)  # put back at the end
    for delay in ("SUBSCRIBING", "BUSY_DELAY"):
        monkeypatch.setattr(circusd_main, delay, 0.0)
    return said


def start(circus: Circus, longest: float, is_let_go: bool) -> None:
    async def go() -> None:
        held = WatchersHeld(longest)
        held.install()
        first = circus.start_watchers()
        assert circus.asked == 0
        if is_let_go:
            held.let_go()
        await first

    asyncio.run(go())


def test_a_circusd_that_is_busy_when_it_is_let_go_starts_its_watchers_after_that(
    warnings: list[Any],
) -> None:
    circus = Circus()
    circus.busy = 3
    start(circus, 1000.0, is_let_go=True)
    assert (circus.asked, warnings) == (4, [])


def test_one_that_is_never_let_go_says_so_and_starts_its_watchers(warnings: list[Any]) -> None:
    circus = Circus()
    start(circus, 0.001, is_let_go=False)
    assert circus.asked == 1
    assert warnings == [("some plugins take more than %g s to start", 0.001)]


def test_one_that_stops_meanwhile_starts_nothing(warnings: list[Any]) -> None:
    circus = Circus()
    circus._stopping = True
    start(circus, 1000.0, is_let_go=True)
    assert circus.asked == 0
