# Whatever an isolated plugin does, it harms nobody else: each case has a sibling in the same
# host whose events must go on being handled, while the trouble lasts and after it.

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import Any

import psutil
import pytest
from command import assert_ends
from hosts import all_run
from patience import PATIENCE
from scene import Scene, scene
from troublemakers import Deaf, Talker

from circusplug import Arbiter
from circusplug._host import managed_plugin
from circusplug.testing import FakeCircusd

pytestmark = pytest.mark.usefixtures("unhurried_end")


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
def test_one_that_does_not_answer_is_stopped_by_force(
    stage: Scene, deed: str, soon_forced: None
) -> None:
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


@pytest.mark.parametrize(("deed", "place"), [("keep lock", "do_keep_lock"), ("freeze", "signal")])
def test_one_whose_main_thread_is_stopped_as_well_is_a_stall_and_restarted(
    deed: str, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"host.stall_timeout": 0.5, "host.on_stall": "restart"}
    with scene(**options) as stage:
        stage.make(deed)
        stage.wait_replaced()
        stage.assert_siblings_work()
    assert place in caplog.text


def test_its_stack_is_asked_of_its_process(stage: Scene, request: pytest.FixtureRequest) -> None:
    stage.make("hang")
    stage.wait_said("hangs")
    runner: Any = stage.arbiter._started.supervisor._plugins["trouble"].runner
    stage.arbiter.wait(lambda _: "released.wait(" in runner.stack(), PATIENCE)
    request.getfixturevalue("soon_forced")
    os.kill(runner.pid, signal.SIGSTOP)
    stage.arbiter.wait(lambda _: runner.busy_since and runner._life.paused_at, PATIENCE)
    assert "stopped by a signal" in runner.stack()


def test_one_that_ignores_all_signals_is_stopped_by_force(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with scene(use=Deaf, stop_timeout=0.5) as stage:
        process = stage.process
        stage.make("deafen")
        stage.wait_said("deaf")
        stage.assert_siblings_work()
        stage.arbiter.stop_plugin("trouble")
        assert stage.trouble.state == "stopped"
        assert not process.is_running()
        assert "trouble does not end; killing it" in caplog.text
        stage.assert_siblings_work()
        for sibling in ("process", "thread"):  # here they have their graceful_timeout for it
            stage.arbiter.stop_plugin(sibling)


def test_a_hang_of_its_handle_stop_is_ended_by_the_hosts_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What one that does not hang gets when the time for all is over; here, for a busy machine.
    monkeypatch.setattr("circusplug._isolated.process_runner._STOP_LEAST", 2.0)
    plugins = [
        {"use": Talker, "name": "first"},
        {"use": Deaf, "name": "deaf", "isolate": True},
        {"use": Talker, "name": "last", "isolate": True},
    ]
    with FakeCircusd() as circusd:
        arbiter = Arbiter(plugins, circusd.endpoint, circusd.pubsub_endpoint, stop_timeout=2.0)
        with arbiter:
            arbiter.wait(all_run, PATIENCE)
        stopped = [command.properties["plugin"] for command in circusd.commands[3:]]
        assert stopped == ["last", "deaf", "first"]
        assert {status.state for status in arbiter.plugins.values()} == {"stopped"}


def test_an_isolated_plugin_that_hangs_in_its_start_can_be_stopped(
    monkeypatch: pytest.MonkeyPatch, soon_forced: None
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


@pytest.mark.parametrize("rain", ["prints", "logs", "reports"])
def test_a_flood_of_what_it_says_is_dropped_and_counted(
    rain: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("circusplug._isolated.child_output._NEXT_REPORT", 0.5)
    monkeypatch.setattr("circusplug._isolated.child_output.BURST", 128 * 1024)
    megabyte = 1024 * 1024
    with scene(rain=rain) as stage:
        before = psutil.Process().memory_info().rss
        with Heard("lines of its output dropped") as heard:
            stage.make("rain")
            heard.wait()
        stage.assert_siblings_work()
        with Heard("lines of its output dropped") as heard:  # half a second later
            heard.wait()
        assert psutil.Process().memory_info().rss - before < 32 * megabyte
    assert len(capfd.readouterr().out) < 8 * megabyte


class Heard(logging.Handler):
    """Waits until the host logs a text; a context manager."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        self._event = threading.Event()

    def __enter__(self) -> Heard:
        logging.getLogger("circusplug").addHandler(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        logging.getLogger("circusplug").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if self._text in record.getMessage():
            self._event.set()

    def wait(self) -> None:
        assert self._event.wait(PATIENCE)


def test_memory_beyond_its_limit_is_its_own_problem() -> None:
    with scene(**{"host.rlimit_as": 3 * 2**29}) as stage:
        pid = stage.trouble.pid
        stage.make("hog")
        stage.wait_said("hogged")
        after = stage.wait(lambda status: status.counters.errors)
        stage.assert_siblings_work()
        assert "MemoryError" in str(after.last_error)
        assert after.pid == pid


def test_megabytes_of_output_do_not_stay_in_the_host(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug._isolated.child_output._REST", 0.001)
    megabyte = 1024 * 1024
    with scene(flood=16 * megabyte) as stage:
        stage.assert_siblings_work()
        before = psutil.Process().memory_info().rss
        stage.make("flood")
        stage.assert_siblings_work()
        stage.wait_said("flooded")
        grown = psutil.Process().memory_info().rss - before
        assert grown < 12 * megabyte
    assert capfd.readouterr().out.startswith("[trouble] a line that says nothing in particular")


def test_nonsense_on_its_pipes_is_shown_and_goes_no_further(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with scene() as stage:
        stage.make("gibber")
        stage.wait(lambda status: status.state != "running" or status.counters.handled)
        stage.assert_siblings_work()
    assert '[trouble] {"is": [nonsense' in capfd.readouterr().err
