# While one plugin gets ready, the process of the next one, if that is isolated, is made already;
# it waits for its turn before it runs anything of the plugin's. A FIFO as its standard output
# shows when it is there, all that the plugin does, and when it is gone.

from __future__ import annotations

import contextlib
import multiprocessing.forkserver
import os
import select
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from circusd_real import free_endpoints
from command import PATIENT, Running, write_ini
from command import plugin as section
from hosts import PATIENCE

from circusplug import Arbiter, CircusPlugin
from circusplug.testing import FakeCircusd

_SECOND = """
import os
from circusplug import CircusPlugin

print("imported", flush=True)

class Second(CircusPlugin):
    def handle_init(self):
        print("init", flush=True)
    def handle_recv(self, data):
        pass
    def handle_stop(self):
        print("stop", flush=True)
"""


class First(CircusPlugin):
    """Gets ready once the next plugin's process is there, and after its option `act`."""

    def handle_init(self) -> None:
        self.config["open"]()
        self.config["act"](self)

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        pass


class Silent(CircusPlugin):
    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        pass


class Ahead:
    """A host of a plugin on a thread and an isolated one after it, which is made ahead."""

    def __init__(self, circusd: FakeCircusd, directory: Path, monkeypatch: Any) -> None:
        (directory / "second.py").write_text(_SECOND)
        monkeypatch.syspath_prepend(directory)
        self.path = directory / "fifo"
        os.mkfifo(self.path)
        self._circusd = circusd

    def arbiter(self, act: Callable[[CircusPlugin], object]) -> Arbiter:
        """A host whose first plugin does `act` when the second one's process is there."""
        plugins: list[dict[str, Any]] = [
            {"use": First, "name": "first", "open": self.open, "act": act},
            {
                "use": "second.Second",
                "name": "second",
                "isolate": True,
                "host.stdout": str(self.path),
                "host.python_path": str(self.path.parent),
            },
        ]
        return Arbiter(plugins, self._circusd.endpoint, self._circusd.pubsub_endpoint)

    def open(self) -> None:
        """Wait until the process has its standard output, which is the last but its turn."""
        self.output = open(self.path)  # noqa: SIM115 - closed by `read`

    def read(self) -> str:
        """What it printed until its end."""
        with self.output:
            return self.output.read()

    def pid(self) -> int:
        """The process that was made ahead."""
        server = multiprocessing.forkserver._forkserver  # type: ignore[attr-defined]
        (child,) = psutil.Process(server._forkserver_pid).children()
        return child.pid


@pytest.fixture
def ahead(
    fake_circusd: FakeCircusd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unhurried: None
) -> Ahead:
    return Ahead(fake_circusd, tmp_path, monkeypatch)


def test_the_next_ones_process_is_there_while_one_gets_ready_and_waits_for_its_turn(
    ahead: Ahead, fake_circusd: FakeCircusd, caplog: pytest.LogCaptureFixture
) -> None:
    early: list[Any] = []

    def look(first: CircusPlugin) -> None:
        for _ in range(20):  # longer than an import takes, if it did not wait for its turn
            first.call("list")
        early.extend(select.select([ahead.output], [], [], 0.0)[0])

    with ahead.arbiter(look) as arbiter:
        arbiter.wait(lambda now: now["second"].state == "running", PATIENCE)
    assert early == []
    assert ahead.read() == "imported\ninit\nstop\n"
    assert "slow to start" not in caplog.text


def test_a_stop_meanwhile_ends_it_before_it_has_begun(ahead: Ahead) -> None:
    arbiter = ahead.arbiter(lambda _: arbiter.stop())
    arbiter.start()
    assert ahead.read() == ""
    assert arbiter.plugins["second"].state == "stopped"


@pytest.mark.parametrize("what", ["stop_plugin", "remove_plugin"])
def test_one_that_is_stopped_or_removed_meanwhile_ends_before_it_has_begun(
    what: str, ahead: Ahead
) -> None:
    arbiter = ahead.arbiter(lambda _: getattr(arbiter, what)("second"))
    with arbiter:
        assert ahead.read() == ""
        assert arbiter.plugins["first"].state == "running"
    assert "second" not in arbiter.plugins or arbiter.plugins["second"].state == "stopped"


def test_one_that_is_started_meanwhile_is_started_once(ahead: Ahead) -> None:
    arbiter = ahead.arbiter(lambda _: arbiter.start_plugin("second"))
    with arbiter:
        arbiter.wait(lambda now: now["second"].state == "running", PATIENCE)
    assert ahead.read() == "imported\ninit\nstop\n"


def test_one_that_dies_before_its_turn_is_replaced(
    ahead: Ahead, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.ExitStack() as stack:

        def kill(first: CircusPlugin) -> None:
            os.kill(ahead.pid(), signal.SIGKILL)
            assert ahead.read() == ""
            assert arbiter._engine is not None
            dead = arbiter._engine.supervisor._slots["second"].prepared
            assert dead is not None
            assert dead.wait_ready(PATIENCE)  # the host has heard of it
            # The next one has to find somebody who would read.
            stack.callback(os.close, os.open(ahead.path, os.O_RDWR))

        arbiter = ahead.arbiter(kill)
        with arbiter:
            after = arbiter.wait(lambda now: now["second"].state == "running", PATIENCE)
            assert (after["second"].counters.restarts, after["second"].last_error) == (0, None)
            assert after["first"].state == "running"
    assert "failed" not in caplog.text


def test_a_host_that_is_killed_takes_it_along(fake_circusd: FakeCircusd, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    path = write_ini(
        tmp_path,
        fake_circusd.endpoint,
        fake_circusd.pubsub_endpoint,
        section("first", "tellers.Hangs"),
        section("second", isolate="true", host_stdout=fifo),
    )
    with Running(tmp_path, "run", path, program=PATIENT) as host:
        with fifo.open() as output:
            host.signal(signal.SIGKILL)
            assert output.read() == ""
        host.wait_silent()


def test_only_the_first_one_waits_for_a_circusd_that_is_not_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plugins = [{"use": Silent, "name": name, "isolate": True} for name in ("one", "two", "three")]
    with Arbiter(plugins, *free_endpoints(2)) as arbiter:
        arbiter.wait(lambda now: all(each.state == "running" for each in now.values()), PATIENCE)
    assert caplog.text.count("no circusd at") == 1
