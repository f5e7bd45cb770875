# The order in which plugins start, with plugins and a clock of the test's own.

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from circusplug import PluginSpec
from circusplug._host import start_queue
from circusplug._host.start_queue import IMPORT_WAIT, StartQueue


class Waiting:
    """What the queue knows of a plugin."""

    def __init__(self, bench: Bench, name: str, isolate: bool = False) -> None:
        self.spec = PluginSpec(name, "m.A", isolate=isolate)
        self.state = "starting"
        self.awaits_launch = True
        self.begun = False
        self.launched_at = 0.0
        self._bench = bench

    def launch(self) -> None:
        self.awaits_launch = False
        self.launched_at = self._bench.now
        self._bench.launched.append(self.spec.name)


class Bench:
    def __init__(self) -> None:
        self.now = 1000.0
        self.launched: list[str] = []
        self.queue = StartQueue()

    def add(self, *names: str, isolate: bool = False) -> list[Any]:
        plugins: list[Any] = [Waiting(self, name, isolate) for name in names]
        for plugin in plugins:
            self.queue.add(plugin)
        return plugins

    def after(self) -> list[str]:
        """What is launched now."""
        self.launched.clear()
        self.queue.advance()
        return self.launched[:]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench()
    monkeypatch.setattr(start_queue, "time", SimpleNamespace(monotonic=lambda: bench.now))
    return bench


@pytest.mark.parametrize("end", ["begins", "fails", "is to start again"])
def test_one_on_a_thread_starts_when_nobody_is_on_the_way_any_more(bench: Bench, end: str) -> None:
    a, _b, _c = bench.add("a", "b", "c")
    assert bench.after() == ["a"]
    assert bench.after() == []
    a.begun = end == "begins"
    a.state = "backoff" if end == "fails" else "starting"
    a.awaits_launch = end == "is to start again"
    assert bench.after() == ["b"]


def test_one_that_was_stopped_meanwhile_is_passed_over(bench: Bench) -> None:
    a, b, _c = bench.add("a", "b", "c")
    b.awaits_launch = False
    bench.after()
    a.begun = True
    assert bench.after() == ["c"]
    assert bench.queue.next_timer() is None


def test_one_that_is_slow_to_load_keeps_the_next_waiting_for_a_while(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.add("slow", "b")
    assert bench.queue.next_timer() is None
    bench.after()
    due = bench.queue.next_timer()
    assert due == bench.now + IMPORT_WAIT
    bench.now = due - 0.01
    assert bench.after() == []
    bench.now = due
    assert bench.after() == ["b"]
    assert caplog.messages == ["slow is slow to load; not waiting for it"]
    assert bench.queue.next_timer() is None


def test_a_few_isolated_ones_start_at_a_time_and_one_on_a_thread_after_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_queue, "_ISOLATED_AT_ONCE", 3)
    isolated = bench.add("a", "b", "c", "d", isolate=True)
    bench.add("thread")
    bench.add("e", isolate=True)
    assert bench.after() == ["a", "b", "c"]
    isolated[1].begun = True
    assert bench.after() == ["d"]
    for plugin in isolated:
        plugin.begun = True
    assert bench.after() == ["thread"]  # and nobody beside it
    assert bench.after() == []
