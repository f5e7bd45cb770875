# circusd's guard with a stand-in for circusd, which needs no circus.

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from patience import PATIENCE

from circusplug._circusd import guard_main
from circusplug._circusd.guard_main import Guard


def test_a_second_request_gives_circusd_less_time_and_never_more() -> None:
    guard = Guard(0, 10.0, os.getpid(), -1, -1, -1, subreaper=True)
    guard._stop_within(10.0)
    soon = guard._deadline
    guard._stop_within(100.0)
    assert guard._deadline == soon
    guard._stop_within(1.0)
    assert guard._deadline is not None
    assert soon is not None
    assert guard._deadline < soon


def test_a_host_that_has_died_before_the_guard_looks_is_noticed(tmp_path: Path) -> None:
    """Even if something else, such as what a plugin forked, holds the host's pipe open."""
    circusd = tmp_path / "circusd.py"
    circusd.write_text("import signal\nsignal.pause()\n")
    with subprocess.Popen(["true"]) as host:
        pass
    control, held_open = os.pipe()
    report, theirs = os.pipe()
    numbers = map(str, (PATIENCE, host.pid, control, theirs, 0.0))
    with open(report) as told, open(held_open, "wb"):
        guard = subprocess.Popen(
            [sys.executable, guard_main.__file__, circusd, "circus.ini", *numbers],
            pass_fds=(control, theirs),
        )
        os.close(control)
        os.close(theirs)
        try:
            assert guard.wait(PATIENCE) == 128 + signal.SIGTERM
            assert told.read() == f"exit {-signal.SIGTERM}\n"
        finally:
            guard.terminate()
            guard.wait()


def test_a_circusd_that_hangs_without_its_guard_ends_with_all_that_it_has_started() -> None:
    program = (
        "import subprocess, sys, time\n"
        "from circusplug._circusd.circusd_main import GuardWatch\n"
        "subprocess.Popen(['sleep', '100'])\n"
        "GuardWatch(int(sys.argv[1]), 0.0, lambda: None)\n"
        "time.sleep(100)\n"
    )
    life, guard = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", program, str(life)], pass_fds=[life], stdout=subprocess.PIPE
    ) as circusd:
        os.close(life)
        os.close(guard)
        circusd.communicate(timeout=PATIENCE)  # to the end of all that could print
    assert circusd.returncode == 1
