# The deaths of those that all isolated plugins need: their host, and the forkserver.

from __future__ import annotations

import contextlib
import errno
import multiprocessing.forkserver
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import Fifo, Running, assert_ends, environment
from hosts import all_run
from patience import PATIENCE
from scene import Scene, forkserver, here, said, scene
from stopped import stopped
from troublemakers import Talker

from circusplug import Arbiter
from circusplug._isolated import forkserver as forkserver_module
from circusplug._isolated.forkserver import FORKSERVER
from circusplug._isolated.forkserver_main import (
    ANSWER,
    DESCRIPTORS,
    ENDED,
    FAILED,
    REQUEST,
    ForkServer,
    Process,
)
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


def test_a_fork_that_fails_is_told_and_the_forkserver_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> int:
        raise BlockingIOError(errno.EAGAIN, "no processes left")

    monkeypatch.setattr(os, "fork", fail)
    ours, requests = socket.socketpair()
    answers, far = socket.socketpair()
    with ours, requests, answers, far, open(os.devnull) as nothing:
        fds = [far.fileno(), *[nothing.fileno()] * (DESCRIPTORS - 1)]
        socket.send_fds(ours, [REQUEST.pack(1.0)], fds)
        ForkServer(requests)._take_request()
        assert ANSWER.unpack(answers.recv(ANSWER.size)) == (FAILED, errno.EAGAIN)


def test_a_process_that_cannot_be_forked_is_its_plugins_failure_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(fds: list[int], grace: float) -> None:
        with socket.socket(fileno=os.dup(fds[0])) as far:
            far.send(ANSWER.pack(FAILED, errno.EAGAIN))

    with scene() as stage:
        monkeypatch.setattr(FORKSERVER, "request", refuse)
        late = {"use": Talker, "name": "late", "isolate": True, "host.restart": "never"}
        stage.arbiter.add_plugin({**late, "active": False})
        stage.arbiter.start_plugin("late")
        after = stage.arbiter.wait(lambda now: now["late"].state == "failed", PATIENCE)
        assert "its process cannot be started: BlockingIOError" in str(after["late"].last_error)
        stage.assert_siblings_work()


def test_a_group_is_killed_while_its_leader_is_not_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = []

    def kill(group: int, number: int) -> None:
        # Its number is not free yet: it can still be waited for.
        killed.append(os.waitid(os.P_PID, group, os.WEXITED | os.WNOWAIT) is not None)

    monkeypatch.setattr(os, "killpg", kill)
    dead = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, dead, os.WEXITED | os.WNOWAIT)
    answers, far = socket.socketpair()
    waitid = os.waitid

    def wait_for_it(kind: int, number: int, options: int) -> Any:  # this process has other ones
        return waitid(os.P_PID, dead, options)

    with answers, far, socket.socket() as requests:
        server = ForkServer(requests)
        server._children[dead] = Process(dead, far, 1.0)
        monkeypatch.setattr(os, "waitid", wait_for_it)
        server._look_after_children()
        assert killed == [True]
        assert ANSWER.unpack(answers.recv(ANSWER.size)) == (ENDED, 0)


