# A real circusd as a managed child. The processes of its watchers hold the writing end of a
# FIFO: a line in it says that one has started, and its end that every last one is gone, the
# ones that hide from circusd included. So nothing here looks at a clock or counts processes.

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import zmq
from circusd_real import free_endpoints
from patience import PATIENCE, wait_while
from stopped import stopped

from circusplug._circusd.circusd_main import OrderlyLogger
from circusplug._circusd.process import CircusdProcess
from circusplug._errors import CircusdError
from circusplug._wire.commands import encode_command

pytestmark = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="the promise needs Linux's child subreaper"
)

#: Long enough for any test, and not left for long by one that fails.
IDLE = "echo up >&3; exec sleep 120"
#: A child that nobody at circusd knows of, below a process that ends by itself.
WITH_GRANDCHILD = f"sleep 120 & {IDLE}"
WITH_DETACHED = f"(setsid sleep 120 &) & {IDLE}"
STUBBORN = f"trap '' TERM; {IDLE}"
#: What w0, w1 and w2 run where all of these have to end.
ALL_SORTS = (IDLE, WITH_GRANDCHILD, WITH_DETACHED)


class Bench:
    """The ini file of one circusd, and the FIFOs that its watchers' processes hold."""

    def __init__(self, directory: Path) -> None:
        self.endpoint, self.pubsub_endpoint = free_endpoints(2)
        self._directory = directory
        self._alive: dict[str, int] = {}  # the reading end of each watcher's FIFO

    def close(self) -> None:
        for fd in self._alive.values():
            os.close(fd)

    def ini(self, *scripts: str, **circus: Any) -> str:
        lines = [
            "[circus]",
            f"endpoint = {self.endpoint}",
            f"pubsub_endpoint = {self.pubsub_endpoint}",
            'multicast_endpoint = ""',
            "check_delay = 0.2",
            *(f"{key} = {value}" for key, value in circus.items()),
        ]
        for number, script in enumerate(scripts):
            name = f"w{number}"
            lines += [f"[watcher:{name}]", f'cmd = sh -c "exec 3>{self._fifo(name)}; {script}"']
        return "\n".join(lines) + "\n"

    def _fifo(self, name: str) -> Path:
        path = self._directory / name
        if name not in self._alive:
            os.mkfifo(path)
            self._alive[name] = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        return path

    def wait_started(self, count: int = 1, only: str = "") -> None:
        """Wait until so many processes of each watcher have started, or of one."""
        for name in [only] if only else self._alive:
            seen = b""
            while seen.count(b"up\n") < count:
                seen += self.read(name)

    def wait_all_gone(self) -> None:
        for name in self._alive:
            while self.read(name):
                pass

    def read(self, name: str = "w0") -> bytes:
        """What a watcher's processes say next; nothing once they are gone."""
        fd = self._alive[name]
        assert select.select([fd], [], [], PATIENCE)[0], f"nothing happens to {name}'s processes"
        return os.read(fd, 1000)

    def call(self, command: str, **properties: Any) -> dict[str, Any]:
        with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
            dealer.linger = 0
            dealer.connect(self.endpoint)
            dealer.send(encode_command(1, command, properties))
            assert dealer.poll(int(PATIENCE * 1000)), "no answer from circusd"
            reply: dict[str, Any] = json.loads(dealer.recv())
            return reply

    def list_watchers(self) -> list[str]:
        watchers: list[str] = self.call("list")["watchers"]
        return watchers


class Exits:
    """Notices the end of processes that are not our children; made before they end."""

    def __init__(self, *pids: int | None) -> None:
        self._fds = [os.pidfd_open(pid) for pid in pids if pid]

    def __enter__(self) -> Exits:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for fd in self._fds:
            os.close(fd)

    def wait(self) -> None:
        for fd in self._fds:
            assert select.select([fd], [], [], PATIENCE)[0], "a process did not end"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


@contextlib.contextmanager
def running(ini: str, **kwargs: Any) -> Iterator[CircusdProcess]:
    with CircusdProcess(ini, **kwargs) as circusd:
        yield circusd


