# While one plugin gets ready, the process of the next one, if that is isolated, is made already;
# it waits for its turn, and nothing of the plugin's runs in it before.

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from circusd_real import free_endpoints
from command import PATIENT, Running, assert_ends, write_ini
from command import plugin as section
from hosts import all_run
from patience import PATIENCE

from circusplug import Arbiter, CircusPlugin
from circusplug.testing import FakeCircusd

_SECOND = """
from circusplug import CircusPlugin

print("imported", flush=True)

class Second(CircusPlugin):
    def handle_init(self):
        print("init", flush=True)
        self.logger.debug("a detail")
    def handle_recv(self, data):
        pass
    def handle_stop(self):
        print("stop", flush=True)
"""


class First(CircusPlugin):
    """Gets ready after its option `act`."""

    def handle_init(self) -> None:
        self.config["act"](self)

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        pass


class Silent(CircusPlugin):
    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        pass


Act = Callable[[CircusPlugin], object]


class Ahead:
    """A host of a plugin on a thread and an isolated one after it, which is made ahead.

    Attributes:
        output: What the second one prints goes there, once it has begun.
        made: The runner that was made ahead; known in `act`.
        pid: Its process; known in `act`.
    """

    def __init__(self, circusd: FakeCircusd, directory: Path) -> None:
        self.modules = directory / "modules"
        self.modules.mkdir()
        (self.modules / "second.py").write_text(_SECOND)
        self.output = directory / "output"
        self._circusd = circusd

    def host(self, act: Act = lambda first: None, **options: Any) -> Arbiter:
        """A host whose first plugin does `act` once the second one's process is there."""

        def act_then(first: CircusPlugin) -> None:
            self._wait_made()
            act(first)

        second = {
            "use": "second.Second",
            "name": "second",
            "isolate": True,
            "host.stdout": str(self.output),
            "host.python_path": str(self.modules),
        }
        self._host = Arbiter(
            [{"use": First, "name": "first", "act": act_then}, {**second, **options}],
            self._circusd.endpoint,
            self._circusd.pubsub_endpoint,
        )
        return self._host

    def second(self, supervisor: Any) -> Any:
        """Where the host keeps the second plugin."""
        return supervisor._slots["second"]

    def _wait_made(self) -> None:
        assert self._host._engine is not None
        slot = self.second(self._host._engine.supervisor)
        self._host.wait(lambda _: slot.prepared is not None, PATIENCE)
        self.made = slot.prepared
        assert self.made._started.wait(PATIENCE)
        self.pid = self.made.pid


@pytest.fixture
def ahead(fake_circusd: FakeCircusd, tmp_path: Path, unhurried: None) -> Ahead:
    return Ahead(fake_circusd, tmp_path)


def runs(host: Arbiter) -> Any:
    """Wait until the second plugin runs; returns its status."""
    return host.wait(lambda now: now["second"].state == "running", PATIENCE)["second"]


def test_the_next_ones_process_waits_for_its_turn_while_one_gets_ready(ahead: Ahead) -> None:
    early = []

    def look(first: CircusPlugin) -> None:
        for _ in range(20):  # longer than an import takes, if it did not wait for its turn
            first.call("list")
        early.append(ahead.output.exists())

    with ahead.host(look) as host:
        assert runs(host).pid == ahead.pid
    assert early == [False]
    assert ahead.output.read_text() == "imported\ninit\nstop\n"


def test_what_the_one_before_has_changed_holds_for_it(
    ahead: Ahead, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "circusplug")
    ahead.output.touch()
    rotated = ahead.output.with_suffix(".1")

    def change(first: CircusPlugin) -> None:
        ahead.output.rename(rotated)
        monkeypatch.syspath_prepend(ahead.modules)
        caplog.set_level(logging.DEBUG, "circusplug")

    options = {"host.python_path": str(ahead.output.parent), "host.restart": "never"}
    with ahead.host(change, **options) as host:
        assert runs(host).pid == ahead.pid
    assert ahead.output.read_text() == "imported\ninit\nstop\n"
    assert rotated.read_text() == ""
    assert "a detail" in caplog.text


