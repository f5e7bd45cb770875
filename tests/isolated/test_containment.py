# Whatever an isolated plugin does, it harms nobody else: each case has a sibling in the same
# host whose events must go on being handled, while the trouble lasts and after it.

from __future__ import annotations

import contextlib
import multiprocessing.forkserver
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import Fifo, Running, assert_ends, environment
from hosts import all_run
from patience import PATIENCE
from troublemakers import Deaf, Talker, Troublemaker

from circusplug import (
    Arbiter,
    HostConfig,
    PluginSpec,
    PluginStatus,
)
from circusplug._host import managed_plugin
from circusplug._isolated import forkserver as forkserver_module
from circusplug._isolated import messages
from circusplug._isolated.child_output import ChildOutput
from circusplug._isolated.forkserver import FORKSERVER
from circusplug._isolated.line_buffer import LineBuffer
from circusplug._isolated.output_writer import OUTPUT_LIMIT
from circusplug._isolated.pipe_reader import PipeReader
from circusplug._isolated.pipes import Pipes
from circusplug._isolated.process_runner import ProcessRunner
from circusplug._logs import DATE_FORMAT, FORMAT, Formatter
from circusplug._runners.runner import Kind, Notice, Surroundings
from circusplug._status import Counters
from circusplug._wire.endpoints import Link
from circusplug.testing import FakeCircusd

pytestmark = pytest.mark.usefixtures("unhurried_end")


class Scene:
    """A host with a troublemaker in a process of its own, and two that go on working."""

    def __init__(self, circusd: FakeCircusd, arbiter: Arbiter) -> None:
        self.circusd = circusd
        self.arbiter = arbiter

    @property
    def trouble(self) -> PluginStatus:
        return self.arbiter.plugins["trouble"]

    @property
    def process(self) -> psutil.Process:
        """The troublemaker's process."""
        return psutil.Process(self.trouble.pid)

    def make(self, what: str) -> None:
        """Have the troublemaker do something."""
        self.circusd.publish("web", what)

    def wait(self, predicate: Callable[[PluginStatus], object]) -> PluginStatus:
        """Wait until something holds for the troublemaker."""
        return self.arbiter.wait(lambda now: bool(predicate(now["trouble"])), PATIENCE)["trouble"]

    def wait_said(self, what: str, **properties: Any) -> Any:
        command = self.circusd.wait_command("say", timeout=PATIENCE, what=what, **properties)
        return command.properties

    def wait_replaced(self, restarts: int = 1) -> PluginStatus:
        """Wait until a new instance of the troublemaker runs."""
        return self.wait(
            lambda status: status.counters.restarts >= restarts and status.state == "running"
        )

    def assert_siblings_work(self) -> None:
        """Publish events, and wait until each of the siblings has handled all of them."""
        names = ("thread", "process")
        before = {name: self.arbiter.plugins[name].counters.handled for name in names}
        pids = {name: self.arbiter.plugins[name].pid for name in names}
        self.circusd.publish_many(100, "traffic", "spawn")
        after = self.arbiter.wait(
            lambda now: all(now[name].counters.handled >= before[name] + 100 for name in names),
            PATIENCE,
        )
        assert {name: after[name].pid for name in names} == pids
        assert [after[name].counters.restarts for name in names] == [0, 0]
        assert [after[name].counters.errors for name in names] == [0, 0]


@contextlib.contextmanager
def scene(**options: Any) -> Iterator[Scene]:
    """Set the scene; the options are the troublemaker's."""
    trouble = {
        "use": Troublemaker,
        "name": "trouble",
        "isolate": True,
        "host.restart_delay": 0.01,
        "host.graceful_timeout": 0.2,
        **options,
    }
    plugins = [
        {"use": Talker, "name": "thread"},
        trouble,
        {"use": Talker, "name": "process", "isolate": True},
    ]
    with (
        FakeCircusd() as circusd,
        # Long, as the siblings have to stop in it, too.
        Arbiter(
            plugins, circusd.endpoint, circusd.pubsub_endpoint, stop_timeout=PATIENCE
        ) as arbiter,
    ):
        arbiter.wait(all_run, PATIENCE)
        circusd.wait_subscribed(3, PATIENCE)
        yield Scene(circusd, arbiter)


@pytest.fixture
def stage() -> Iterator[Scene]:
    """The scene, at whose end the siblings have to work."""
    with scene() as stage:
        yield stage
        stage.assert_siblings_work()


# Ends of all kinds.


