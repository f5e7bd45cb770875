# What holds for every test: it leaves no thread, open file, child process or signal handler behind.
# FakeCircusd's fixtures come from circusplug's own pytest plugin, as its users get them.

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import multiprocessing.resource_tracker
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import psutil
import pytest
import zmq
from hosts import circusd_on_unix_sockets
from hypothesis import HealthCheck, settings
from members import Journal, MakeHost
from patience import PATIENCE

from circusplug import Arbiter
from circusplug._isolated.forkserver import FORKSERVER
from circusplug._loop.plugin_loop import PluginLoop
from circusplug._wire.endpoints import Link
from circusplug.testing import FakeCircusd

#: How long things that are already ending may take to be gone, in seconds. libzmq frees a
#: closed socket's descriptors on its own thread, and the end of that cannot be waited for.
_GRACE = 20.0

#: Signals whose handlers a test may change, and has to put back.
_SIGNALS = [
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGWINCH, signal.SIGCONT),
]

# How long an example takes says something of the machine, not of the code; and a run shall say
# the same as the one before, unless it is told how many examples to look for.
settings.register_profile(
    "circusplug",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CIRCUSPLUG_EXAMPLES" not in os.environ,
)
settings.load_profile("circusplug")


def pytest_configure() -> None:
    """Have Ctrl-C as usual, and modules compiled once, in all programs that are started here.

    A shell lets what it puts in the background ignore SIGINT, and that is inherited. With
    PYTHONDONTWRITEBYTECODE each of many hundred processes would compile all modules anew.
    """
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector from looking at all tests over and over: they stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True, scope="session")
def runtime_directory() -> Iterator[str]:
    """A short private directory for the control sockets of hosts that are started here."""
    with (
        tempfile.TemporaryDirectory(prefix="cp-", dir="/tmp") as path,
        pytest.MonkeyPatch().context() as patch,
    ):
        patch.setenv("XDG_RUNTIME_DIR", path)
        yield path


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves threads, open files, child processes or signal handlers behind.

    The marker ``leaves_thread(reason)`` lets a test abandon threads, and what they hold open.
    """
    threads, files, children = set(threading.enumerate()), _open_files(), _children()
    signals = _signals()
    yield
    changed = zip(signals, _signals(), strict=True)
    left = [f"signals: {now} instead of {then}" for then, now in changed if then != now]
    if request.node.get_closest_marker("leaves_thread") is None:
        left += _gone_soon(lambda: _new_threads(threads))
        left += _gone_soon(lambda: _new_files(files))
    left += _gone_soon(lambda: _new_children(children))
    if left:
        pytest.fail("left behind:\n" + "\n".join(left), pytrace=False)


@pytest.fixture
def loop() -> Iterator[PluginLoop]:
    """A plugin's loop, on this thread; to close it twice does no harm."""
    loop = PluginLoop()
    asyncio.set_event_loop(loop)
    yield loop
    asyncio.set_event_loop(None)
    loop.close()
    loop.close()


@pytest.fixture(autouse=True)
def root_logger_as_before() -> Iterator[None]:
    """Take away what a test, or an import in it, makes the root logger write to.

    Importing circus configures logging; the stream it takes is one that pytest closes.
    """
    before = logging.getLogger().handlers[:]
    yield
    for handler in logging.getLogger().handlers[:]:
        if type(handler) is logging.StreamHandler and handler not in before:
            logging.getLogger().removeHandler(handler)


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    with zmq.Context() as context:
        yield context


@pytest.fixture
def fake_circusd(request: pytest.FixtureRequest) -> Iterator[FakeCircusd]:
    """The test kit's own; on Unix sockets, with the marker ``circusd_leaves``."""
    leaves = request.node.get_closest_marker("circusd_leaves") is not None
    with circusd_on_unix_sockets() if leaves else FakeCircusd() as circusd:
        yield circusd


@pytest.fixture
def udp() -> Iterator[socket.socket]:
    """A socket that takes what is sent to it, as statsd does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(PATIENCE)
        yield sock


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What blocked plugins wait for; set at the end of the test at the latest."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have hosts wait for each plugin until it runs, however busy the machine is."""
    monkeypatch.setattr("circusplug._host.managed_plugin.READY_WAIT", PATIENCE)