@pytest.fixture(autouse=True)
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where private directories are made; nothing else is in it."""
    directory = tmp_path / "private"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


def test_it_answers_once_it_is_ready_and_a_stop_leaves_nothing(
    bench: Bench, private: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with running(bench.ini(IDLE, IDLE)) as circusd:
        assert bench.list_watchers() == ["w0", "w1"]
        bench.wait_started()
        assert not list(private.iterdir())  # its file is nowhere on disk
        # An interrupt at the terminal does not reach it.
        assert circusd.pid is not None
        assert os.getsid(circusd.pid) == os.getsid(circusd.guard_pid or 0) != os.getsid(0)
        assert os.getpgid(circusd.pid) != os.getpgid(0)
        with pytest.raises(CircusdError, match="started before"):
            circusd.start()
        with Exits(circusd.pid, circusd.guard_pid) as exits:
            assert circusd.stop() == 0
            exits.wait()
        bench.wait_all_gone()
        assert circusd.stop() == 0
    assert "Starting master" in capfd.readouterr().err  # where the host's output goes


def test_nothing_is_done_before_the_start(bench: Bench, private: Path) -> None:
    circusd = CircusdProcess(bench.ini())
    assert not list(private.iterdir())
    assert (circusd.pid, circusd.guard_pid, circusd.stop()) == (None, None, None)


def test_its_file_can_be_read_again(bench: Bench, private: Path) -> None:
    with running(bench.ini(IDLE)) as circusd:
        bench.wait_started()
        # It may be busy.
        wait_while(lambda: bench.call("reloadconfig", waiting=True)["status"] != "ok")
        assert bench.list_watchers() == ["w0"]
        assert not circusd.has_quit
    assert not list(private.iterdir())


def test_a_shorter_file_leaves_nothing_of_the_longer_one() -> None:
    process = CircusdProcess("")
    with open(os.memfd_create("circus.ini"), "r+") as file:
        process._file = file.fileno()
        process.rewrite("[circus]\n[watcher:long]\ncmd = sleep 120\n")
        process.rewrite("[circus]\n")
        assert file.read() == "[circus]\n"


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


#: A circusd, and what lets it go on.
Held = tuple[CircusdProcess, Callable[[], object]]
#: Keeps circusd from being ready until somebody writes into the FIFO.
HELD = """
import os, sys

assert not [path for path in sys.path if path.endswith("_circusd")], "it imports what is ours"
held = [fd for fd in range(3, 100) if os.path.exists(f"/proc/self/fd/{{fd}}")]
assert not [fd for fd in held if os.get_inheritable(fd)], "its watchers would inherit what is ours"
with open({fifo!r}) as fifo:
    fifo.read(1)
stream = sys.stderr
"""


@pytest.fixture
def nagged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Writes a configuration for circusd's log with the stream of a given module."""

    def write(module: str) -> Path:
        (tmp_path / "nagged.py").write_text(module)
        path = tmp_path / "logs.json"
        path.write_text(json.dumps(config))
        return path

    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    handler = {"class": "logging.StreamHandler", "stream": "ext://nagged.stream"}
    root = {"level": "INFO", "handlers": ["nagged"]}
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"nagged": handler},
        "root": root,
    }
    return write


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


def test_killing_circusd_ends_its_watchers_processes(bench: Bench) -> None:
    with running(bench.ini(*ALL_SORTS)) as circusd, Exits(circusd.guard_pid) as exits:
        bench.wait_started()
        os.kill(circusd.pid or 0, signal.SIGKILL)
        bench.wait_all_gone()
        exits.wait()


def test_a_watcher_process_that_ignores_sigterm_does_not_survive_circusd(bench: Bench) -> None:
    with running(bench.ini(STUBBORN), grace=0.3) as circusd:
        bench.wait_started()
        os.kill(circusd.pid or 0, signal.SIGKILL)
        bench.wait_all_gone()


def test_killing_the_guard_ends_circusd_and_its_watchers_processes(bench: Bench) -> None:
    exits: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    with running(bench.ini(*ALL_SORTS)) as circusd, Exits(circusd.pid) as ends:
        circusd.on_exit(exits.put)
        bench.wait_started()
        os.kill(circusd.guard_pid or 0, signal.SIGKILL)
        bench.wait_all_gone()
        ends.wait()
        assert exits.get(timeout=PATIENCE) is None


def test_a_guard_and_a_circusd_that_hang_are_killed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug._circusd.process._GUARD_MARGIN", 0.1)
    with running(bench.ini(IDLE)) as circusd:
        bench.wait_started()
        assert circusd.pid is not None
        assert circusd._guard is not None
        with stopped(circusd._guard.pid), stopped(circusd.pid):
            circusd.stop(0.1)
            assert circusd._guard.returncode == -signal.SIGKILL
            bench.wait_all_gone()


def test_what_a_killed_circusd_leaves_behind_has_time_to_end_cleanly(
    bench: Bench, tmp_path: Path
) -> None:
    polite = tmp_path / "polite.sh"
    polite.write_text("trap 'echo bye >&3; exit' TERM; echo up >&3; sleep 120 & wait\n")
    with running(bench.ini(f"(setsid sh {polite} &) & {IDLE}"), grace=PATIENCE) as circusd:
        bench.wait_started(2)
        assert circusd.pid is not None
        os.kill(circusd.pid, signal.SIGKILL)
        said = b""
        while b"bye" not in said:
            said += (more := bench.read())
            assert more


def test_killing_circusd_and_its_guard_at_once_ends_its_watchers_processes(bench: Bench) -> None:
    with running(bench.ini(IDLE, IDLE)) as circusd:
        bench.wait_started()
        os.kill(circusd.guard_pid or 0, signal.SIGKILL)
        os.kill(circusd.pid or 0, signal.SIGKILL)
        bench.wait_all_gone()


