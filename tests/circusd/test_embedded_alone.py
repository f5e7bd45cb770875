# A circusd in somebody's program, with a stand-in for its process: who is told of what.

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable
from typing import Any

import pytest
from patience import PATIENCE

from circusplug._circusd import embedded
from circusplug._circusd.embedded import EmbeddedCircusd
from circusplug._circusd.watcher_options import CircusdPlan
from circusplug._errors import CircusdError, HostError


class Process:
    """Stands for a `CircusdProcess`."""

    pid = 12

    def __init__(self, text: str, **options: Any) -> None:
        self.given = text, options
        self.fails = ""
        self.done: list[Any] = []
        self.ended: Callable[[int | None], None] | None = None

    def start(self) -> None:
        self.done.append("start")

    def wait_ready(self, timeout: float) -> None:
        self.done.append(timeout)
        if self.fails:
            raise CircusdError(self.fails)

    def on_exit(self, callback: Callable[[int | None], None]) -> None:
        self.done.append("on exit")
        self.ended = callback

    def let_go(self) -> None:
        self.done.append("go")

    def stop(self, timeout: float) -> None:
        self.done.append(("stop", timeout))
        if self.ended is not None:
            self.ended(0)


class Bench:
    """A circusd of nobody's, and what is told of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(embedded, "CircusdProcess", Process)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
        self.circusd = EmbeddedCircusd(CircusdPlan("{}", 3.0, 7.0))
        self.process: Any = self.circusd._process
        self.told: list[str] = []

    def start(self) -> None:
        told = self.told.append
        self.circusd.start(lambda: told("up"), told, lambda: told("quit"))
        assert self.circusd._thread is not None
        self.circusd._thread.join(PATIENCE)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_it_has_the_times_of_its_plan_and_waits_to_be_let_go(bench: Bench) -> None:
    bench.start()
    text, options = bench.process.given
    assert (text, options["grace"], options["start_timeout"]) == ("{}", 3.0, 7.0)
    assert options["holds_back"]
    bench.circusd.let_go()
    bench.circusd.close()
    assert bench.process.done == ["start", 7.0, "on exit", "go", ("stop", 3.0)]
    assert bench.told == ["up"]  # an end that was asked for is no news


@pytest.mark.parametrize(
    ("status", "told"), [(0, "quit"), (1, "circusd exited with status 1"), (None, "circusd ended")]
)
def test_its_end_is_told_as_what_it_was(status: int | None, told: str, bench: Bench) -> None:
    bench.start()
    bench.process.ended(status)
    assert bench.told == ["up", told]


def test_one_that_does_not_start_is_told_once(bench: Bench) -> None:
    bench.process.fails = "watchers: circusd did not start: address in use"
    bench.start()
    assert bench.told == [bench.process.fails]
    assert bench.process.ended is None
    bench.circusd.close()
    assert bench.process.done[-1] == ("stop", 3.0)


def test_without_a_thread_left_it_is_an_error_of_the_host(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(HostError, match="can't start new thread"):
        bench.start()
    bench.circusd.close()  # which waits for no thread that has never begun
    assert bench.process.done == ["start", ("stop", 3.0)]
