# What signals do to a host, in a process of its own.

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable

import pytest
from patience import PATIENCE

from circusplug._host import signals
from circusplug._plugin import stop_guard
from circusplug.testing import FakeCircusd

_PROGRAM = """
import functools, sys, threading
from circusplug import Arbiter, CircusPlugin
from circusplug._plugin import stop_guard
from circusplug._host import runner_factory
from circusplug._host import managed_plugin

class Member(CircusPlugin):
    def say(self, what):
        sys.stdout.write(f"{self.config['name']} {what}\\n")  # in one, beside other threads
        sys.stdout.flush()

    def handle_init(self):
        self.say("init")

    def handle_recv(self, data):
        self.say(self.parse_event(data).action)

    def handle_stop(self):
        self.say("stop")

class Hangs(Member):
    def handle_stop(self):
        super().handle_stop()
        threading.Event().wait()

mode, endpoint, pubsub_endpoint, stop_timeout = sys.argv[1:]
# On a busy machine what behaves well may take its time, too: to start, to connect, to stop.
managed_plugin.READY_WAIT = 20.0
runner_factory.Link = functools.partial(runner_factory.Link, connect_wait=20.0)
stop_guard._LEAST = float(stop_timeout)
middle = Hangs if mode == "hangs" else Member
plugins = [{"use": use, "name": name} for name, use in zip("abc", [Member, middle, Member])]
arbiter = Arbiter(plugins, endpoint, pubsub_endpoint, stop_timeout=float(stop_timeout))
try:
    arbiter.start()
finally:
    arbiter.stop()
print("host done", arbiter.plugins["b"].last_error, flush=True)
"""


class Program:
    """The program above, as a child; a context manager.

    Its errors go into a file, so that stdout is the one pipe here: `Popen.communicate` reads past
    the lines that `readline` has taken from the pipe ahead of time.
    """

    def __init__(self, circusd: FakeCircusd, mode: str, stop_timeout: float = 10.0) -> None:
        endpoints = circusd.endpoint, circusd.pubsub_endpoint
        self._arguments = [mode, *endpoints, str(stop_timeout)]

    def __enter__(self) -> Program:
        with contextlib.ExitStack() as stack:
            self._errors = stack.enter_context(tempfile.TemporaryFile("a+"))
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *self._arguments],
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
            )
            stack.enter_context(self.process)
            stack.callback(self.process.kill)
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._exit.close()

    def expect(self, *lines: str) -> None:
        """Read the next lines, which must be these."""
        found = self._read(len(lines))
        assert found == [*lines], self._errors_so_far()

    def expect_in_any_order(self, *lines: str) -> None:
        """Read the next lines, which must be these: plugins do not wait for each other."""
        found = self._read(len(lines))
        assert sorted(found) == sorted(lines), self._errors_so_far()

    def _read(self, count: int) -> list[str]:
        assert self.process.stdout is not None
        return [self.process.stdout.readline().rstrip("\n") for _ in range(count)]

    def finish(self) -> tuple[int, str, str]:
        """Wait for its end; returns the exit status, what is left of stdout, and its errors."""
        assert self.process.stdout is not None
        rest = self.process.stdout.read()
        return self.process.wait(), rest, self._errors_so_far()

    def _errors_so_far(self) -> str:
        self._errors.seek(0)
        return self._errors.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_ends_the_host_cleanly(number: signal.Signals, fake_circusd: FakeCircusd) -> None:
    with Program(fake_circusd, "plain") as program:
        program.expect_in_any_order("a init", "b init", "c init")
        fake_circusd.wait_subscribed(3)
        program.process.send_signal(number)
        program.expect("c stop", "b stop", "a stop", "host done None")
        assert program.finish() == (0, "", "")


def test_a_second_ctrl_c_ends_the_process_at_once(fake_circusd: FakeCircusd) -> None:
    with Program(fake_circusd, "hangs", stop_timeout=600.0) as program:
        program.expect_in_any_order("a init", "b init", "c init")
        fake_circusd.wait_subscribed(3)
        program.process.send_signal(signal.SIGINT)
        program.expect("c stop", "b stop")
        # Two at the same moment count as one, since some senders send each signal twice.
        while program.process.poll() is None:
            program.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.process.wait(0.02)
        status, out, err = program.finish()
    assert (status, out) == (130, "")
    assert "interrupted twice" in err