def test_an_exception_is_counted_and_nothing_else_happens(stage: Scene) -> None:
    before = stage.trouble
    stage.make("raise")
    after = stage.wait(lambda status: status.counters.errors > before.counters.errors)
    stage.assert_siblings_work()
    assert (after.state, after.pid) == ("running", before.pid)


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        ("exit", "its process ended without a word, exit status 7"),
        ("sys exit", "left by sys.exit(3)"),
        ("segfault", "its process was killed by SIGSEGV"),
        ("kill", "its process was killed by SIGKILL"),
    ],
)
def test_the_end_of_its_process_is_told_and_it_is_started_again(
    stage: Scene, deed: str, reason: str
) -> None:
    before = stage.trouble
    stage.make(deed)
    after = stage.wait_replaced(before.counters.restarts + 1)
    stage.assert_siblings_work()
    assert after.pid != before.pid
    assert after.last_error == reason


def test_events_go_to_its_next_life(stage: Scene) -> None:
    before = stage.trouble
    stage.make("kill")
    stage.wait_replaced(before.counters.restarts + 1)
    stage.circusd.wait_subscribed(3, PATIENCE)
    stage.make("nothing")
    stage.wait(lambda status: status.counters.handled > before.counters.handled)


def test_what_it_started_goes_with_it(stage: Scene) -> None:
    stage.make("spawn")
    grandchild = psutil.Process(stage.wait_said("spawned")["child"])
    stage.make("kill")
    assert_ends(grandchild.pid)


def test_what_it_started_goes_when_it_is_stopped() -> None:
    with scene(**{"host.graceful_timeout": PATIENCE}) as stage:
        stage.make("spawn")
        grandchild = psutil.Process(stage.wait_said("spawned")["child"])
        stage.arbiter.stop_plugin("trouble")
        assert_ends(grandchild.pid)
        stage.wait_said("stop", plugin="trouble")
        stage.assert_siblings_work()


# Stops that are resisted.


@pytest.mark.parametrize("deed", ["hang", "freeze"])
def test_one_that_does_not_answer_is_stopped_by_force(stage: Scene, deed: str) -> None:
    process = stage.process
    stage.make(deed)
    if deed == "freeze":
        stage.wait(lambda status: process.status() == psutil.STATUS_STOPPED)
    else:
        stage.wait_said("hangs")
    stage.assert_siblings_work()
    stage.arbiter.stop_plugin("trouble")
    assert stage.trouble.state == "stopped"
    assert not process.is_running()
    stage.assert_siblings_work()


def test_one_that_is_frozen_shows_as_stalled() -> None:
    with scene(**{"host.stall_timeout": 0.2}) as stage:
        process = stage.process
        stage.make("freeze")
        # One that is merely slow to answer shows as stalled, too, and is not frozen yet.
        stage.wait(lambda status: process.status() == psutil.STATUS_STOPPED)
        stage.wait(lambda status: status.state == "stalled")
        process.send_signal(signal.SIGCONT)
        stage.wait(lambda status: status.state == "running")


