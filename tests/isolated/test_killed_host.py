# A host is killed, or forgotten by its program: its isolated plugins stop and leave nothing.

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from command import Fifo, Running, assert_ends, environment
from patience import PATIENCE
from scene import here, said
from stopped import stopped

from circusplug.testing import FakeCircusd

pytestmark = pytest.mark.usefixtures("unhurried_end")


HOST = """
import signal
import socket
import sys
from circusplug import Arbiter
from circusplug._host import managed_plugin
from circusplug._isolated import child_main, process_runner

# What a process has beyond its time to stop, seen by it and by its host; and what a host waits
# for its plugins.
child_main.LAST_WAIT = process_runner.LAST_WAIT = managed_plugin.READY_WAIT = 0.1

if __name__ == "__main__":
    plugins = [
        {"use": "troublemakers.Diarist", "isolate": True, "name": str(number), "directory": "."}
        for number in range(10)
    ]
    with Arbiter(plugins, *sys.argv[1:]) as arbiter:
        arbiter.wait(lambda now: all(status.state == "running" for status in now.values()), 20)
        print("ready")
        signal.pause()
"""


@contextlib.contextmanager
def host_process(
    directory: Path, circusd: FakeCircusd, program: str
) -> Iterator[tuple[Running, list[psutil.Process]]]:
    """Run a host in a process of its own; yields it and the processes below it."""
    (directory / "host.py").write_text(program)
    command = [sys.executable, "host.py", circusd.endpoint, circusd.pubsub_endpoint]
    env = environment(PYTHONPATH=os.pathsep.join(sys.path), PYTHONUNBUFFERED="1")
    with Running(directory, program=command, env=env) as running:
        running.wait_for("ready")
        yield running, psutil.Process(running.pid).children(recursive=True)


def test_when_the_host_is_killed_its_plugins_stop_and_the_forkserver_ends(tmp_path: Path) -> None:
    with FakeCircusd() as circusd, host_process(tmp_path, circusd, HOST) as (host, processes):
        assert len(processes) == 11  # the plugins and their forkserver
        host.signal(signal.SIGKILL)
        # Nobody is left who could write there: the forkserver among them.
        host.wait_silent()
        assert_ends(*(process.pid for process in processes))
    assert sorted(os.listdir(tmp_path)) == sorted(["host.py", *map(str, range(10))])


def test_a_plugin_that_hangs_does_not_outlive_a_host_that_was_killed(tmp_path: Path) -> None:
    """Neither in a handler nor in its handle_stop."""
    program = HOST.replace("Diarist", "Deaf").replace("range(10)", "range(2)")
    program = program.replace('"directory": "."', '"host.graceful_timeout": 0.1')
    with FakeCircusd() as circusd, host_process(tmp_path, circusd, program) as (host, processes):
        circusd.wait_subscribed(2, PATIENCE)
        circusd.publish("web", "deafen", **{"for": "1"})
        circusd.wait_command("say", what="deaf", plugin="1", timeout=PATIENCE)
        host.signal(signal.SIGKILL)
        host.wait_silent()
        assert_ends(*(process.pid for process in processes))


@pytest.mark.parametrize("deed", ["keep lock", "freeze"])
def test_a_plugin_that_cannot_notice_it_does_not_outlive_a_host_that_was_killed(
    tmp_path: Path, deed: str
) -> None:
    """One that keeps the interpreter's lock, or is stopped by a signal."""
    program = HOST.replace("Diarist", "Troublemaker").replace("range(10)", "range(2)")
    program = program.replace('"directory": "."', '"host.graceful_timeout": 0.1')
    program = program.replace("*sys.argv[1:]", "*sys.argv[1:], stop_timeout=0.1")
    with FakeCircusd() as circusd, host_process(tmp_path, circusd, program) as (host, processes):
        circusd.wait_subscribed(2, PATIENCE)
        circusd.publish("web", deed, **{"for": "1"})
        if deed == "keep lock":
            circusd.wait_command("say", what="keeps the lock", plugin="1", timeout=PATIENCE)
        host.signal(signal.SIGKILL)
        host.wait_silent()
        assert_ends(*(process.pid for process in processes))


def test_nothing_of_it_is_in_a_temporary_directory_that_may_be_cleaned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    with FakeCircusd() as circusd, host_process(tmp_path, circusd, HOST) as (host, processes):
        assert os.listdir(directory) == []
        host.signal(signal.SIGKILL)
        assert_ends(*(process.pid for process in processes))
    assert os.listdir(directory) == []


PARENT = """
import signal
import socket
import sys
from circusplug import Arbiter

if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    files = {"fifo": "fifo", "pipe": "pipe", "diary": "diary"}
    plugin = {"use": "troublemakers.Parent", "isolate": True, "name": "one", **files}
    with Arbiter([plugin], *sys.argv[1:]) as arbiter:
        arbiter.wait(lambda now: now["one"].state == "running", 20)
        print("ready")
        signal.sigwait([signal.SIGTERM])
"""


@pytest.mark.parametrize("alone", [False, True], ids=["", "with the forkserver"])
def test_a_plugin_that_is_stopping_when_its_host_is_killed_ends_it_and_what_it_started(
    alone: bool, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (
        Fifo(tmp_path / "fifo") as fifo,
        FakeCircusd() as circusd,
        host_process(tmp_path, circusd, PARENT) as (host, processes),
    ):
        fifo.wait_held()
        host.signal(signal.SIGTERM)
        circusd.wait_command("say", what="stop", timeout=PATIENCE)
        (server,) = psutil.Process(host.pid).children()
        host.signal(signal.SIGKILL)
        host.wait()
        if alone:
            server.kill()
            assert_ends(server.pid)
        with open(tmp_path / "pipe", "w"):  # now handle_stop may go on
            pass
        fifo.wait_unheld()
        assert_ends(*(process.pid for process in processes))
    assert (tmp_path / "diary").read_text() == "stopped"


def test_a_process_in_its_set_up_does_not_outlive_a_host_that_was_killed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "nobody reads")
    program = HOST.replace("range(10)", "range(1)")
    program = program.replace('"directory": "."', '"host.stdout": "nobody reads"')
    program = program.replace('status.state == "running"', "status.pid")  # no more comes of it
    with FakeCircusd() as circusd, host_process(tmp_path, circusd, program) as (host, processes):
        server, child = (process.pid for process in processes)
        with stopped(server):  # which would end it, too, but later
            host.signal(signal.SIGKILL)
            host.wait()
            assert_ends(child)
        assert_ends(server)


def test_a_program_that_forgets_to_stop_its_host_leaves_nothing(
    circusd: FakeCircusd, tmp_path: Path
) -> None:
    program = tmp_path / "forgetful.py"
    program.write_text(
        "import sys\n"
        "from circusplug import Arbiter\n"
        "plugins = [{'use': 'troublemakers.Diarist', 'isolate': True, 'name': 'one',"
        " 'directory': '.'}]\n"
        "arbiter = Arbiter(plugins, *sys.argv[1:]).__enter__()\n"
        "arbiter.wait(lambda now: now['one'].state == 'running', 20)\n"
        "print('over')\n"
    )
    command = [sys.executable, str(program), circusd.endpoint, circusd.pubsub_endpoint]
    with Running(tmp_path, program=command, env=here()) as running:
        running.wait_silent()
        assert running.end() == 0
    # The plugin's process prints to its host, so that silence does not tell of its end.
    assert_ends(said(circusd, "init")["pid"])
    assert (tmp_path / "one").read_text() == "stopped"