def test_a_handle_stop_that_hangs_is_ended_and_the_others_run(fake_circusd: FakeCircusd) -> None:
    with Program(fake_circusd, "hangs", stop_timeout=1.0) as program:
        program.expect_in_any_order("a init", "b init", "c init")
        fake_circusd.wait_subscribed(3)
        program.process.send_signal(signal.SIGTERM)
        program.expect("c stop", "b stop", "a stop")
        status, out, err = program.finish()
    assert status == 0
    assert "handle_stop: TimeoutError: it did not return" in out
    assert "threading.Event().wait()" in err or "in wait" in err  # the stack


@pytest.mark.parametrize("swallows", [False, True])
def test_once_a_handle_stop_has_used_up_time_that_was_over_the_next_get_less(
    swallows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang() -> None:
        with contextlib.suppress(stop_guard.StopOverrun if swallows else ()):
            threading.Event().wait()

    monkeypatch.setattr(stop_guard, "_LEAST", 0.2)
    guard = stop_guard.StopGuard(600.0)
    guard.begin(0.0)
    if swallows:
        guard.run(hang)
    else:
        with pytest.raises(TimeoutError, match=r"within 0\.2 s$"):
            guard.run(hang)
    for _ in range(2):
        with pytest.raises(TimeoutError, match=r"within 0\.1 s$"):
            guard.run(threading.Event().wait)


def _wait_for_text(caplog: pytest.LogCaptureFixture, text: str) -> None:
    seen = threading.Event()
    handler = logging.Handler()
    handler.emit = lambda record: seen.set() if text in record.getMessage() else None
    logger = logging.getLogger("circusplug")
    logger.addHandler(handler)
    try:
        assert text in caplog.text or seen.wait(PATIENCE)
    finally:
        logger.removeHandler(handler)


def _retry_for_ever() -> None:
    while True:
        with contextlib.suppress(BaseException):
            threading.Event().wait()


def _retry_and_clean_up() -> None:
    while True:
        try:
            threading.Event().wait()
        except BaseException:
            for _ in range(3):
                threading.Event().wait(0)


@pytest.mark.parametrize("retry", [_retry_for_ever, _retry_and_clean_up])
def test_a_handle_stop_that_swallows_its_end_again_and_again_is_ended(
    retry: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop_guard, "_AGAIN", 0.05)
    before = signal.getsignal(signal.SIGALRM), sys.gettrace()
    with pytest.raises(TimeoutError, match=r"within 0\.1 s$"):
        stop_guard.StopGuard(0.1).run(retry)
    assert (signal.getsignal(signal.SIGALRM), sys.gettrace()) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_an_alarm_of_somebody_elses_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    rang = threading.Event()
    before = signal.signal(signal.SIGALRM, lambda *_: rang.set())
    signal.setitimer(signal.ITIMER_REAL, 600.0)
    try:
        stop_guard.StopGuard(0.05).run(lambda: _wait_for_text(caplog, "takes too long"))
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    assert not rang.is_set()


_FORKS = """
import os, select, signal, sys
from circusplug._loop.mailbox import Mailbox
from circusplug._host.signals import HostSignals

mailbox = Mailbox()
signals = HostSignals(lambda: mailbox.put("stop"), lambda: mailbox.put("reload"))
with signals.installed(mailbox.wakeup_fd):
    pid = os.fork()
    if pid == 0:
        try:
            print("forked", flush=True)
            while True:
                select.select([], [], [], 0.1)  # a signal just before would not end a pause()
        except KeyboardInterrupt:
            os._exit(7)
    sys.stdin.readline()
    os.kill(pid, int(sys.argv[1]))
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(status, select.select([mailbox._read_fd], [], [], 0)[0], mailbox.get(0.0))
    os.kill(os.getpid(), int(sys.argv[1]))
    print(mailbox.get(0.0))
"""


@pytest.mark.parametrize(
    ("number", "status", "order"),
    [(signal.SIGTERM, -15, "stop"), (signal.SIGINT, 7, "stop"), (signal.SIGHUP, -1, "reload")],
)
def test_a_process_that_a_plugin_forks_has_signals_as_usual(
    number: signal.Signals, status: int, order: str
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _FORKS, str(int(number))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "forked\n"
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.read() == f"{status} [] None\n{order}\n"


def test_to_look_for_a_terminal_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    really_open = os.open

    def open_a_file(path: str, flags: int) -> int:
        assert path == "/dev/tty"
        opened.append(really_open(__file__, flags))  # there may be no terminal here
        return opened[-1]

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_a_file)
        assert signals._has_terminal()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(*opened)