def test_one_that_ignores_all_signals_is_stopped_by_force(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with scene(use=Deaf) as stage:
        process = stage.process
        stage.make("deafen")
        stage.wait_said("deaf")
        stage.assert_siblings_work()
        stage.arbiter.stop_plugin("trouble")
        assert stage.trouble.state == "stopped"
        assert not process.is_running()
        assert "trouble does not end; killing it" in caplog.text
        stage.assert_siblings_work()


def test_a_hang_of_its_handle_stop_is_ended_by_the_hosts_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What one that does not hang gets when the time for all is over; here, for a busy machine.
    monkeypatch.setattr("circusplug._isolated.process_runner._STOP_LEAST", 3.0)
    plugins = [
        {"use": Talker, "name": "first"},
        {"use": Deaf, "name": "deaf", "isolate": True},
        {"use": Talker, "name": "last", "isolate": True},
    ]
    with FakeCircusd() as circusd:
        arbiter = Arbiter(plugins, circusd.endpoint, circusd.pubsub_endpoint, stop_timeout=4.0)
        with arbiter:
            arbiter.wait(all_run, PATIENCE)
        stopped = [command.properties["plugin"] for command in circusd.commands[3:]]
        assert stopped == ["last", "deaf", "first"]
        assert {status.state for status in arbiter.plugins.values()} == {"stopped"}


def test_an_isolated_plugin_that_hangs_in_its_start_can_be_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(managed_plugin, "READY_WAIT", 0.1)
    trouble = {"use": "troublemakers.Ender", "end": "hang in init", "host.start_timeout": 100}
    options = {"isolate": True, "name": "trouble", "host.graceful_timeout": 0.1}
    with FakeCircusd() as circusd, Arbiter([], circusd.endpoint, circusd.pubsub_endpoint) as host:
        host.add_plugin(trouble | options)
        circusd.wait_command("say", what="init", timeout=PATIENCE)
        # The process may come that far before the host knows of it.
        status = host.wait(lambda now: now["trouble"].pid is not None, PATIENCE)["trouble"]
        process = psutil.Process(status.pid)
        host.remove_plugin("trouble")
        assert not process.is_running()


# Too much of everything.


def test_memory_beyond_its_limit_is_its_own_problem() -> None:
    with scene(**{"host.rlimit_as": 3 * 2**29}) as stage:
        pid = stage.trouble.pid
        stage.make("hog")
        stage.wait_said("hogged")
        after = stage.wait(lambda status: status.counters.errors)
        stage.assert_siblings_work()
        assert "MemoryError" in str(after.last_error)
        assert after.pid == pid


def test_megabytes_of_output_do_not_stay_in_the_host(capfd: pytest.CaptureFixture[str]) -> None:
    megabyte = 1024 * 1024
    with scene(flood=64 * megabyte) as stage:
        stage.assert_siblings_work()
        before = psutil.Process().memory_info().rss
        stage.make("flood")
        stage.assert_siblings_work()
        stage.wait_said("flooded")
        grown = psutil.Process().memory_info().rss - before
        assert grown < 32 * megabyte
    assert capfd.readouterr().out.startswith("[trouble] a line that says nothing in particular")


class StuckTerminal:
    """A stream that takes nothing until it is set free."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.text = ""

    def flush(self) -> None:
        pass

    def write(self, text: str) -> None:
        assert self.free.wait(PATIENCE)
        self.text += text


def test_output_that_nobody_reads_is_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    terminal = StuckTerminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    lines = [b"x" * 1000] * 100
    with Pipes() as pipes:
        output = ChildOutput("one", pipes.writer)
        for _ in range(200):
            output.print_lines(lines)
        terminal.free.set()
    pipes.writer._thread.join(PATIENCE)
    (record,) = (record for record in caplog.records if "output dropped" in record.message)
    assert record.args is not None
    dropped = next(iter(record.args))
    assert terminal.text.count("\n") + int(str(dropped)) == 20_000
    assert OUTPUT_LIMIT / 2 < len(terminal.text) <= OUTPUT_LIMIT


def test_what_was_said_before_the_end_is_read_at_the_end() -> None:
    heard: list[bytes] = []
    read, write = os.pipe()
    os.write(write, b"last words")
    os.close(write)

    done = threading.Event()

    def begin_and_end() -> None:
        reader.watch(read, heard.append, lambda: heard.append(b"."))
        reader._end()
        done.set()

    with PipeReader() as reader:
        reader.call(begin_and_end)
        assert done.wait(PATIENCE)
    assert heard == [b"last words", b"."]


def test_a_late_comer_is_closed_and_not_read() -> None:
    ended = threading.Event()
    with PipeReader() as reader:
        pass
    read, write = os.pipe()
    reader.watch(read, lambda data: None, ended.set)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.read(read, 1)
    os.close(write)
    assert ended.is_set()


def test_whoever_is_not_read_to_the_end_is_told_so() -> None:
    ended = threading.Event()
    read, write = os.pipe()
    with PipeReader() as reader:
        reader.watch(read, lambda data: None, ended.set)
    assert ended.is_set()
    os.close(write)


def test_lines_are_kept_together_up_to_a_limit() -> None:
    lines = LineBuffer(limit=4)
    assert lines.feed(b"one\ntw") == [b"one"]
    assert lines.feed(b"o\n\n") == [b"two", b""]
    assert lines.feed(b"much too long\nnext") == [b"much", b" too", b" lon", b"g"]
    assert lines.feed(b" goes on") == [b"next", b" goe"]
    assert lines.flush() == [b"s on"]
    assert lines.flush() == []


def test_nonsense_on_its_pipes_is_shown_and_goes_no_further(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with scene() as stage:
        stage.make("gibber")
        stage.wait(lambda status: status.state != "running" or status.counters.handled)
        stage.assert_siblings_work()
    assert '[trouble] {"is": [nonsense' in capfd.readouterr().err


@pytest.mark.parametrize(
    "record",
    [
        b'{"name": "x", "level": 1e999, "text": "said", "created": 0}',
        b'{"name": "x", "level": 40, "text": "said", "created": 1e300}',
        b'{"name": "x", "level": 1' + b"0" * 50 + b', "text": "said", "created": NaN}',
        b"[" * 50_000,
    ],
)
def test_a_record_that_makes_no_sense_is_shown_and_harms_nobody(
    record: bytes, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with Pipes() as pipes:
        ChildOutput("one", pipes.writer).log_lines([record])
    assert "said" in caplog.text or f"[one] {record[:30].decode()}" in capfd.readouterr().err
    assert "Traceback" not in caplog.text
    for shown in caplog.records:
        Formatter(FORMAT, DATE_FORMAT).formatTime(shown)
        assert shown.levelno <= 100


def test_what_happens_once_is_told_to_the_supervisor_once() -> None:
    told: list[Notice] = []
    spec = PluginSpec("one", "troublemakers.Talker", isolate=True)
    around = Surroundings(HostConfig(), Link(), told.append)
    reports = [messages.Running(), messages.TooManyErrors("x"), messages.Stalled("x")]
    runner = ProcessRunner(spec, around, Counters(), Pipes())
    for report in reports * 3:
        runner.heard(report)
    assert [notice.kind for notice in told] == [Kind.RUNNING, Kind.TOO_MANY_ERRORS, Kind.STALLED]


# The deaths of those that all of them need.


HOST = """
import signal
import sys
from circusplug import Arbiter

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


PARENT = """
import signal
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


def test_a_plugin_that_is_stopping_when_its_host_is_killed_ends_it_and_what_it_started(
    tmp_path: Path,
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
        host.signal(signal.SIGKILL)
        host.wait()
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
        assert len(processes) == 2  # the plugin and the forkserver
        host.signal(signal.SIGKILL)
        host.wait()
        assert_ends(*(process.pid for process in processes))


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


@pytest.mark.leaves_thread("the thread that writes waits for somebody who reads")
def test_a_host_does_not_wait_long_for_somebody_who_does_not_read_its_output(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("circusplug._isolated.output_writer.FLUSH_WAIT", 1000.0)
    monkeypatch.setattr("circusplug._isolated.output_writer.STUCK_WAIT", 0.05)
    begun, reads = threading.Event(), threading.Event()

    def write() -> None:
        begun.set()
        reads.wait()

    try:
        with Pipes() as pipes:
            pipes.writer.write(write, 1)
            assert begun.wait(PATIENCE)
        assert not reads.is_set()
    finally:
        reads.set()


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
    with FakeCircusd() as circusd:
        plugin = {"use": Talker, "name": "one", "isolate": True, "host.restart": "never"}
        with Arbiter([plugin], circusd.endpoint, circusd.pubsub_endpoint) as arbiter:
            arbiter.wait(lambda now: now["one"].state == "running", PATIENCE)
            assert spawned[0] != forkserver() == spawned[-1]


def test_a_frozen_plugin_of_a_dead_forkserver_is_killed_and_replaced() -> None:
    with scene(**{"host.graceful_timeout": 0.1}) as stage:
        process = stage.process
        stage.make("freeze")
        stage.wait(lambda status: process.status() == psutil.STATUS_STOPPED)
        os.kill(forkserver(), signal.SIGKILL)
        stage.wait_replaced()
        assert_ends(process.pid)
        stage.arbiter.wait(lambda now: now["process"].state == "running", PATIENCE)


def test_a_forkserver_that_hangs_keeps_nobody_waiting_and_what_it_starts_late_is_ended() -> None:
    late = {"use": Talker, "name": "late", "isolate": True, "host.restart": "never"}
    with scene() as stage:
        os.kill(forkserver(), signal.SIGSTOP)
        try:
            stage.arbiter.add_plugin({**late, "host.start_timeout": 0.2})
            after = stage.arbiter.wait(lambda now: now["late"].state == "failed", PATIENCE)
            assert after["late"].last_error == "not initialised after 0.2 s"
            stage.assert_siblings_work()
        finally:
            os.kill(forkserver(), signal.SIGCONT)
        stage.make("kill")
        stage.wait_replaced()
        # That one was forked after the late one, which must be gone with the host.


def forkserver() -> int:
    assert FORKSERVER.pid is not None
    return FORKSERVER.pid