def test_the_forkserver_keeps_no_handle_of_the_processes_that_it_forked() -> None:
    with scene():
        pass
    held = []
    for file in Path(f"/proc/{forkserver()}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            held.append(os.readlink(file))
    assert held
    assert not [what for what in held if "pidfd" in what]


def test_the_host_signals_nobody_by_a_number(
    monkeypatch: pytest.MonkeyPatch, soon_forced: None
) -> None:
    def refuse(number: int, what: int) -> None:
        raise AssertionError("it may be another's by now")

    with scene() as stage:
        process = stage.process
        stage.make("freeze")
        stage.wait(lambda status: process.status() == psutil.STATUS_STOPPED)
        monkeypatch.setattr(os, "kill", refuse)
        monkeypatch.setattr(os, "killpg", refuse)
        stage.arbiter.stop_plugin("trouble")
        assert_ends(process.pid)


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_forkserver_leaves_signals_to_the_host(stage: Scene, number: signal.Signals) -> None:
    pid = forkserver()
    for _ in range(2):
        os.kill(pid, number)
        stage.arbiter.restart_plugin("trouble")
        stage.wait(lambda status: status.state == "running")
    assert forkserver() == pid


def test_multiprocessing_of_the_program_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs: Any = multiprocessing.forkserver._forkserver  # type: ignore[attr-defined]
    monkeypatch.setattr(theirs, "_preload_modules", ["json"])
    before = theirs._forkserver_pid
    with scene() as stage:
        stage.assert_siblings_work()
    assert (theirs._preload_modules, theirs._forkserver_pid) == (["json"], before)


def test_a_plugins_programs_find_signals_as_usual(stage: Scene) -> None:
    with open(f"/proc/{stage.trouble.pid}/status") as file:
        masks = dict(line.split(":\t") for line in file.read().splitlines() if "Sig" in line)
    lowest = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    for kind in ("SigIgn", "SigBlk"):
        assert not any(int(masks[kind], 16) >> (number - 1) & 1 for number in lowest)


def test_when_the_forkserver_dies_its_plugins_stop_and_start_on_a_new_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = ["one", "two", "three"]
    with FakeCircusd() as circusd:
        plugins = [
            {"use": Talker, "name": name, "isolate": True, "host.restart_delay": 0.01}
            for name in names
        ]
        plugins.append({"use": Talker, "name": "thread"})
        with Arbiter(plugins, circusd.endpoint, circusd.pubsub_endpoint) as arbiter:
            arbiter.wait(all_run, PATIENCE)
            old = forkserver()
            os.kill(old, signal.SIGKILL)
            after = arbiter.wait(
                lambda now: all(
                    now[name].counters.restarts == 1 and now[name].state == "running"
                    for name in names
                ),
                PATIENCE,
            )
            for name in names:
                circusd.wait_command("say", what="stop", plugin=name, timeout=PATIENCE)
                assert after[name].last_error == "the forkserver died"
                assert psutil.Process(after[name].pid).ppid() == forkserver() != old
            circusd.wait_subscribed(4, PATIENCE)
            circusd.publish("web", "spawn")
            arbiter.wait(
                lambda now: all(status.counters.handled == 1 for status in now.values()), PATIENCE
            )
            assert after["thread"].counters.restarts == 0


def test_a_forkserver_that_dies_over_a_request_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spawn = forkserver_module._spawn
    spawned = []

    def spawn_dying(fd: int) -> int:
        spawned.append(spawn(fd))
        if len(spawned) == 1:
            os.kill(spawned[0], signal.SIGKILL)
        return spawned[-1]

    monkeypatch.setattr(forkserver_module, "_spawn", spawn_dying)
    if FORKSERVER.pid is not None:
        os.kill(FORKSERVER.pid, signal.SIGKILL)
        os.waitid(os.P_PID, FORKSERVER.pid, os.WEXITED | os.WNOWAIT)
    with FakeCircusd() as circusd:
        plugin = {"use": Talker, "name": "one", "isolate": True, "host.restart": "never"}
        with Arbiter([plugin], circusd.endpoint, circusd.pubsub_endpoint) as arbiter:
            arbiter.wait(lambda now: now["one"].state == "running", PATIENCE)
            assert spawned[0] != forkserver() == spawned[-1]


def test_a_request_that_a_dying_forkserver_took_is_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = FORKSERVER.request
    asked = []

    def ask_dying(fds: list[int], grace: float) -> None:
        asked.append(forkserver())
        if len(asked) > 1:
            request(fds, grace)
            return
        with stopped(asked[0]):
            request(fds, grace)
            os.kill(asked[0], signal.SIGKILL)

    with FakeCircusd() as circusd, Arbiter(
        [], circusd.endpoint, circusd.pubsub_endpoint
    ) as arbiter:  # fmt: skip
        FORKSERVER.start()
        monkeypatch.setattr(FORKSERVER, "request", ask_dying)
        one = {"use": Talker, "name": "one", "isolate": True, "host.restart": "never"}
        arbiter.add_plugin({**one, "active": False})
        arbiter.start_plugin("one")
        arbiter.wait(lambda now: now["one"].state == "running", PATIENCE)
        assert len(asked) == 2
        assert forkserver() != asked[0]


def test_a_frozen_plugin_of_a_dead_forkserver_is_killed_and_replaced(soon_forced: None) -> None:
    with scene(**{"host.graceful_timeout": 0.1}) as stage:
        process = stage.process
        stage.make("freeze")
        stage.wait(lambda status: process.status() == psutil.STATUS_STOPPED)
        os.kill(forkserver(), signal.SIGKILL)
        stage.wait_replaced()
        assert_ends(process.pid)
        stage.arbiter.wait(lambda now: now["process"].state == "running", PATIENCE)


def test_a_forkserver_that_hangs_keeps_nobody_waiting_and_what_it_starts_late_is_ended(
    soon_forced: None,
) -> None:
    late = {"use": Talker, "name": "late", "isolate": True, "host.restart": "never"}
    with scene() as stage:
        with stopped(forkserver()):
            stage.arbiter.add_plugin({**late, "host.start_timeout": 0.2, "active": False})
            stage.arbiter.start_plugin("late")
            after = stage.arbiter.wait(lambda now: now["late"].state == "failed", PATIENCE)
            assert after["late"].last_error == "not initialised after 0.2 s"
            stage.assert_siblings_work()
        stage.make("kill")
        stage.wait_replaced()
        # That one was forked after the late one, which must be gone with the host.


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