@pytest.fixture
def absent_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have plugins, and their hosts, take a circusd for absent that is not there at once."""
    soon = functools.partial(Link, connect_wait=0.05)
    monkeypatch.setattr("circusplug._host.runner_factory.Link", soon)
    monkeypatch.setattr("circusplug._plugin.base.Link", soon)
    monkeypatch.setattr("circusplug._plugin.late_circusd._RETRY_WAIT", 0.05)


@pytest.fixture
def unhurried_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have hosts wait for what isolated plugins print last, and for a killed one's end."""
    monkeypatch.setattr("circusplug._isolated.pipe_reader.FLUSH_WAIT", PATIENCE)
    monkeypatch.setattr("circusplug._isolated.output_writer.FLUSH_WAIT", PATIENCE)
    monkeypatch.setattr("circusplug._isolated.output_writer.STUCK_WAIT", PATIENCE)
    monkeypatch.setattr("circusplug._isolated.process_runner._KILL_WAIT", PATIENCE)


@pytest.fixture
def host(
    fake_circusd: FakeCircusd, journal: Journal, release: threading.Event, unhurried: None
) -> MakeHost:
    """Make an arbiter for `member`s, connected to the fake circusd."""

    def make(*plugins: dict[str, Any], **options: Any) -> Arbiter:
        shared = {"journal": journal, "release": release}
        return Arbiter(
            plugins=[{**shared, **plugin} for plugin in plugins],
            endpoint=fake_circusd.endpoint,
            pubsub_endpoint=fake_circusd.pubsub_endpoint,
            **options,
        )

    return make


def _gone_soon(look: Callable[[], list[str]]) -> list[str]:
    deadline = time.monotonic() + _GRACE
    while left := look():
        if time.monotonic() > deadline:
            return left
        time.sleep(0.005)
    return []


def _signals() -> list[Any]:
    """How signals are handled and blocked, and where they are told."""
    told = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(told)
    return [
        *((number.name, signal.getsignal(number)) for number in _SIGNALS),
        ("blocked", signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        ("wakeup", told),
    ]


def _new_threads(before: set[threading.Thread]) -> list[str]:
    return [f"thread {thread}" for thread in threading.enumerate() if thread not in before]


def _open_files() -> set[tuple[int, str]]:
    """Return this process's descriptors and what each leads to."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that listed the directory
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
    return found


def _new_files(before: set[tuple[int, str]]) -> list[str]:
    new = _open_files() - before
    return [f"file {fd} -> {target}" for fd, target in new if fd not in _helpers_files()]


def _children() -> set[int]:
    """Return the pids of our children and the forkserver's, which are ours in all but name.

    Grandchildren are the business of the child: a real circusd, for one, may outlive a test
    and have new processes at its end. Threads are asked for theirs: psutil reads of each process
    of the machine, which costs more than most tests.
    """
    helpers = _helpers_pids()
    found: set[int] = set()
    for pid in (os.getpid(), *helpers):
        with contextlib.suppress(FileNotFoundError):  # a helper has ended
            for thread in os.listdir(f"/proc/{pid}/task"):
                found.update(_children_of(f"/proc/{pid}/task/{thread}"))
    return found.difference(helpers)


def _children_of(thread: str) -> list[int]:
    with (
        contextlib.suppress(FileNotFoundError, ProcessLookupError),  # the thread has ended
        open(f"{thread}/children", "rb", buffering=0) as file,
    ):
        return [int(pid) for pid in file.read().split()]
    return []


def _new_children(before: set[int]) -> list[str]:
    left = []
    for pid in _children() - before:
        with contextlib.suppress(psutil.NoSuchProcess):
            child = psutil.Process(pid)
            with child.oneshot():
                zombie = child.status() == psutil.STATUS_ZOMBIE
                words = [] if zombie else child.cmdline()
                left.append(f"process {pid}: {child.status()} {' '.join(words)}")
    return left


def _helpers_pids() -> list[int]:
    """The processes that are started once and kept for as long as we run."""
    tracker = multiprocessing.resource_tracker._resource_tracker
    return [pid for pid in (FORKSERVER.pid, tracker._pid) if pid is not None]


def _helpers_files() -> list[int]:
    """The descriptors that tie us to those processes."""
    tracker = multiprocessing.resource_tracker._resource_tracker
    return [*FORKSERVER.descriptors, *([] if tracker._fd is None else [tracker._fd])]
