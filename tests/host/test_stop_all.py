# In which order a host's plugins stop and what each has of the time, with plugins and a clock of
# the test's own.

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from circusplug import HostOptions
from circusplug._host import stop_all as stop_all_module
from circusplug._host.stop_all import stop_all

DEADLINE = 1010.0


class Bench:
    def __init__(self) -> None:
        self.now = 1000.0
        self.done: list[str] = []

    def plugin(
        self,
        name: str,
        *,
        state: str = "running",
        takes: float = 0.0,
        grace: float = 5.0,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> Any:
        def begin_stop(deadline: float) -> bool:
            assert deadline == DEADLINE
            self.done.append(f"begin {name}")
            return state == "running"

        def finish_stop() -> None:
            self.now += takes
            self.done.append(f"finish {name}")
            meanwhile()

        return SimpleNamespace(
            spec=SimpleNamespace(host=HostOptions(graceful_timeout=grace)),
            state=state,
            begin_stop=begin_stop,
            finish_stop=finish_stop,
            stop=lambda: self.done.append(f"stop {name}"),
        )


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench()
    monkeypatch.setattr(stop_all_module, "time", SimpleNamespace(monotonic=lambda: bench.now))
    return bench


def test_each_stops_after_the_ones_that_have_started_later(bench: Bench) -> None:
    states = {"a": "running", "failed": "failed", "b": "running", "c": "backoff"}
    stop_all([bench.plugin(name, state=state) for name, state in states.items()], DEADLINE)
    assert bench.done == [
        *("begin c", "stop c"),  # which ends its attempts
        *("begin b", "finish b"),
        "begin failed",  # and it stays failed
        *("begin a", "finish a"),
    ]


@pytest.mark.parametrize(
    ("takes", "grace", "overruns"),
    [
        (4.9, 5.0, False),
        (5.0, 5.0, True),
        (10.0, 600.0, True),
        (0.2, 0.0, False),
        (0.25, 0.0, True),
    ],
)
def test_once_one_has_used_up_its_time_the_others_are_told_to_stop_at_once(
    bench: Bench, takes: float, grace: float, overruns: bool
) -> None:
    plugins = [bench.plugin("a"), bench.plugin("b"), bench.plugin("c", takes=takes, grace=grace)]
    stop_all(plugins, DEADLINE)
    hurry = ["begin a", "begin b"] if overruns else []
    later = ["begin b", "finish b", "begin a", "finish a"]
    assert bench.done == ["begin c", "finish c", *hurry, *later]


def test_they_are_told_so_once(bench: Bench) -> None:
    stop_all([bench.plugin(name, takes=5.0) for name in "abc"], DEADLINE)
    assert bench.done[2:4] == ["begin a", "begin b"]
    assert bench.done.count("begin a") == 2


def test_an_interrupt_is_told_of_when_all_have_stopped(bench: Bench) -> None:
    interrupts = [KeyboardInterrupt("in b")]

    def interrupt() -> None:
        if interrupts:
            raise interrupts.pop()

    plugins = [bench.plugin("a"), bench.plugin("b", meanwhile=interrupt), bench.plugin("c")]
    with pytest.raises(KeyboardInterrupt, match="in b"):
        stop_all(plugins, DEADLINE)
    assert bench.done[2:] == ["begin b", "finish b", "finish b", "begin a", "finish a"]


def test_a_second_interrupt_gets_through(bench: Bench) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_all([bench.plugin("a"), bench.plugin("b", meanwhile=interrupt)], DEADLINE)
    assert bench.done == ["begin b", "finish b", "finish b"]
