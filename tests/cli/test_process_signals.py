# Signals to a process that hosts nothing any more.

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from patience import PATIENCE

from circusplug import HostError
from circusplug._cli import container_init, process_signals
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


def test_one_that_stops_the_host_before_it_has_begun_ends_the_process_with_its_number() -> None:
    stopped = threading.Event()
    arbiter: Any = SimpleNamespace(stop=stopped.set)

    def interrupted() -> None:
        with signals_of_process(arbiter) as signals, signals.host_has_it():
            signal.raise_signal(signal.SIGTERM)
            raise HostError("the host was stopped before it began")

    with pytest.raises(SystemExit, match="143"):
        interrupted()
    assert stopped.wait(PATIENCE)


def test_a_failure_that_no_signal_has_brought_about_stays_one() -> None:
    arbiter: Any = SimpleNamespace()
    with (
        pytest.raises(HostError, match="fell over"),
        signals_of_process(arbiter) as signals,
        signals.host_has_it(),
    ):
        raise HostError("fell over")


def test_sigusr1_has_the_log_opened_anew_and_others_do_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = threading.Event()
    monkeypatch.setattr(process_signals._logs, "reopen", opened.set)
    with signals_of_process(SimpleNamespace()):  # type: ignore[arg-type]
        for number in (signal.SIGHUP, signal.SIGUSR2):
            signal.raise_signal(number)
        assert not opened.is_set()
        signal.raise_signal(signal.SIGUSR1)
        assert opened.wait(PATIENCE)


def test_process_1_passes_on_what_the_command_takes() -> None:
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    with signals_of_process(SimpleNamespace()):  # type: ignore[arg-type]
        taken = {number for number in before if signal.getsignal(number) != before[number]}
    assert taken == container_init._FORWARDED
