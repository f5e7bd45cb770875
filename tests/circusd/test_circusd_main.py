# The parts of the program that becomes circusd, each alone and without circus.

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from circusplug._circusd import circusd_main
from circusplug._circusd.circusd_main import (
    GuardWatch,
    LateSignals,
    OrderlyLogger,
    PlanError,
    Report,
    WatchersHeld,
    is_worth_logging,
    note_crashes,
    run_watchers,
)


class Told:
    """A report, and what the host reads of it."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self.report = Report(self._write)

    @property
    def text(self) -> str:
        """All of it; there is no more after that."""
        os.close(self._write)
        with open(self._read) as pipe:
            return pipe.read()


@pytest.fixture
def told() -> Told:
    return Told()


def record(message: str, level: int = logging.ERROR, error: BaseException | None = None) -> Any:
    exc_info = None if error is None else (type(error), error, None)
    return logging.LogRecord("circus", level, "", 0, message, None, exc_info)


def test_the_last_error_before_it_was_ready_is_why_it_did_not_start(told: Told) -> None:
    for each in (
        record("exception an older one caught"),
        record("exception Address\nin  use caught"),
        record("a warning", logging.WARNING),
    ):
        assert told.report.filter(each)
    assert not told.report.is_ready
    told.report.failed()
    assert told.text == "failed Address in use\n"


def test_a_reason_of_any_length_is_one_line(told: Told) -> None:
    told.report.failed("two\nlines " + "x" * 5000)
    text = told.text
    assert text.startswith("failed two lines xx")
    assert text.endswith("x\n")
    assert len(text) == 4001


def test_once_it_is_ready_it_has_not_failed(told: Told) -> None:
    told.report.ready()
    told.report.ready()
    assert told.report.is_ready
    assert told.report.filter(record("an error of later"))
    told.report.failed("later")
    assert told.text == f"ready {os.getpid()}\n"


def test_a_host_that_has_gone_is_told_nothing() -> None:
    read, write = os.pipe()
    os.close(read)
    Report(write).ready()
    os.close(write)


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> dict[int, Any]:
    """What is done for signals, instead of being done."""
    found: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", found.__setitem__)
    monkeypatch.setattr(signal, "raise_signal", lambda number: found.setdefault("raised", number))
    return found


def test_a_request_to_quit_ends_a_circusd_only_before_it_is_ready(signals: dict[Any, Any]) -> None:
    is_ready = True
    late = LateSignals(lambda: is_ready)
    assert set(signals) == {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}
    handle: Callable[..., object] = signals[signal.SIGINT]
    handle(signal.SIGINT, None)
    assert "raised" not in signals
    is_ready = False
    handle(signal.SIGINT, None)
    assert (signals[signal.SIGINT], signals["raised"]) == (signal.SIG_DFL, signal.SIGINT)
    late.ignore()
    requests = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
    assert [signals[number] for number in requests] == [signal.SIG_IGN] * 3


def test_what_is_logged_while_something_is_logged_comes_after_it() -> None:
    class Interrupted(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "first":
                logger.error("second")
                other.error("third")
            seen.append((self.name, record.getMessage()))

    seen: list[tuple[str | None, str]] = []
    logger, other = OrderlyLogger("orderly"), OrderlyLogger("other")
    for each in (logger, other):
        handler = Interrupted()
        handler.name = each.name
        each.addHandler(handler)
    logger.error("first")
    logger.error("fourth")
    ours = [("orderly", text) for text in ("first", "second", "fourth")]
    assert seen == [*ours[:2], ("other", "third"), ours[2]]


class ConflictError(Exception):
    """Stands for Circus's."""


def test_only_circusds_meetings_with_itself_are_not_worth_a_traceback() -> None:
    assert not is_worth_logging(record("x", error=ConflictError()))
    assert is_worth_logging(record("x", error=ValueError()))
    assert is_worth_logging(record("x"))


def test_what_ends_circusds_loop_is_noted_and_looked_at_as_before() -> None:
    circusd = SimpleNamespace(check_future_exception_and_log=lambda future: future)
    crashes: list[object] = []
    note_crashes(circusd, crashes)
    assert circusd.check_future_exception_and_log(None) is None
    assert crashes == []
    assert circusd.check_future_exception_and_log("a crash") == "a crash"
    assert crashes == ["a crash"]


def test_who_holds_nothing_back_leaves_circus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "circus", None)
    held = WatchersHeld(0.0)
    held.install()
    held.let_go()


class Ended(BaseException):
    """Instead of the end of this process."""


