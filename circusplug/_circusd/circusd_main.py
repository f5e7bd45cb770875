# The program that becomes circusd, started by the guard (see guard_main.py) and run by
# its path. It runs Circus's own circusd unchanged, and adds what a managed child needs: it
# tells the host when it is ready or why it failed, it holds its watchers back until it is told to
# go, it quits when the guard dies, and its children end with it even if the guard is killed at the
# same time.

from __future__ import annotations

import contextlib
import copy
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

#: Seconds between two requests to quit: circusd drops one that comes while it is busy with
#: a command that excludes others, such as starting its watchers.
NUDGE_INTERVAL = 1.0
#: What asks circusd to quit.
_REQUESTS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
#: How long processes may take to go after SIGKILL, in seconds.
KILL_TIMEOUT = 5.0
#: How long after the word to go the first watcher starts, in seconds: the plugins are connected
#: then, and what they subscribe to may still be on its way.
SUBSCRIBING = 0.05
#: How long to wait when the watchers cannot be started as circusd is busy, in seconds.
BUSY_DELAY = 0.05
_PR_SET_PDEATHSIG = 1


class Report:
    """Tells the host that circusd is ready, or why it never got there.

    circusd logs an error in its start, such as an address in use, and then exits with
    status 0; so this listens to its log until it is ready.

    Args:
        fd: The report pipe.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._ready = False
        self._logged = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Remember an error; a filter of the logger, since a handler would not last."""
        if record.levelno >= logging.ERROR and not self._ready:
            message = record.getMessage()
            self._logged = message.removeprefix("exception ").removesuffix(" caught")
        return True

    @property
    def is_ready(self) -> bool:
        """Whether circusd has got there."""
        return self._ready

    def ready(self) -> None:
        """Say that circusd's loop runs; its sockets are bound then."""
        if not self._ready:
            self._ready = True
            self._write(f"ready {os.getpid()}")

    def failed(self, reason: str = "") -> None:
        """Say why circusd did not start; nothing once it was ready."""
        if not self._ready:
            self._write("failed " + " ".join((reason or self._logged).split()))

    def _write(self, line: str) -> None:
        with contextlib.suppress(OSError):
            os.write(self._fd, line.encode()[:4000] + b"\n")


class LateSignals:
    """Keeps a request to quit from killing a circusd that is quitting already.

    circusd gives signals back when it stops, and Python does when it ends; the guard's next
    SIGTERM may come in between.

    Args:
        is_ready: Tells whether circusd runs, or has run. Until then a signal ends it at once.
    """

    def __init__(self, is_ready: Callable[[], bool]) -> None:
        self._is_ready = is_ready
        for number in _REQUESTS:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._is_ready():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def ignore(self) -> None:
        """Ignore them for the rest of this process's life."""
        for number in _REQUESTS:
            signal.signal(number, signal.SIG_IGN)


class OrderlyLogger(logging.Logger):
    """A logger that may be used in a signal handler while it writes.

    circusd logs in its signal handlers. One that comes while a record is being written would
    write in the middle of it, which the stream refuses with a traceback and a lost record;
    here it waits until that record is out. It concerns the main thread alone, as Python runs
    handlers on no other.
    """

    _of_thread = threading.local()

    def handle(self, record: logging.LogRecord) -> None:
        """Write a record now, or right after the one that this thread is writing."""
        late: list[tuple[OrderlyLogger, logging.LogRecord]] | None
        late = getattr(self._of_thread, "late", None)
        if late is not None:
            late.append((self, record))
            return
        late = self._of_thread.late = []
        try:
            super().handle(record)
        finally:
            self._of_thread.late = None
        for logger, waiting in late:
            logger.handle(waiting)


class WatchersHeld:
    """Holds circusd's watchers back when it starts; it takes commands meanwhile.

    Args:
        longest: How long at most, in seconds.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._start: Callable[[], object] = lambda: None

    def let_go(self) -> None:
        """Have the watchers started, once circusd has said that it is ready; from any thread."""
        self._start()

    def install(self) -> None:
        """Have the first start of watchers wait, which is circusd's own; others are commands."""
        if not self._longest:
            return
        from circus import logger
        from circus.arbiter import Arbiter
        from circus.exc import ConflictError
        from tornado import gen, ioloop, locks, util

        start = Arbiter.start_watchers
        loop, told = ioloop.IOLoop.current(), locks.Event()
        self._start = lambda: loop.add_callback(told.set)

        @gen.coroutine
        def start_when_told(arbiter: Any) -> Iterator[Any]:
            Arbiter.start_watchers = start
            try:
                yield told.wait(loop.time() + self._longest)
                yield gen.sleep(SUBSCRIBING)
            except util.TimeoutError:
                logger.warning("some plugins take more than %g s to start", self._longest)
            # It is no command while it waits, or it would exclude all others.
            while not arbiter._stopping:
                try:
                    yield arbiter.start_watchers()
                    break
                except ConflictError:
                    yield gen.sleep(BUSY_DELAY)

        Arbiter.start_watchers = start_when_told


