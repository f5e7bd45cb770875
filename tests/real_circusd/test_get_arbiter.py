# Circus's own `get_arbiter` under its own name, in programs of their own and in this one. The
# processes of the watchers hold a FIFO open: its end says that every last one is gone.

from __future__ import annotations

import contextlib
import os
import signal
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from circusd_real import free_endpoints
from command import Fifo, Running, environment, holder
from members import Journal, Member

from circusplug import get_arbiter
from circusplug._host.get_arbiter import BackgroundArbiter

pytestmark = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="the promise needs Linux's child subreaper"
)


@pytest.fixture
def circus_ends(ends: dict[str, Any]) -> dict[str, Any]:
    """The same under Circus's names."""
    return {
        "controller": ends["endpoint"],
        "pubsub_endpoint": ends["pubsub_endpoint"],
        "multicast_endpoint": "",
        "check_delay": 0.2,
    }


#: A program of a user's; its arguments are circusd's two endpoints.
PROGRAM = """
import sys
{imports}

if __name__ == "__main__":
    watchers = [{{"cmd": "sh", "args": ["-c", {script!r}], "graceful_timeout": 5}}]
    controller, pubsub = sys.argv[1:]
    arbiter = get_arbiter(watchers, controller, pubsub, multicast_endpoint="")
    try:
        arbiter.start()
    finally:
        arbiter.stop()
    print("over", flush=True)
"""


@pytest.fixture
def program(
    tmp_path: Path, fifo: Fifo
) -> Callable[..., contextlib.AbstractContextManager[Running]]:
    """Runs `PROGRAM` with a watcher that holds the FIFO."""

    def run(imports: str, text: str = PROGRAM) -> Running:
        script = f"exec 3>{fifo.path}; echo up >&3; exec sleep 120"
        path = tmp_path / "program.py"
        path.write_text(textwrap.dedent(text).format(imports=imports, script=script))
        return Running(
            tmp_path, *free_endpoints(2), program=[sys.executable, str(path)],
            env=environment(PYTHONWARNINGS=""),
        )  # fmt: skip

    return run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_program_for_circus_changes_one_line(
    program: Any, fifo: Fifo, number: signal.Signals
) -> None:
    with program("from circusplug import get_arbiter") as running:
        fifo.wait_held()
        running.signal(number)
        running.wait_for("over")
        assert running.end() == 0
        assert "Traceback" not in running.output
    fifo.wait_unheld()


def test_sighup_reloads_the_watchers_as_in_circus(program: Any, fifo: Fifo) -> None:
    with program("from circusplug import get_arbiter") as running:
        fifo.wait_held()
        running.signal(signal.SIGHUP)
        fifo.wait_held()
        running.signal(signal.SIGTERM)
        assert running.end() == 0
    fifo.wait_unheld()


def test_a_killed_program_takes_circusd_and_the_watchers_along(program: Any, fifo: Fifo) -> None:
    with program("from circusplug import get_arbiter") as running:
        fifo.wait_held()
        running.signal(signal.SIGKILL)
        assert running.end() == -signal.SIGKILL
        running.wait_silent()
    fifo.wait_unheld()


BACKGROUND = """
import sys
{imports}

if __name__ == "__main__":
    watchers = [{{"cmd": "sh", "args": ["-c", {script!r}], "graceful_timeout": 5}}]
    controller, pubsub = sys.argv[1:]
    arbiter = get_arbiter(watchers, controller, pubsub, multicast_endpoint="", background=True)
    arbiter.start()
    print("started", arbiter.client.call("list")["watchers"], flush=True)
"""


def test_in_the_background_it_keeps_the_program_from_ending(program: Any, fifo: Fifo) -> None:
    with program("from circusplug import get_arbiter", BACKGROUND) as running:
        running.wait_for("started ['sh']")
        fifo.wait_held()
        (guard,) = psutil.Process(running.pid).children()
        guard.send_signal(signal.SIGTERM)  # which has circusd quit, however busy that is
        assert running.end() == 0
    fifo.wait_unheld()


def test_get_arbiter_in_the_background_returns_when_all_is_there(
    fifo: Fifo, circus_ends: dict[str, Any], journal: Journal
) -> None:
    plugins = [{"use": Member, "name": "one", "journal": journal}]
    arbiter = get_arbiter([holder(fifo)], plugins=plugins, background=True, **circus_ends)
    assert isinstance(arbiter, BackgroundArbiter)
    assert not arbiter.is_alive()
    config = arbiter.config
    assert config.endpoint == circus_ends["controller"]
    assert config.pubsub_endpoint == circus_ends["pubsub_endpoint"]
    arbiter.start()
    try:
        assert arbiter.is_alive()
        assert arbiter.plugins["one"].state == "running"
        assert arbiter.client.call("list")["watchers"] == ["holds"]
        arbiter.join(0)
        assert arbiter.is_alive()
    finally:
        arbiter.stop()
    arbiter.join()
    assert not arbiter.is_alive()
    fifo.wait_unheld()


def test_get_arbiter_s_defaults_are_circus_s_own() -> None:
    from circus.util import DEFAULT_ENDPOINT_DEALER, DEFAULT_ENDPOINT_SUB

    arbiter = get_arbiter([])
    assert not isinstance(arbiter, BackgroundArbiter)
    config = arbiter.config
    assert (config.endpoint, config.pubsub_endpoint) == (
        DEFAULT_ENDPOINT_DEALER,
        DEFAULT_ENDPOINT_SUB,
    )
    assert config.check_delay == 1.0


def test_get_arbiter_takes_the_arguments_of_circus_s_own() -> None:
    import inspect

    import circus
    import circus.arbiter

    ours = inspect.signature(get_arbiter).parameters
    theirs = inspect.signature(type(circus.get_arbiter).__call__).parameters
    names = list(theirs)[1:-1]
    assert list(ours)[:-1] == names
    for name in names:
        assert ours[name].default == theirs[name].default, name