def test_a_stop_meanwhile_ends_it_before_it_has_begun(
    ahead: Ahead, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(first: CircusPlugin) -> None:
        os.kill(ahead.pid, signal.SIGSTOP)  # it has nothing to say in it
        host.stop()

    host = ahead.host(stop)
    host.start()
    assert_ends(ahead.pid)
    assert not ahead.output.exists()
    assert host.plugins["second"].state == "stopped"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("what", ["stop_plugin", "remove_plugin"])
def test_one_that_is_stopped_or_removed_meanwhile_ends_before_it_has_begun(
    what: str, ahead: Ahead
) -> None:
    host = ahead.host(lambda _: getattr(host, what)("second"))
    with host:
        assert_ends(ahead.pid)
        assert host.plugins["first"].state == "running"
    assert not ahead.output.exists()
    assert "second" not in host.plugins or host.plugins["second"].state == "stopped"


def test_one_that_is_started_meanwhile_is_started_once(ahead: Ahead) -> None:
    host = ahead.host(lambda _: host.start_plugin("second"))
    with host:
        assert runs(host).pid == ahead.pid
    assert ahead.output.read_text() == "imported\ninit\nstop\n"


def test_one_that_dies_before_its_turn_is_replaced(
    ahead: Ahead, caplog: pytest.LogCaptureFixture
) -> None:
    def kill(first: CircusPlugin) -> None:
        os.kill(ahead.pid, signal.SIGKILL)
        assert ahead.made.wait_ready(PATIENCE)  # the host has heard of it

    with ahead.host(kill) as host:
        status = runs(host)
        assert status.pid != ahead.pid
        assert (status.counters.restarts, status.last_error) == (0, None)
    assert "failed" not in caplog.text


def test_one_that_is_to_park_as_soon_as_it_may_begin_ends(
    ahead: Ahead, monkeypatch: pytest.MonkeyPatch
) -> None:
    def freeze(first: CircusPlugin) -> None:
        os.kill(ahead.pid, signal.SIGSTOP)
        monkeypatch.setattr("circusplug._host.supervisor.ORDERED_WAIT", 0.05)

    with ahead.host(freeze) as host:
        assert host._engine is not None
        host._engine.order(lambda supervisor: ahead.second(supervisor).runner.park())
        os.kill(ahead.pid, signal.SIGCONT)
        now = host.wait(lambda now: now["second"].state != "starting", PATIENCE)
        assert (now["second"].state, now["second"].last_error) == ("stopped", None)
    assert not ahead.output.exists()


_MAIN = f"""
import sys
from circusplug import Arbiter, CircusPlugin
from circusplug._host import supervisor as _supervisor

_supervisor.ORDERED_WAIT = {PATIENCE}
print("imported", flush=True)

class First(CircusPlugin):
    def handle_init(self):
        for _ in range(1000):  # longer than a fork and an import take
            self.call("list")
        print("first", flush=True)
    def handle_recv(self, data):
        pass

class Second(First):
    def handle_init(self):
        print("second", flush=True)

if __name__ == "__main__":
    plugins = [{{"use": First, "name": "one"}}, {{"use": Second, "name": "two", "isolate": True}}]
    Arbiter(plugins, *sys.argv[1:]).start()
"""


def test_what_the_main_script_defines_is_not_made_ahead_as_that_imports_the_script(
    fake_circusd: FakeCircusd, tmp_path: Path
) -> None:
    (tmp_path / "main.py").write_text(_MAIN)
    endpoints = fake_circusd.endpoint, fake_circusd.pubsub_endpoint
    program = [sys.executable, str(tmp_path / "main.py")]
    with Running(tmp_path, *endpoints, program=program) as host:
        host.wait_for("second")
        host.signal(signal.SIGTERM)
        assert host.end() == 0
    assert [line.split()[-1] for line in host.lines] == ["imported", "first", "imported", "second"]


_TELLS = """
import threading
from multiprocessing.forkserver import _forkserver
from circusplug import CircusPlugin

class Tells(CircusPlugin):
    def handle_init(self):
        children = ""
        while not children:  # nobody is told that a process was forked
            pid = _forkserver._forkserver_pid
            with open(f"/proc/{pid}/task/{pid}/children") as file:
                children = file.read()
        print("made", children, flush=True)
        threading.Event().wait()
    def handle_recv(self, data):
        pass
"""


def test_a_host_that_is_killed_takes_it_along(fake_circusd: FakeCircusd, tmp_path: Path) -> None:
    (tmp_path / "tells.py").write_text(_TELLS)
    path = write_ini(
        tmp_path,
        fake_circusd.endpoint,
        fake_circusd.pubsub_endpoint,
        section("first", "tells.Tells"),
        section("second", isolate="true"),
    )
    with Running(tmp_path, "run", path, program=PATIENT) as host:
        pid = int(host.wait_for("made").split()[-1])
        host.signal(signal.SIGKILL)
        assert_ends(pid)
        host.wait_silent()
    assert "second: init" not in host.output


def test_only_the_first_one_waits_for_a_circusd_that_is_not_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plugins = [{"use": Silent, "name": name, "isolate": True} for name in ("one", "two", "three")]
    with Arbiter(plugins, *free_endpoints(2)) as arbiter:
        arbiter.wait(all_run, PATIENCE)
    assert caplog.text.count("no circusd at") == 1
