# What goes wrong in the host itself, or in its plugins at an unlucky moment: the others go on,
# every `handle_stop` runs, on the thread it should, and nobody waits for ever.

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from members import (
    Acts,
    Journal,
    MakeHost,
    Member,
    NeverInitialised,
    Stuck,
    hosting,
    in_thread,
    member,
    state_is,
)
from patience import PATIENCE

from circusplug import Arbiter, HostConfig, HostError
from circusplug._host.orders import Order
from circusplug._host.supervisor import Supervisor
from circusplug._loop.plugin_loop import PluginLoop
from circusplug._plugin.worker import Worker
from circusplug._runners.runner import Hooks
from circusplug._runners.thread_runner import ThreadRunner
from circusplug.testing import FakeCircusd


class Odd(BaseException):
    pass


class Raises(Member):
    """Raises its option `error` in `handle_stop`."""

    def handle_stop(self) -> None:
        super().handle_stop()
        raise self.config["error"]


def runner_of(supervisor: Supervisor, name: str) -> ThreadRunner:
    runner = supervisor._plugins[name].runner
    assert isinstance(runner, ThreadRunner)
    return runner


def order(arbiter: Arbiter, action: Any) -> Any:
    """Have something done on the supervising thread."""
    return arbiter._started.order(lambda supervisor: (action(supervisor), ()))


@pytest.mark.parametrize("background", [True, False], ids=["background", "blocking"])
@pytest.mark.parametrize(
    "error", [asyncio.CancelledError(), GeneratorExit(), Odd("odd"), SystemExit(3)], ids=repr
)
def test_whatever_a_handle_stop_raises_the_others_stop_all_the_same(
    host: MakeHost, journal: Journal, error: BaseException, background: bool
) -> None:
    arbiter = host(member("a"), member("bad", Raises, error=error), member("c"))
    with arbiter if background else hosting(arbiter):
        for name in ("a", "bad", "c"):
            journal.wait(name, "init")
    assert journal.names("stop") == ["c", "bad", "a"]
    assert {status.state for status in arbiter.plugins.values()} == {"stopped"}
    assert str(arbiter.plugins["bad"].last_error).startswith("handle_stop: ")


def test_a_restart_after_a_handle_stop_that_was_cancelled_comes(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd
) -> None:
    class Cancelled(Raises):
        def handle_recv(self, data: tuple[bytes, bytes]) -> None:
            raise ZeroDivisionError

    options = {"host.on_error": "restart", "host.restart_delay": 0}
    bad = member("bad", Cancelled, error=asyncio.CancelledError(), **options)
    with host(bad):
        fake_circusd.wait_subscribed()
        fake_circusd.publish("web", "spawn")
        journal.wait("bad", "init", 2)


def test_ctrl_c_in_one_handle_stop_does_not_cost_the_others_theirs(
    host: MakeHost, journal: Journal
) -> None:
    arbiter = host(member("a"), member("b", Raises, error=KeyboardInterrupt()), member("c"))
    with pytest.raises(KeyboardInterrupt), arbiter:
        pass
    assert journal.names("stop") == ["c", "b", "a"]
    arbiter.stop()
    assert {status.state for status in arbiter.plugins.values()} == {"stopped"}


