# The runner on a thread, without a host: what it tells its supervisor of the ways in which a life
# may go, and what it tells of itself.

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from patience import PATIENCE

from circusplug import (
    CallError,
    CallTimeout,
    CircusPlugin,
    Counters,
    HostConfig,
    HostError,
    HostOptions,
    PluginSpec,
    SpecError,
)
from circusplug._logs import PLUGIN_LOGGER
from circusplug._plugin.owner import CircusdAway
from circusplug._plugin.worker import Worker
from circusplug._runners.runner import Hooks, Kind, Notice, Surroundings
from circusplug._runners.thread_runner import ThreadRunner
from circusplug._wire.endpoints import Link
from circusplug.testing import FakeCircusd


class Does(CircusPlugin):
    """Does in its constructor what its option says."""

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        config.get("does", lambda: None)()

    def handle_recv(self, data: Any) -> None:
        self.config["receives"]()


class Bench:
    """Runners, and all that is told of them."""

    def __init__(self, circusd: FakeCircusd) -> None:
        self.notices: list[Notice] = []
        self.exceptions: list[tuple[str, BaseException]] = []
        self.constructed: list[tuple[str, object]] = []
        self.activity = threading.Event()
        self.workers: list[tuple[Any, ...]] = []
        self._told = threading.Condition()
        self.around = Surroundings(
            HostConfig((), circusd.endpoint, circusd.pubsub_endpoint),
            Link(circusd.endpoint, circusd.pubsub_endpoint, connect_wait=PATIENCE),
            self._notify,
            self.activity.set,
            hooks=Hooks(
                lambda *what: self.constructed.append(what),
                lambda *what: self.exceptions.append(what),
                self._make_worker,
            ),
        )

    def make(self, use: Any = Does, host: HostOptions | None = None, **config: Any) -> ThreadRunner:
        spec = PluginSpec("a", use, config, host=host or HostOptions())
        return ThreadRunner(spec, self.around, Counters())

    def wait(self, kind: Kind) -> Notice:
        with self._told:
            assert self._told.wait_for(lambda: kind in self.kinds(), PATIENCE)
        return next(each for each in self.notices if each.kind is kind)

    def kinds(self) -> list[Kind]:
        return [each.kind for each in self.notices]

    def stop(self, runner: ThreadRunner) -> bool:
        runner.begin_stop(1e12)
        return runner.finish_stop(1e12)

    def _make_worker(self, name: str, link: Link, **more: Any) -> Worker:
        self.workers.append((name, link, more))
        return Worker(name, link, **more)

    def _notify(self, notice: Notice) -> None:
        with self._told:
            self.notices.append(notice)
            self._told.notify_all()


@pytest.fixture
def bench(fake_circusd: FakeCircusd) -> Iterator[Bench]:
    bench = Bench(fake_circusd)
    yield bench
    for thread in threading.enumerate():
        if thread.name == "plugin:a":
            thread.join(PATIENCE)


def test_a_life_is_told_of_from_its_beginning_to_its_end(
    bench: Bench, fake_circusd: FakeCircusd
) -> None:
    host = HostOptions(max_message=1234, graceful_timeout=PATIENCE)
    runner = bench.make(host=host, receives=lambda: None)
    assert (runner.running, runner.connected, runner.awaits_circusd) == (False, False, False)
    assert (runner.thread, runner.pid, runner.busy_since) == (None, None, 0.0)
    assert (runner.instance, runner.last_error, runner.stack()) == (None, None, "")
    assert runner.finish_stop(0.0)  # it has not even begun
    runner.start()
    bench.wait(Kind.RUNNING)
    ((name, link, more),) = bench.workers
    assert (name, link.max_message, more["owner"]) == ("a", 1234, runner)
    assert more["counters"] is runner.counters
    assert (runner.running, runner.connected, runner.awaits_circusd) == (True, True, False)
    assert runner.thread is not None
    assert (runner.thread.name, runner.pid) == ("plugin:a", os.getpid())
    assert bench.constructed == [("a", runner.instance)]
    assert "plugin_thread" in runner.stack() or "thread_runner" in runner.stack()
    assert bench.activity.is_set()  # the watch for stalls has to look at its first round
    fake_circusd.wait_subscribed(1, PATIENCE)
    bench.activity.clear()
    fake_circusd.publish("web", "spawn")
    assert bench.activity.wait(PATIENCE)  # and whenever there is something to do
    assert bench.stop(runner)
    bench.wait(Kind.ENDED)
    assert bench.kinds() == [Kind.BEGUN, Kind.RUNNING, Kind.PARKED, Kind.ENDED]
    end = bench.notices[-1]
    assert (end.runner, end.error, end.permanent, end.retry) == (runner, None, False, False)
    assert (runner.running, runner.thread, runner.pid) == (False, None, None)