class GuardWatch:
    """Makes circusd quit when the guard dies, and clears up in the guard's place.

    Args:
        life: Readable end of a pipe that ends with the guard.
        grace: How long circusd may take to quit, in seconds.
        on_go: Called on a thread when the guard passes on that the watchers can be started.
    """

    def __init__(self, life: int, grace: float, on_go: Callable[[], None]) -> None:
        self._life = life
        self._grace = grace
        self._on_go = on_go
        self._alone = threading.Event()
        self._thread = threading.Thread(target=self._run, name="guard-watch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while os.read(self._life, 1):
            self._on_go()
        self._alone.set()
        deadline = time.monotonic() + self._grace
        while time.monotonic() < deadline:
            # To the main thread, whose wait for events it has to interrupt.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
            time.sleep(min(NUDGE_INTERVAL, max(0.0, deadline - time.monotonic())))
        kill_descendants()
        os._exit(1)

    def clear(self) -> None:
        """Kill what circusd has left behind, if the guard is not there to do it."""
        if self._alone.is_set():
            kill_descendants()


def is_worth_logging(record: logging.LogRecord) -> bool:
    """Leave out circusd's tracebacks of having met itself.

    It looks after its watchers on a timer, and that raises when it stops or is busy otherwise;
    at nearly every end, that is. The next look, if there is one, does the work.
    """
    error = record.exc_info[1] if record.exc_info else None
    return type(error).__name__ != "ConflictError"


def note_crashes(circusd: Any, crashes: list[object]) -> None:
    """Collect what ends circusd's loop; it logs that, and exits with status 0 all the same."""
    look = circusd.check_future_exception_and_log

    def look_and_note(future: object) -> object:
        crash = look(future)
        if crash is not None:
            crashes.append(crash)
        return crash

    circusd.check_future_exception_and_log = look_and_note


def tie_children_to_this_process() -> None:
    """Have the kernel send SIGTERM to each child when this process dies, however it dies.

    It does not reach one that runs as another user: becoming that user undoes it.
    """
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    parent, thread = os.getpid(), threading.get_ident()

    def tie() -> None:
        if threading.get_ident() != thread:
            return  # a child of another thread would be ended with that thread
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    os.register_at_fork(after_in_child=tie)


def kill_descendants() -> None:
    """Kill every process below this one."""
    import psutil

    # The guard made this process a subreaper too: what a killed process had started becomes
    # a child of this one.
    give_up = time.monotonic() + KILL_TIMEOUT
    while (children := psutil.Process().children(recursive=True)) and time.monotonic() < give_up:
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()
        psutil.wait_procs(children, timeout=KILL_TIMEOUT)


class PlanError(Exception):
    """A program has asked for what Circus refuses; says what, and why."""


def run_watchers(plan: dict[str, Any]) -> None:
    """Run what a program has said (see watcher_options.py), as Circus's main runs an ini file.

    Raises:
        SystemExit: With status 0 if it was told to quit.
        PlanError: It cannot be run.
    """
    import zmq
    from circus import get_arbiter, logger
    from circus.util import check_future_exception_and_log, configure_logger, resolve_name

    options = dict(plan["options"])
    level = options.get("loglevel") or plan["loglevel"]
    configure_logger(logger, level, options.get("logoutput") or "-", options.get("loggerconfig"))
    place = ""

    def watchers() -> Iterator[dict[str, Any]]:
        nonlocal place
        for watcher in copy.deepcopy(plan["watchers"]):  # Circus takes them apart
            place = f"watcher {watcher['name']!r}: "
            yield watcher
        place = ""

    restart = True
    while restart:
        try:
            for key, make in (("sockets", _sockets), ("prereload_fn", resolve_name)):
                place = f"'{key}': "
                if plan["options"].get(key):
                    options[key] = make(plan["options"][key])
            place = ""
            context = zmq.Context()
            arbiter = get_arbiter(watchers(), context=context, **options)
        except Exception as error:
            raise PlanError(f"{place}{type(error).__name__}: {error}") from error
        if check_future_exception_and_log(arbiter.start()) is not None:
            sys.exit(1)
        restart = arbiter._restarting
        if restart:
            context.destroy(linger=0)  # which waits until the addresses are free
    sys.exit(0)


def _sockets(options: list[dict[str, Any]]) -> list[Any]:
    from circus.sockets import CircusSocket

    return [CircusSocket.load_from_config(item) for item in options]


def main() -> None:
    """Run with: the ini file, as /proc/self/fd/N, the grace time, the life and report pipes, and
    for how many seconds at most the watchers are held back.
    """
    ini = sys.argv[1]
    grace = float(sys.argv[2])
    life, report_fd = map(int, sys.argv[3:5])
    os.set_inheritable(int(os.path.basename(ini)), False)
    os.set_inheritable(life, False)
    os.set_inheritable(report_fd, False)
    if sys.path[0] == os.path.dirname(os.path.abspath(__file__)):
        del sys.path[0]  # not a place where circusd or a hook should find modules
    tie_children_to_this_process()
    with open(ini, encoding="utf-8", errors="replace") as file:
        text = file.read()
    plan = json.loads(text) if text.startswith("{") else None  # of a program, not an ini
    if plan is not None:
        sys.path[:] = plan["path"]  # where the program finds hooks and streams
    held = WatchersHeld(float(sys.argv[5]))
    watch = GuardWatch(life, grace, held.let_go)
    report = Report(report_fd)
    sys.argv = ["circusd", ini]
    logging.setLoggerClass(OrderlyLogger)
    late_signals = LateSignals(lambda: report.is_ready)
    crashes: list[object] = []
    try:
        from circus import circusd, logger
        from tornado.ioloop import IOLoop
        from tornado.log import app_log

        logger.addFilter(report.filter)
        app_log.addFilter(is_worth_logging)
        IOLoop.current().add_callback(report.ready)
        note_crashes(circusd, crashes)
        held.install()
        if plan is not None:
            run_watchers(plan)
        circusd.main()
    except SystemExit:
        report.failed()
        if crashes:
            sys.exit(1)
        raise
    except PlanError as error:
        report.failed(str(error))
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - whatever it was, the host must hear of it
        report.failed(f"{type(error).__name__}: {error}")
        traceback.print_exc()
        sys.exit(1)
    finally:
        late_signals.ignore()
        watch.clear()


if __name__ == "__main__":
    main()