def test_ctrl_c_while_stop_waits_leaves_a_host_that_can_be_stopped(
    host: MakeHost, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    arbiter = host(member("a"))
    arbiter.__enter__()
    with monkeypatch.context() as patch:
        patch.setattr(arbiter._started._aside, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            arbiter.stop()
    assert journal.names("stop") == []
    arbiter.stop()
    assert journal.names("stop") == ["a"]


def test_a_host_in_the_background_without_a_thread_left_leaves_nothing(
    host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def start_others(thread: threading.Thread) -> None:
        if thread.name == "circusplug-arbiter":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_others)
    arbiter = host(member("a"))
    with pytest.raises(HostError, match="no thread for the host: can't start new thread"), arbiter:
        pass
    assert arbiter._started.over.is_set()


def test_a_plugin_without_a_thread_left_keeps_nothing_open(
    host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    loops: list[PluginLoop] = []
    start = threading.Thread.start

    def start_others(thread: threading.Thread) -> None:
        if thread.name == "plugin:a":
            raise RuntimeError("can't start new thread")
        start(thread)

    def make_worker(*args: Any, **options: Any) -> Worker:
        worker = Worker(*args, **options)
        loops.append(worker.loop)
        return worker

    monkeypatch.setattr(threading.Thread, "start", start_others)
    arbiter = host(member("a", **{"host.restart": "never"}))
    arbiter._hooks = Hooks(make_worker=make_worker)
    with arbiter:
        status = arbiter.wait(state_is("a", "failed"), PATIENCE)["a"]
    assert "no thread for it: can't start new thread" in (status.last_error or "")
    assert [loop.is_closed() for loop in loops] == [True]


def test_a_handle_stop_may_stop_its_host(host: MakeHost, journal: Journal) -> None:
    class Thorough(Member):
        def handle_stop(self) -> None:
            arbiter.stop()
            super().handle_stop()

    arbiter = host(member("a", Thorough))
    with arbiter:
        pass
    assert journal.names("stop") == ["a"]


def test_a_plugin_that_the_system_has_no_means_for_fails_alone(
    host: MakeHost,
    journal: Journal,
    fake_circusd: FakeCircusd,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make = Worker.__init__

    def scarce(worker: Worker, name: str, *args: Any, **kwargs: Any) -> None:
        if name == "bad":
            raise OSError(errno.EMFILE, "Too many open files")
        make(worker, name, *args, **kwargs)

    monkeypatch.setattr(Worker, "__init__", scarce)
    bad = member("bad", **{"host.restart_delay": 0, "host.max_restarts": 2})
    with host(member("a"), bad, member("c")) as arbiter:
        status = arbiter.wait(state_is("bad", "failed"))["bad"]
        assert status.counters.restarts == 2
        error = "cannot be started: OSError: [Errno 24] Too many open files"
        assert status.last_error == error
        fake_circusd.wait_subscribed(2)
        fake_circusd.publish("web", "spawn")
        journal.wait("a", "spawn")
        journal.wait("c", "spawn")


def test_a_loop_that_cannot_be_made_leaves_nothing_to_complain_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_descriptors() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("socket.socketpair", no_descriptors)
    with pytest.raises(OSError, match="Too many"):
        Worker("a")


def test_handle_stop_is_the_hosts_even_if_another_thread_stops_the_plugin(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd
) -> None:
    class Leaves(Member):
        def handle_recv(self, data: tuple[bytes, bytes]) -> None:
            self.loop.stop()

    with host(member("a", Leaves)) as arbiter:

        def while_parked(supervisor: Supervisor) -> None:
            runner = runner_of(supervisor, "a")
            fake_circusd.publish("web", "spawn")
            assert runner._worker is not None
            assert runner._worker.parked.wait(PATIENCE)
            in_thread(arbiter.instance("a").stop)
            assert journal.names("stop") == []

        fake_circusd.wait_subscribed()
        in_thread(lambda: order(arbiter, while_parked))
        arbiter.wait(state_is("a", "stopped"))
        assert journal.thread("a", "stop").name == "circusplug-arbiter"


def test_lives_that_were_given_up_and_are_over_are_forgotten(
    host: MakeHost, journal: Journal, release: threading.Event
) -> None:
    release.set()
    with host(member("a")) as arbiter:
        for _ in range(3):
            runner = order(arbiter, lambda supervisor: runner_of(supervisor, "a"))
            arbiter.stop_plugin("a")
            order(arbiter, lambda supervisor, runner=runner: supervisor._leave_behind(runner))
            arbiter.start_plugin("a")
        assert order(arbiter, lambda supervisor: supervisor._left_behind) == []


def test_a_life_whose_thread_goes_on_after_its_stop_is_not_forgotten(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd, release: threading.Event
) -> None:
    with host(member("a", Stuck, **{"host.graceful_timeout": 0})) as arbiter:
        fake_circusd.wait_subscribed()
        fake_circusd.publish("web", "block")
        journal.wait("a", "block")
        arbiter.stop_plugin("a")
        assert not order(arbiter, lambda supervisor: supervisor.all_ended)
        release.set()
        journal.thread("a", "block").join(PATIENCE)
        assert order(arbiter, lambda supervisor: supervisor.all_ended)


def test_a_plugin_that_has_come_up_is_not_given_up_for_a_host_that_is_busy(
    host: MakeHost,
    release: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slow(NeverInitialised):
        def handle_connect(self) -> None:
            initialised.release()

    initialised = threading.Semaphore(0)
    monkeypatch.setattr("circusplug._host.managed_plugin.READY_WAIT", 0.05)
    with host(member("slow", Slow)) as arbiter:

        def overdue(supervisor: Supervisor) -> str:
            release.set()
            plugin = supervisor._plugins["slow"]
            assert initialised.acquire(timeout=PATIENCE)
            plugin._start_deadline = 0.0
            plugin.run_timers(0.0)
            return plugin.state

        assert in_thread(lambda: order(arbiter, overdue)) == "starting"
        assert arbiter.wait(state_is("slow", "running"))["slow"].counters.restarts == 0


def test_what_is_given_up_in_its_constructor_is_not_initialised(
    host: MakeHost, journal: Journal, release: threading.Event
) -> None:
    class Slow(Member):
        def __init__(self, *args: Any, **config: Any) -> None:
            super().__init__(*args, **config)
            config["release"].wait(PATIENCE)

        def stop(self) -> None:
            super().stop()
            self.note("stopped")

    slow = member("slow", Slow, **{"host.restart": "never", "host.start_timeout": 0.1})
    with host(slow) as arbiter:
        status = arbiter.wait(state_is("slow", "failed"))["slow"]
        assert status.last_error == "not initialised after 0.1 s"
        release.set()
        journal.wait("slow", "stopped")
        journal.thread("slow", "stopped").join(PATIENCE)
    assert journal.of("slow") == ["stopped"]


@pytest.mark.parametrize("graceful_timeout", [0, 5], ids=["plugin", "host"])
def test_a_plugin_that_waits_for_events_is_stopped_without_any_grace(
    host: MakeHost,
    journal: Journal,
    graceful_timeout: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What a plugin always gets, be its grace what it may; more of it on a busy machine.
    monkeypatch.setattr("circusplug._plugin.plugin_thread.PARK_WAIT", PATIENCE)
    plugins = [member(name, **{"host.graceful_timeout": graceful_timeout}) for name in "abc"]
    with host(*plugins, stop_timeout=0.0 if graceful_timeout else 10.0) as arbiter:
        pass
    assert journal.names("stop") == ["c", "b", "a"]
    assert {status.state for status in arbiter.plugins.values()} == {"stopped"}


def test_a_plugin_that_stops_its_loop_while_it_parks_is_stopped_cleanly(
    host: MakeHost, journal: Journal
) -> None:
    class Undone(Member):
        def handle_init(self) -> None:
            super().handle_init()
            self.task = self.loop.create_task(self.wait())

        async def wait(self) -> None:
            try:
                await asyncio.sleep(PATIENCE)
            finally:
                self.loop.stop()

    with host(member("a", Undone)) as arbiter:
        pass
    status = arbiter.plugins["a"]
    assert (status.state, status.last_error) == ("stopped", None)
    assert journal.of("a") == ["init", "stop"]


def test_orders_given_in_a_handle_stop_are_carried_out_after_it(
    host: MakeHost, journal: Journal
) -> None:
    class Renews(Member):
        def handle_stop(self) -> None:
            if self.journal.count("a", "init") == 1:
                arbiter.restart_plugin("a")
                arbiter.add_plugin({"use": Member, "name": "late", "journal": self.journal})
            super().handle_stop()

    with host(member("a", Renews)) as arbiter:
        arbiter.stop_plugin("a")
        journal.wait("late", "init")
        assert journal.of("a") == ["init", "stop", "init"]
    assert journal.names("stop") == ["a", "late", "a"]


def test_an_order_of_a_plugin_that_fails_is_logged(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd, caplog: pytest.LogCaptureFixture
) -> None:
    def remove() -> None:
        arbiter.remove_plugin("nobody")

    with host(member("a", Acts, act=remove)) as arbiter:
        fake_circusd.wait_subscribed()
        fake_circusd.publish("web", "spawn")
        journal.wait("a", "spawn")
        in_thread(lambda: order(arbiter, lambda _: None))  # behind it in the mailbox
    assert "there is no plugin named 'nobody'; there are: a" in caplog.text


def test_a_configuration_that_cannot_be_read_for_any_reason_changes_nothing(
    host: MakeHost,
    journal: Journal,
    fake_circusd: FakeCircusd,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def read() -> HostConfig:
        raise ValueError("a defect of the caller's")

    config = host(member("a")).config
    with Arbiter.from_config(config, reload=read) as arbiter:
        in_thread(lambda: order(arbiter, lambda _: arbiter._reloads.begin()))
        for thread in threading.enumerate():
            if thread.name == "circusplug-reload":
                thread.join(PATIENCE)
        fake_circusd.wait_subscribed()
        fake_circusd.publish("web", "spawn")
        journal.wait("a", "spawn")
    assert "not reloaded, all stays as it was" in caplog.text
    assert "ValueError: a defect of the caller's" in caplog.text


def test_a_new_stop_timeout_holds_for_handle_stop_too(host: MakeHost) -> None:
    with host(member("a"), stop_timeout=1.0) as arbiter:
        arbiter.reconfigure(replace(arbiter.config, stop_timeout=30.0))
        assert arbiter._started._guard.seconds == 30.0


def test_all_handle_stops_of_a_host_that_stops_share_its_stop_timeout(host: MakeHost) -> None:
    with host(member("a"), stop_timeout=1e6) as arbiter:
        arbiter.reconfigure(replace(arbiter.config, stop_timeout=1e9))
        guard, before = arbiter._started._guard, time.monotonic()
        assert guard._deadline is None
    assert guard._deadline is not None
    assert before + 1e9 <= guard._deadline <= time.monotonic() + 1e9


def test_a_circusd_that_is_not_there_is_told_of_once(
    host: MakeHost, tmp_path: Path, caplog: pytest.LogCaptureFixture, absent_soon: None
) -> None:
    elsewhere = {key: f"ipc://{tmp_path / key}" for key in ("endpoint", "pubsub_endpoint")}
    with host(*map(member, "abc")) as arbiter:
        arbiter.reconfigure(replace(arbiter.config, **elsewhere))
        arbiter.wait(lambda _: "no circusd at" in caplog.text, PATIENCE)
    assert caplog.text.count("no circusd at ipc://") == 1


def test_a_host_in_the_background_that_fails_stops_its_plugins_and_says_why(
    host: MakeHost,
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_: Supervisor) -> None:
        raise ZeroDivisionError("a defect of the host's")

    arbiter = host(member("a"), member("b"))
    with arbiter:
        monkeypatch.setattr(Supervisor, "run_timers", fail)
        arbiter._started._mailbox.put(None)  # type: ignore[arg-type]
        order_after = threading.Thread(target=arbiter.stop)
        journal.wait("a", "stop")
        order_after.start()
        order_after.join(PATIENCE)
    assert journal.names("stop") == ["b", "a"]
    assert arbiter.failure == "ZeroDivisionError: a defect of the host's"
    assert "the host has failed" in caplog.text


def test_a_host_that_fails_stops_its_plugins_and_raises_why(
    host: MakeHost, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Supervisor) -> None:
        raise ZeroDivisionError("a defect of the host's")

    arbiter = host(member("a"), member("b"))
    with hosting(arbiter) as raised:
        for name in "ab":
            journal.wait(name, "init")
        monkeypatch.setattr(Supervisor, "run_timers", fail)
        arbiter._started._mailbox.put(None)  # type: ignore[arg-type]
        journal.wait("a", "stop")
    assert journal.names("stop") == ["b", "a"]
    assert [type(error) for error in raised] == [ZeroDivisionError]


def test_a_host_in_the_background_that_fails_at_once_says_so_instead_of_waiting(
    host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Supervisor) -> None:
        raise ZeroDivisionError("a defect of the host's")

    told: list[str] = []

    def start() -> None:
        try:
            host(member("a")).__enter__()
        except HostError as error:
            told.append(str(error))

    monkeypatch.setattr(Supervisor, "run_timers", fail)
    starting = threading.Thread(target=start, daemon=True)
    starting.start()
    starting.join(PATIENCE)
    assert told == ["ZeroDivisionError: a defect of the host's"]


def test_who_asks_for_something_as_the_host_stops_is_told(host: MakeHost) -> None:
    told: list[str] = []

    def ask() -> None:
        try:
            arbiter.restart_plugin("a")
        except HostError as error:
            told.append(str(error))

    asking = threading.Thread(target=ask, daemon=True)

    def stop_meanwhile(_: Supervisor) -> None:
        asking.start()
        while not any(isinstance(item, Order) for item in arbiter._started._mailbox._items.copy()):
            os.sched_yield()
        arbiter.stop()

    with host(member("a")) as arbiter:
        with contextlib.suppress(HostError):
            in_thread(lambda: order(arbiter, stop_meanwhile))
        asking.join(PATIENCE)
        assert told == ["the host has stopped"]


def test_a_handler_that_is_cancelled_by_its_own_doing_is_counted_and_the_next_event_comes(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd, caplog: pytest.LogCaptureFixture
) -> None:
    class Cancelled(Member):
        def handle_recv(self, data: tuple[bytes, bytes]) -> Any:
            self.note(self.parse_event(data).action)
            if self.config["asynchronous"]:
                return self.give_up()
            raise asyncio.CancelledError

        async def give_up(self) -> None:
            future = self.loop.create_future()
            future.cancel()
            await future

    plugins = [
        member("sync", Cancelled, asynchronous=False),
        member("async", Cancelled, asynchronous=True),
    ]
    with host(*plugins) as arbiter, caplog.at_level(logging.ERROR):
        fake_circusd.wait_subscribed(2)
        for _ in range(3):
            fake_circusd.publish("web", "spawn")
        arbiter.wait(lambda now: all(status.counters.errors == 3 for status in now.values()))
        for status in arbiter.plugins.values():
            assert (status.counters.received, status.counters.handled) == (3, 0)
            assert status.last_error == "handle_recv: CancelledError"


@pytest.mark.leaves_thread("a plugin blocks beyond its grace time, and is left behind")
def test_the_thread_that_is_left_behind_may_not_run_handle_stop_again(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd, release: threading.Event
) -> None:
    class Late(Stuck):
        def block(self) -> None:
            super().block()
            self.stop()
            self.note("back")

    with host(member("a", Late, **{"host.graceful_timeout": 0.05})) as arbiter:
        fake_circusd.wait_subscribed()
        fake_circusd.publish("web", "block")
        journal.wait("a", "block")
    os.fstat(arbiter._started._mailbox.wakeup_fd)  # where that thread may still write
    release.set()
    journal.wait("a", "back")
    assert journal.of("a") == ["init", "block", "stop", "back"]


def test_without_a_forkserver_the_host_says_why_it_does_not_start(
    host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError("AF_UNIX path too long")

    monkeypatch.setattr("circusplug._isolated.forkserver.start_forkserver", fail)
    with pytest.raises(HostError, match=r"isolated plugins come from: AF_UNIX path too long"):
        host(member("a", isolate=True)).start()


def test_an_event_larger_than_allowed_costs_the_connection_and_no_more(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug._plugin.event_connection.RENEW_INTERVAL", 0.05)
    with host({**member("one"), "host.max_message": "1K"}) as arbiter:
        fake_circusd.wait_subscribed()
        fake_circusd.publish("web", "spawn", text="x" * 2000)
        arbiter.wait(lambda now: now["one"].counters.reconnects == 1, PATIENCE)
        fake_circusd.wait_subscribed()
        fake_circusd.publish("web", "reap")
        journal.wait("one", "reap")
    assert "spawn" not in journal.of("one")