def test_one_waits_for_circusd_only_between_its_constructor_and_its_running(
    bench: Bench, release: threading.Event
) -> None:
    at_init = threading.Event()

    class Waits(Does):
        def handle_init(self) -> None:
            release.clear()
            at_init.set()
            assert release.wait(PATIENCE)

    nobody = "ipc:///nonexistent/commands", "ipc:///nonexistent/events"
    bench.around = replace(bench.around, link=Link(*nobody, connect_wait=0.0))
    runner = bench.make(Waits, does=lambda: release.wait(PATIENCE))
    runner.start()
    bench.wait(Kind.BEGUN)
    assert not runner.awaits_circusd
    release.set()
    assert at_init.wait(PATIENCE)
    assert runner.awaits_circusd
    release.set()
    bench.wait(Kind.RUNNING)
    assert (runner.awaits_circusd, runner.connected) == (False, False)
    assert bench.stop(runner)


def leave(status: object) -> Callable[[], None]:
    return lambda: sys.exit(status)  # type: ignore[arg-type]


def fail(error: BaseException, cause: BaseException | None = None) -> Callable[[], None]:
    def raise_it() -> None:
        raise error from cause

    return raise_it


@pytest.mark.parametrize(
    ("does", "error", "permanent", "traceback"),
    [
        (leave(None), None, False, False),
        (leave(0), None, False, False),
        (leave(3), "left by sys.exit(3)", False, False),
        (leave("had enough"), "left by sys.exit('had enough')", False, False),
        (fail(SpecError("'colour' is wrong")), "'colour' is wrong", True, False),
        (fail(HostError("it says it all")), "it says it all", False, False),
        (fail(HostError("of an import"), OSError("inside")), "of an import", False, True),
        (fail(CallError("no", {})), "CallError: no: unknown", False, True),
        (fail(ZeroDivisionError("odd")), "ZeroDivisionError: odd", False, True),
    ],
)
def test_why_a_life_has_ended_is_told_with_a_traceback_where_that_says_more(
    bench: Bench,
    does: Callable[[], None],
    error: str | None,
    permanent: bool,
    traceback: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    runner = bench.make(does=does, host=HostOptions(graceful_timeout=0))
    runner.start()
    end = bench.wait(Kind.ENDED)
    assert (end.error, end.permanent, end.retry) == (error, permanent, False)
    assert (runner.failure, runner.last_error) == (error, error)
    assert [name for name, _ in bench.exceptions] == (["a"] if error is not None else [])
    assert ("cannot start" in caplog.text) == traceback
    told = [record.exc_info[1] for record in caplog.records if record.exc_info is not None]
    raised = [each for _, each in bench.exceptions]
    assert told == ([raised[0].__cause__ or raised[0]] if traceback else [])
    assert bench.stop(runner)  # and nothing of it is left
    assert "is still busy" not in caplog.text


def test_a_handle_stop_that_fails_is_told_of_and_the_life_is_over(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    class Fails(Does):
        def handle_stop(self) -> None:
            raise ZeroDivisionError("odd")

    runner = bench.make(Fails)
    runner.start()
    bench.wait(Kind.RUNNING)
    assert bench.stop(runner)
    assert [(name, str(error)) for name, error in bench.exceptions] == [("a", "odd")]
    assert (runner.counters.errors, runner.failure) == (1, None)
    assert runner.last_error == "handle_stop: ZeroDivisionError: odd"
    assert "a: handle_stop failed" in caplog.text


class Keeps(Does):
    """Hands over what it is asked for, and notes that."""

    def handle_init(self) -> None:
        self.config.get("begins", lambda: None)()

    def get_state(self) -> str:
        self.config["asked"].append("get")
        return "state"

    def set_state(self, state: str) -> None:
        self.config["asked"].append(f"set {state}")


def away() -> None:
    raise CallTimeout("list", {}, "circusd cannot be reached")


@pytest.mark.parametrize("how", ["lives", "stuck", "waits"])
def test_only_a_life_that_has_come_to_run_and_goes_well_is_asked_for_its_state(
    how: str, bench: Bench, fake_circusd: FakeCircusd, release: threading.Event
) -> None:
    asked: list[str] = []
    entered = threading.Event()

    def block() -> None:
        entered.set()
        assert release.wait(PATIENCE)

    receives = block if how == "stuck" else entered.set
    begins = away if how == "waits" else lambda: None
    if how == "waits":
        nobody = "ipc:///nonexistent/commands", "ipc:///nonexistent/events"
        bench.around = replace(bench.around, link=Link(*nobody, connect_wait=0.0))
    host = HostOptions(graceful_timeout=0.05 if how == "stuck" else PATIENCE)
    runner = bench.make(Keeps, host, receives=receives, begins=begins, asked=asked)
    runner.hands_over = True
    runner.start()
    bench.wait(Kind.WAITING if how == "waits" else Kind.RUNNING)
    if how != "waits":
        fake_circusd.wait_subscribed(1, PATIENCE)
        fake_circusd.publish("web", "spawn")
        assert entered.wait(PATIENCE)
    runner.begin_stop(time.monotonic() + PATIENCE)
    ended = runner.finish_stop(time.monotonic() + (0.1 if how == "stuck" else PATIENCE))
    assert ended == (how != "stuck")
    assert (asked, runner.saved) == ((["get"], "state") if how == "lives" else ([], None))
    release.set()


def test_circusd_s_absence_is_no_failure_and_may_be_tried_again(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    runner = bench.make(does=fail(CircusdAway("circusd is away")))
    runner.start()
    end = bench.wait(Kind.ENDED)
    assert (end.error, end.permanent, end.retry) == ("circusd is away", False, True)
    assert bench.exceptions == []
    assert caplog.text == ""
    assert bench.stop(runner)


def test_its_log_level_holds_from_its_constructor_on_and_for_that_life_alone(
    bench: Bench,
) -> None:
    levels: list[int] = []
    speaker = logging.getLogger(PLUGIN_LOGGER + "a")
    for loglevel in ("error", None):
        runner = bench.make(
            host=HostOptions(loglevel=loglevel), does=lambda: levels.append(speaker.level)
        )
        runner.start()
        assert bench.wait(Kind.RUNNING).runner is runner
        assert bench.stop(runner)
        bench.notices.clear()
    assert levels == [logging.ERROR, logging.NOTSET]


@pytest.mark.parametrize(("on_error", "told"), [("continue", 0), ("stop", 1), ("restart", 1)])
def test_too_many_errors_are_told_of_once(
    bench: Bench, fake_circusd: FakeCircusd, on_error: str, told: int
) -> None:
    host = HostOptions(on_error=on_error, max_errors=2)
    receives = fail(ZeroDivisionError("no good"))
    runner = bench.make(host=host, receives=receives)
    runner.start()
    bench.wait(Kind.RUNNING)
    fake_circusd.wait_subscribed(1, PATIENCE)
    for _ in range(4):
        fake_circusd.publish("web", "spawn")
    while runner.counters.errors < 4:
        pass
    assert bench.stop(runner)
    many = [each for each in bench.notices if each.kind is Kind.TOO_MANY_ERRORS]
    assert [each.error for each in many] == ["handle_recv: ZeroDivisionError: no good"] * told
    assert [name for name, _ in bench.exceptions] == ["a"] * 4
    assert runner.last_error == "handle_recv: ZeroDivisionError: no good"


def test_a_plugin_is_active_once_it_is_hosted_whatever_has_become_of_its_config(
    bench: Bench,
) -> None:
    class Drops(CircusPlugin):
        def __init__(self, *args: Any, **config: Any) -> None:
            super().__init__(*args, active=False)

        def handle_recv(self, data: Any) -> None:
            pass

    runner = bench.make(Drops)
    runner.start()
    bench.wait(Kind.RUNNING)
    assert bench.stop(runner)
