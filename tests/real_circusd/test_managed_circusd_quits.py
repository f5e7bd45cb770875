# How a managed circusd quits, when it is asked once, twice or at a bad moment; and how its end is
# told.

from __future__ import annotations

import logging
import os
import queue
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from circusd_bench import (
    IDLE,
    STUBBORN,
    WITH_DETACHED,
    WITH_GRANDCHILD,
    Bench,
    running,
)
from patience import PATIENCE

from circusplug._circusd.circusd_main import OrderlyLogger

pytestmark = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="the promise needs Linux's child subreaper"
)

#: A log stream that gets SIGTERM in the middle of a write, which cannot be interrupted.
NAGGED = """
import io, os, signal

class Raw(io.RawIOBase):
    def writable(self):
        return True

    def write(self, data):
        if b"now waiting for commands" in bytes(data):
            signal.raise_signal(signal.SIGTERM)
        return os.write(2, data)

stream = io.TextIOWrapper(io.BufferedWriter(Raw()))
"""

#: SIGTERM once Python is about to end, and has given the signals back that circusd took.
NAGGED_AT_THE_END = """
import atexit, signal, sys

atexit.register(signal.raise_signal, signal.SIGTERM)
stream = sys.stderr
"""

#: What ends circusd's loop with an error, of which Circus makes exit status 0.
CRASHING = """
import sys
from circus.arbiter import Arbiter

start_io_loop = Arbiter.start_io_loop

def crash(self):
    start_io_loop(self)
    raise RuntimeError("out of order")

Arbiter.start_io_loop = crash
stream = sys.stderr
"""


def test_processes_that_hide_from_circusd_end_with_it(bench: Bench) -> None:
    with running(bench.ini(WITH_GRANDCHILD, WITH_DETACHED)) as circusd:
        bench.wait_started()
        assert circusd.stop() == 0
        bench.wait_all_gone()


def test_what_ignores_the_request_to_stop_is_killed_when_the_time_is_up(bench: Bench) -> None:
    with running(bench.ini(STUBBORN)) as circusd:
        bench.wait_started()
        assert circusd.stop(timeout=0.3) == -signal.SIGKILL
        bench.wait_all_gone()


def test_it_quits_cleanly_even_if_asked_while_it_starts_its_watchers(bench: Bench) -> None:
    # circusd drops a SIGTERM that comes while it waits between two watchers' starts.
    with running(bench.ini(IDLE, IDLE, warmup_delay=1)) as circusd:
        bench.wait_started(only="w0")
        assert circusd.stop() == 0
        bench.wait_all_gone()


def test_a_second_request_at_the_very_end_does_not_kill_circusd(
    bench: Bench, nagged: Callable[[str], Path]
) -> None:
    with running(bench.ini(IDLE, loggerconfig=nagged(NAGGED_AT_THE_END))) as circusd:
        bench.wait_started()
        assert circusd.stop() == 0


def test_a_signal_while_circusd_logs_is_logged_after_that(
    bench: Bench, nagged: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    with running(bench.ini(IDLE, loggerconfig=nagged(NAGGED))) as circusd:
        bench.wait_started()
        assert circusd.stop() == 0
    said = capfd.readouterr().err
    assert "Arbiter now waiting for commands\nGot signal SIG_TERM\n" in said
    assert "Traceback" not in said


def test_circusd_goes_on_logging_after_a_handler_that_has_failed() -> None:
    class Fragile(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())
            if len(seen) == 1:
                raise ZeroDivisionError

    seen: list[str] = []
    logger = OrderlyLogger("orderly")
    logger.addHandler(Fragile())
    with pytest.raises(ZeroDivisionError):
        logger.error("first")
    logger.error("second")
    assert seen == ["first", "second"]


def test_a_circusd_that_crashes_has_not_quit(bench: Bench, nagged: Callable[[str], Path]) -> None:
    exits: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    with running(bench.ini(IDLE, loggerconfig=nagged(CRASHING))) as circusd:
        circusd.on_exit(exits.put)
        bench.wait_started()
        os.kill(circusd.guard_pid or 0, signal.SIGTERM)
        assert exits.get(timeout=PATIENCE) == 1
        assert not circusd.has_quit


@pytest.mark.parametrize("victim", ["guard_pid", "pid"])
def test_the_callback_learns_how_circusd_ended(bench: Bench, victim: str) -> None:
    # A SIGTERM to the guard is a request to stop, passed on for as long as it takes.
    signum, status = {
        "guard_pid": (signal.SIGTERM, 0),
        "pid": (signal.SIGKILL, -signal.SIGKILL),
    }[victim]
    exits: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    with running(bench.ini(IDLE)) as circusd:
        circusd.on_exit(exits.put)
        bench.wait_started()
        os.kill(getattr(circusd, victim), signum)
        assert exits.get(timeout=PATIENCE) == status
        circusd.on_exit(exits.put)
        assert exits.get_nowait() == status
        assert circusd.stop() == status
        assert circusd.has_quit is (status == 0)