def test_the_end_of_the_hosts_pipe_is_enough_where_there_is_no_pidfd(bench: Bench) -> None:
    with running(bench.ini(IDLE)) as circusd, Exits(circusd.pid, circusd.guard_pid) as exits:
        bench.wait_started()
        os.close(circusd._control)
        circusd._control = -1
        bench.wait_all_gone()
        exits.wait()


HOST = """
import os, signal, sys
from circusplug._circusd.process import CircusdProcess

circusd = CircusdProcess(sys.stdin.read(), grace=float(sys.argv[1]))
circusd.start()
circusd.wait_ready()
if "fork" in sys.argv and os.fork() == 0:
    signal.pause()  # as a process that a plugin forked, with all the host's pipes
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print(circusd.pid, circusd.guard_pid, flush=True)
signal.sigwait([signal.SIGUSR1])  # and then it leaves
"""


@contextlib.contextmanager
def host(ini: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run a host process; it is over at the end, and so is what it forked."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HOST, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with process.stdin, process.stdout:
            process.stdin.write(ini)
            process.stdin.close()
            yield process, process.stdout.readline().split()
    finally:
        process.kill()
        process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("arguments", [["10"], ["10", "fork"]], ids=["plain", "forked"])
def test_killing_the_host_ends_everything(bench: Bench, arguments: list[str]) -> None:
    with (
        host(bench.ini(*ALL_SORTS), *arguments) as (process, words),
        Exits(*map(int, words)) as exits,
    ):
        bench.wait_started()
        process.kill()
        bench.wait_all_gone()
        exits.wait()


def test_killing_the_host_ends_what_ignores_sigterm_too(bench: Bench) -> None:
    with host(bench.ini(STUBBORN), "0.3") as (process, _):
        bench.wait_started()
        process.kill()
        bench.wait_all_gone()


def test_a_host_that_forgets_to_stop_it_leaves_nothing_either(bench: Bench) -> None:
    with host(bench.ini(IDLE), "10") as (process, words):
        with Exits(*map(int, words[:2])) as exits:
            bench.wait_started()
            process.send_signal(signal.SIGUSR1)
            exits.wait()
        bench.wait_all_gone()


def test_an_address_in_use_is_reported_and_the_first_circusd_goes_on(
    bench: Bench, private: Path
) -> None:
    with running(bench.ini(IDLE)):
        second = CircusdProcess(bench.ini(IDLE), source="/etc/second.ini")
        second.start()
        with pytest.raises(CircusdError) as caught:
            second.wait_ready()
        with Exits(second.guard_pid) as exits:
            second.stop()
            exits.wait()
        message = str(caught.value)
        assert message.startswith("/etc/second.ini: circusd did not start: Address already in use")
        assert "\n" not in message
        assert bench.list_watchers() == ["w0"]
    assert not list(private.iterdir())


@pytest.mark.parametrize(
    ("ini", "words"),
    [
        ("this is no ini file\n", "no section headers"),
        ("[circus]\ncheck_delay = often\n", "often"),
        ("[circus]\nendpoint = nonsense\n", "nonsense"),
    ],
)
def test_a_bad_ini_text_is_reported_in_one_line_that_names_the_users_file(
    ini: str, words: str, private: Path
) -> None:
    with pytest.raises(CircusdError) as caught, running(ini, source="/etc/mine.ini"):
        pass
    message = str(caught.value)
    assert message.startswith("/etc/mine.ini: circusd did not start: ")
    assert words in message
    assert "\n" not in message
    assert "/proc/" not in message
    assert not list(private.iterdir())


@pytest.fixture
def held(bench: Bench, nagged: Callable[[str], Path], tmp_path: Path) -> Iterator[Held]:
    """Starts a circusd that is not ready before the function that comes with it is called."""
    path = tmp_path / "go on"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR)
    circusd = CircusdProcess(bench.ini(loggerconfig=nagged(HELD.format(fifo=str(path)))))
    circusd.start()
    yield circusd, lambda: os.write(fd, b"!")
    circusd.stop()
    os.close(fd)


def test_not_being_ready_in_time_is_an_error(held: Held) -> None:
    circusd, go_on = held
    with pytest.raises(CircusdError, match="not ready within 0 s"):
        circusd.wait_ready(timeout=0.0)
    go_on()
    circusd.wait_ready()


def test_being_killed_before_it_is_ready_is_an_error(held: Held) -> None:
    circusd, _ = held
    os.kill(circusd.guard_pid or 0, signal.SIGKILL)
    with pytest.raises(CircusdError, match="circusd"):
        circusd.wait_ready()


def test_without_circus_the_error_says_what_to_install(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "circus", None)
    with pytest.raises(CircusdError, match=r"pip install 'circusplug\[circusd\]'"):
        CircusdProcess(bench.ini()).start()


def test_importing_the_module_does_not_import_circus() -> None:
    program = (
        "import sys, circusplug._circusd.process;"
        "print({'circus', 'tornado', 'psutil'} & set(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert found.stdout == "set()\n"
