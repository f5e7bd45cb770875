# Signals to a process that hosts nothing any more.

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from patience import PATIENCE

from circusplug._cli.process_signals import signals_of_process
from circusplug._signals import give_back_signal


@pytest.fixture(autouse=True)
def handlers_as_before() -> Iterator[None]:
    names = ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2")
    numbers = [signal.Signals[f"SIG{name}"] for name in names]
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        give_back_signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_comes_before_there_is_a_host_ends_the_process(number: int) -> None:
    arbiter: Any = SimpleNamespace()
    with pytest.raises(SystemExit, match=str(128 + number)), signals_of_process(arbiter):
        signal.raise_signal(number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_comes_after_a_clean_end_changes_nothing(number: int) -> None:
    stopped = threading.Event()
    arbiter: Any = SimpleNamespace(stop=stopped.set)
    with signals_of_process(arbiter):
        pass
    signal.raise_signal(number)
    assert stopped.wait(PATIENCE)  # which it is already