class Watched:
    """A guard's death as `GuardWatch` sees it, without a thread and by the test's clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[Any] = []
        self.now = 100.0
        read, self.guard = os.pipe()
        self._read = read
        clock = SimpleNamespace(monotonic=lambda: self.now, sleep=self._sleep)
        monkeypatch.setattr(circusd_main, "time", clock)
        monkeypatch.setattr(threading.Thread, "start", lambda thread: None)
        monkeypatch.setattr(signal, "pthread_kill", lambda *what: self.done.append(what))
        monkeypatch.setattr(os, "_exit", self._exit)
        monkeypatch.setattr(circusd_main, "kill_descendants", lambda: self.done.append("killed"))
        self.watch = GuardWatch(read, 2.5, lambda: self.done.append("go"))

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def _exit(self, status: int) -> None:
        self.done.append(status)
        raise Ended

    def close(self) -> None:
        os.close(self._read)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    watched = Watched(monkeypatch)
    yield watched
    watched.close()


def test_without_its_guard_circusd_is_asked_to_quit_until_its_time_is_over(
    watched: Watched,
) -> None:
    os.write(watched.guard, b"g")
    os.close(watched.guard)
    watched.watch.clear()
    assert watched.done == []  # the guard does that
    with pytest.raises(Ended):
        watched.watch._run()
    asks = (threading.main_thread().ident, signal.SIGTERM)
    assert watched.done == ["go", asks, asks, asks, "killed", 1]
    assert watched.now == 102.5
    watched.watch.clear()
    assert watched.done[-1] == "killed"


# What a program has said, run by a stand-in for Circus.


class Circus:
    """As much of Circus as runs what a program has said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.restarts = 0
        self.crash: object = None
        self.refused = ""
        self.logger = object()
        self.logged: list[Any] = []
        self.given: list[Any] = []
        self.contexts: list[Any] = []
        module, util, sockets, zmq = (ModuleType(name) for name in ("circus", "u", "s", "zmq"))
        module.__dict__.update(get_arbiter=self._make, logger=self.logger)
        util.__dict__.update(
            check_future_exception_and_log=lambda future: future,
            configure_logger=lambda *what: self.logged.append(what),
            resolve_name=lambda name: f"function {name}",
        )
        sockets.__dict__.update(
            CircusSocket=SimpleNamespace(load_from_config=lambda item: (item["name"],))
        )
        zmq.__dict__.update(Context=self._context)
        for name, each in (
            ("circus", module),
            ("circus.util", util),
            ("circus.sockets", sockets),
            ("zmq", zmq),
        ):
            monkeypatch.setitem(sys.modules, name, each)

    def _context(self) -> Any:
        context = SimpleNamespace(destroyed=None)
        context.destroy = lambda linger: setattr(context, "destroyed", linger)
        self.contexts.append(context)
        return context

    def _make(self, watchers: Any, context: Any, **options: Any) -> Any:
        assert context is self.contexts[-1]
        taken = []
        for watcher in watchers:
            if watcher["name"] == self.refused:
                raise ValueError("it is refused")
            taken.append(dict(watcher))
            watcher.clear()  # Circus takes them apart
        self.given.append((taken, options))
        self.restarts -= 1
        return SimpleNamespace(start=lambda: self.crash, _restarting=self.restarts >= 0)


@pytest.fixture
def circus(monkeypatch: pytest.MonkeyPatch) -> Circus:
    return Circus(monkeypatch)


def plan(*names: str, **options: Any) -> dict[str, Any]:
    watchers = [{"name": name, "env": {"A": "b"}} for name in names]
    return {"watchers": watchers, "options": options, "loglevel": "warning"}


def test_what_a_program_has_said_is_said_anew_after_each_restart(circus: Circus) -> None:
    circus.restarts = 2
    with pytest.raises(SystemExit) as ended:
        run_watchers(plan("web", sockets=[{"name": "http"}], prereload_fn="a.b", umask=7))
    assert ended.value.code == 0
    options = {"sockets": [("http",)], "prereload_fn": "function a.b", "umask": 7}
    assert circus.given == [([{"name": "web", "env": {"A": "b"}}], options)] * 3
    assert [context.destroyed for context in circus.contexts] == [0, 0, None]


def test_circusds_log_is_as_the_program_says_or_as_its_own(circus: Circus) -> None:
    for options in ({}, {"loglevel": "debug", "logoutput": "file", "loggerconfig": "c"}):
        with pytest.raises(SystemExit):
            run_watchers(plan(**options))
    assert circus.logged == [
        (circus.logger, "warning", "-", None),
        (circus.logger, "debug", "file", "c"),
    ]


def test_a_circusd_of_a_program_that_crashes_fails(circus: Circus) -> None:
    circus.crash = "a crash"
    circus.restarts = 5
    with pytest.raises(SystemExit) as ended:
        run_watchers(plan())
    assert ended.value.code == 1
    assert len(circus.given) == 1


def test_what_circus_refuses_is_told_with_its_place(circus: Circus) -> None:
    circus.refused = "bad"
    with pytest.raises(PlanError, match=r"^watcher 'bad': ValueError: it is refused$"):
        run_watchers(plan("good", "bad"))
    with pytest.raises(PlanError, match=r"^'sockets': KeyError: 'name'$"):
        run_watchers(plan(sockets=[{}]))
    for looks in (list, iter):

        def fail(watchers: Any, looks: Callable[[Any], Any] = looks, **options: Any) -> None:
            looks(watchers)
            raise ValueError("endpoint")

        sys.modules["circus"].__dict__["get_arbiter"] = fail
        with pytest.raises(PlanError, match=r"^ValueError: endpoint$"):
            run_watchers(plan("good"))
