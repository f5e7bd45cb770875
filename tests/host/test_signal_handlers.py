# Signals inside this process: who handles them for how long, what a second Ctrl-C means, and who is
# told of those that plugins ask for. (test_signals.py has them in processes of their own.)

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from members import in_thread
from patience import PATIENCE, wait_while

from circusplug import _signals
from circusplug._host import signals
from circusplug._host.signals import HostSignals
from circusplug._signals import Relay, SecondInterrupt, give_back_signal, handling, is_free

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGWINCH)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def wakeup() -> Iterator[int]:
    """A descriptor for signals."""
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        yield here.fileno()


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The statuses that the process was ended with, which goes on."""
    found: list[int] = []
    monkeypatch.setattr(_signals.os, "_exit", found.append)
    return found


def test_handlers_and_wakeup_are_put_back_whatever_happens(wakeup: int) -> None:
    before = [signal.getsignal(number) for number in NUMBERS]
    others = signal.set_wakeup_fd(wakeup)
    other, there = socket.socketpair()
    other.setblocking(False)
    try:
        installed = HostSignals(lambda: None, lambda: None).installed(other.fileno())
        with other, there, contextlib.suppress(ZeroDivisionError), installed:
            assert [signal.getsignal(number) for number in NUMBERS] != before
            raise ZeroDivisionError
        assert signal.set_wakeup_fd(others) == wakeup
    finally:
        signal.set_wakeup_fd(others)
    assert [signal.getsignal(number) for number in NUMBERS] == before


def test_beside_the_main_thread_signals_are_somebody_else_s(wakeup: int) -> None:
    before = [signal.getsignal(number) for number in NUMBERS]

    def host() -> None:
        with HostSignals(lambda: None, lambda: None).installed(wakeup):
            assert [signal.getsignal(number) for number in NUMBERS] == before

    in_thread(host)


@pytest.mark.parametrize(
    ("terminal", "number", "told"),
    [
        ((True, True), signal.SIGHUP, ["reload"]),
        ((False, False), signal.SIGHUP, ["reload"]),
        ((False, True), signal.SIGHUP, ["reload"]),
        ((True, False), signal.SIGHUP, ["stop"]),
        ((True, True), signal.SIGINT, ["stop"]),
        ((True, True), signal.SIGTERM, ["stop"]),
    ],
)
def test_a_signal_stops_the_host_or_reloads_it(
    wakeup: int,
    terminal: tuple[bool, bool],
    number: signal.Signals,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[str] = []
    at_first, then = terminal
    there_is = iter([at_first, then])
    monkeypatch.setattr(signals, "_has_terminal", lambda: next(there_is))
    host = HostSignals(lambda: found.append("stop"), lambda: found.append("reload"))
    with host.installed(wakeup):
        signal.raise_signal(number)
    assert found == told


def test_a_flood_of_signals_is_nothing_to_complain_of(
    wakeup: int, capfd: pytest.CaptureFixture[str]
) -> None:
    found: list[str] = []
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(wakeup, b"x" * 4096)
    with HostSignals(lambda: found.append("stop"), lambda: None).installed(wakeup):
        signal.raise_signal(signal.SIGTERM)
    assert found == ["stop"]
    assert capfd.readouterr().err == ""


def test_only_a_second_interrupt_ends_the_process(
    wakeup: int, ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_signals, "_SAME_SIGNAL", -1.0)
    monkeypatch.setattr(_signals.os, "write", lambda *_: None)
    with HostSignals(lambda: None, lambda: None).installed(wakeup):
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.raise_signal(number)
        assert ended == []
        signal.raise_signal(signal.SIGINT)
        assert ended == [130]


def test_two_interrupts_at_one_moment_are_one_and_the_next_counts_from_the_first(
    ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[int, bytes]] = []
    moments = iter([100.0, 100.15, 100.25])
    monkeypatch.setattr(_signals, "time", SimpleNamespace(monotonic=lambda: next(moments)))
    monkeypatch.setattr(_signals.os, "write", lambda *what: written.append(what))
    interrupt = SecondInterrupt()
    interrupt()
    interrupt()
    assert ended == []
    interrupt()
    assert ended == [130]
    assert written == [(2, b"interrupted twice: ending at once\n")]


def test_the_end_at_a_second_interrupt_does_not_wait_for_who_reads_no_errors(
    ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[object] = []
    monkeypatch.setattr(_signals, "_SAME_SIGNAL", -1.0)
    monkeypatch.setattr(_signals, "select", SimpleNamespace(select=lambda *_: ([], [], [])))
    monkeypatch.setattr(_signals.os, "write", lambda *what: written.append(what))
    interrupt = SecondInterrupt()
    interrupt()
    interrupt()
    assert (ended, written) == ([130], [])


def test_handlers_for_a_block_are_put_back_even_one_that_is_not_python_s() -> None:
    before = signal.getsignal(signal.SIGUSR2)
    told: list[int] = []
    handlers = {signal.SIGUSR2: lambda number, _: told.append(number)}
    with contextlib.suppress(ZeroDivisionError), handling(handlers):
        signal.raise_signal(signal.SIGUSR2)
        assert signal.SIGUSR2 in _signals._taken
        raise ZeroDivisionError
    assert told == [signal.SIGUSR2]
    assert signal.getsignal(signal.SIGUSR2) == before
    assert signal.SIGUSR2 not in _signals._taken
    give_back_signal(signal.SIGUSR2, None)
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL


def test_a_signal_is_free_while_nobody_has_said_anything() -> None:
    for handler, free in (
        (signal.SIG_DFL, True),
        (signal.default_int_handler, True),
        (signal.SIG_IGN, False),
        (_signals.ignore, False),
    ):
        signal.signal(signal.SIGUSR2, handler)
        assert is_free(signal.SIGUSR2) is free


@pytest.fixture
def told() -> list[str]:
    return []


def note(told: list[str], what: str) -> Callable[[], object]:
    return lambda: told.append(what)


def test_each_who_asks_for_a_signal_is_told_of_it_until_it_wants_no_more(told: list[str]) -> None:
    relay = Relay()
    a, b = object(), object()
    before = signal.getsignal(signal.SIGUSR2)
    with relay.served(relay.install):
        relay.add(signal.SIGUSR2, a, note(told, "a"))
        relay.add(signal.SIGUSR2, b, note(told, "b"))
        relay.add(signal.SIGWINCH, b, note(told, "b too"))
        signal.raise_signal(signal.SIGUSR2)
        assert told == ["a", "b"]
        relay.add(signal.SIGUSR2, a, note(told, "a now"))  # in place of what it said before
        assert relay.remove(signal.SIGUSR2, b)
        assert not relay.remove(signal.SIGUSR2, b)
        assert not relay.remove(signal.SIGWINCH, a)
        assert not relay.remove(signal.SIGUSR1, a)
        told.clear()
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGWINCH)
        assert told == ["a now", "b too"]
        relay.forget(a)
        relay.forget(b)
        told.clear()
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGWINCH)
    assert told == []
    # Though two have asked for it.
    assert signal.getsignal(signal.SIGUSR2) == before


def test_one_who_is_told_may_want_no_more_at_once(told: list[str]) -> None:
    relay = Relay()
    whose = [object(), object()]
    with relay.served(relay.install):
        for each in whose:
            relay.add(signal.SIGUSR2, each, lambda: [told.append("x"), *map(relay.forget, whose)])
        signal.raise_signal(signal.SIGUSR2)
    assert told == ["x", "x"]


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "QUIT", "USR1", "ALRM"])
def test_the_host_s_own_signals_are_refused(name: str) -> None:
    relay = Relay()
    with (
        relay.served(relay.install),
        pytest.raises(RuntimeError, match=f"^SIG{name} is the host's; what a plugin does at a sto"),
    ):
        relay.add(signal.Signals[f"SIG{name}"], relay, lambda: None)


def test_when_the_host_has_ended_nobody_hands_signals_on() -> None:
    relay = Relay()
    with pytest.raises(ZeroDivisionError), relay.served(relay.install):
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="nobody hands SIGUSR2 on here, as no host runs"):
        relay.add(signal.SIGUSR2, relay, lambda: None)
    assert not relay.remove(signal.SIGUSR2, relay)


def test_who_asks_on_its_thread_goes_on_when_the_handler_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_signals, "_INSTALL_WAIT", 10 * PATIENCE)
    asked: list[int] = []
    ask = threading.Semaphore(0)

    def take(number: int) -> None:
        asked.append(number)
        ask.release()

    relay = Relay()
    with relay.served(take):
        asking = threading.Thread(
            target=lambda: relay.add(signal.SIGUSR2, relay, lambda: None), daemon=True
        )
        asking.start()
        assert ask.acquire(timeout=PATIENCE)
        assert asking.is_alive()
        wait_while(lambda: not relay._lock._waiters)  # type: ignore[attr-defined]
        relay.install(signal.SIGUSR2)
        asking.join(PATIENCE)
        assert not asking.is_alive()
    assert asked == [signal.SIGUSR2]


def test_who_asks_waits_only_so_long_for_a_main_thread_that_is_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_signals, "_INSTALL_WAIT", 0.01)
    relay = Relay()
    taken: list[Any] = []
    with relay.served(taken.append):
        in_thread(lambda: relay.add(signal.SIGUSR2, relay, lambda: None))
    assert taken == [signal.SIGUSR2]
