# How a plugin ends: stop, handle_stop, sys.exit, and what is under way then.

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import pytest
from fixture_types import Run
from noting_plugins import Frames, Noting, Seen, Stops, Works
from patience import PATIENCE

from circusplug import CallTimeout, PluginStateError
from circusplug.testing import FakeCircusd


def test_stop_may_be_called_by_a_handler_which_is_finished_first(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class StopsItself(Stops):
        def handle_recv(self, data: Frames) -> None:
            self.stop()
            self.stop()
            super().handle_recv(data)

    running = run_plugin(StopsItself, seen=seen)
    fake_circusd.publish("web", "spawn")
    assert seen.take() == "spawn"
    assert seen.take()[0] == "handle_stop"
    assert running.wait(lambda status: status.state == "stopped").last_error is None
    assert seen.empty


def test_stop_may_be_called_twice_and_from_any_thread(run_plugin: Run, seen: Seen) -> None:
    running = run_plugin(Stops, seen=seen)
    plugin = running.plugin
    stoppers = [threading.Thread(target=plugin.stop) for _ in range(4)]
    for stopper in stoppers:
        stopper.start()
    for stopper in stoppers:
        stopper.join(PATIENCE)
    running.wait(lambda status: status.state == "stopped")
    plugin.stop()
    assert seen.take()[0] == "handle_stop"
    assert seen.empty
    assert not plugin.running


def test_in_handle_stop_nothing_of_the_plugin_runs_and_calls_still_work(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Busy(Noting):
        stopping = False

        def handle_init(self) -> None:
            self.periodic(self.look, 0.0005)
            self.loop.create_task(self.spin())
            self.timer = self.loop.call_later(3600, self.look)

        def handle_recv(self, data: Frames) -> None:
            self.look()

        def look(self) -> None:
            if self.stopping:
                self.seen.note("ran while stopping")

        async def spin(self) -> None:
            while True:
                await asyncio.sleep(0)
                self.look()

        def handle_stop(self) -> None:
            self.stopping = True
            self.timer.cancel()
            for _ in range(20):
                self.call("list")
                self.cast("incr", name="web")
            self.seen.note(len(self.call("list")["watchers"]))

    running = run_plugin(Busy, seen=seen)
    publisher = threading.Thread(target=fake_circusd.publish_many, args=(20000, "web", "spawn"))
    publisher.start()
    running.wait_received(100)
    running.stop()
    publisher.join(PATIENCE)
    assert seen.take() == 0
    assert seen.empty
    assert running.counters.calls == 41


def test_handle_stop_can_join_a_thread_whose_call_is_under_way(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Joins(Works):
        def work(self) -> None:
            try:
                self.seen.note(self.call("list", timeout=PATIENCE)["watchers"])
            except Exception as error:
                self.seen.note(repr(error))

        def handle_stop(self) -> None:
            hold.release()
            self.thread.join()

    hold = fake_circusd.hold("list")
    running = run_plugin(Joins, seen=seen, **{"host.graceful_timeout": PATIENCE})
    hold.wait()
    running.stop()
    assert seen.take() == []


def test_a_call_under_way_without_a_reply_fails_when_the_plugin_ends(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    def ask() -> None:
        try:
            plugin.call("list", timeout=PATIENCE)
        except Exception as error:
            seen.note(type(error))

    hold = fake_circusd.hold("list")
    running = run_plugin(Noting, seen=seen)
    plugin = running.plugin
    asker = threading.Thread(target=ask)
    asker.start()
    hold.wait()
    running.stop()
    asker.join(PATIENCE)
    assert seen.take() is PluginStateError
    for use in (plugin.call, plugin.cast):
        with pytest.raises(PluginStateError, match="not connected"):
            use("list")


def test_a_deadline_passes_while_the_plugin_is_parked(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Joins(Works):
        def work(self) -> None:
            try:
                self.call("list", timeout=0.5)
            except CallTimeout as error:
                self.seen.note(str(error))

        def handle_stop(self) -> None:
            self.thread.join()
            self.seen.note(self.call("numwatchers")["numwatchers"])

    # The plugin's thread is to say so itself, however late it gets to it.
    monkeypatch.setattr("circusplug._plugin.calls_from_threads.SLACK", PATIENCE)
    fake_circusd.silence("list")
    running = run_plugin(Joins, seen=seen)
    fake_circusd.wait_command("list")
    running.stop()
    assert seen.take_all(2) == ["list: no reply within 0.5 s", 0]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("code", "state", "error"),
    [(None, "stopped", None), (0, "stopped", None), (3, "failed", "sys.exit(3)")],
)
def test_sys_exit_in_a_handler_ends_the_plugin_alone(
    code: int | None,
    state: str,
    error: str | None,
    asynchronous: bool,
    run_plugin: Run,
    fake_circusd: FakeCircusd,
    seen: Seen,
) -> None:
    class Exits(Stops):
        def handle_recv(self, data: Frames) -> Any:
            sys.exit(code)

    class ExitsLater(Stops):
        async def handle_recv(self, data: Frames) -> Any:
            await asyncio.sleep(0)
            sys.exit(code)

    running = run_plugin(ExitsLater if asynchronous else Exits, raise_errors=False, seen=seen)
    fake_circusd.publish("web", "spawn")
    status = running.wait(lambda status: status.state in ("stopped", "failed"))
    assert status.state == state
    assert (error is None) == (status.last_error is None)
    assert (error or "") in (status.last_error or "")
    assert (status.counters.errors, status.counters.handled) == (0, 0)
    assert seen.take()[0] == "handle_stop"
    assert seen.empty


def test_sys_exit_in_a_timer_ends_a_plugin_whose_handler_is_awaited(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class ExitsMeanwhile(Stops):
        async def handle_recv(self, data: Frames) -> None:
            self.loop.call_soon(sys.exit, 3)
            await asyncio.get_running_loop().create_future()

    running = run_plugin(ExitsMeanwhile, raise_errors=False, seen=seen)
    fake_circusd.publish("web", "spawn")
    status = running.wait(lambda status: status.state == "failed", PATIENCE)
    assert "sys.exit(3)" in (status.last_error or "")
    assert seen.take()[0] == "handle_stop"


def test_an_async_handler_that_never_ends_is_cancelled_after_the_grace_time(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Endless(Stops):
        async def handle_recv(self, data: Frames) -> None:
            self.seen.note("begin")
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self.seen.note("cancelled")

    # Once cancelled it has as long again, be it as late as it may.
    monkeypatch.setattr("circusplug._plugin.plugin_thread._SHORT_WAIT", PATIENCE)
    running = run_plugin(Endless, seen=seen, **{"host.graceful_timeout": 0.3})
    fake_circusd.publish("web", "spawn")
    assert seen.take() == "begin"
    running.stop()
    assert seen.take() == "cancelled"
    assert seen.take()[0] == "handle_stop"
    assert running.status.state == "stopped"


def test_an_async_handler_in_hand_is_finished_before_handle_stop(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Slow(Stops):
        async def handle_recv(self, data: Frames) -> None:
            self.seen.note("begin")
            await self.call_async("list")
            self.seen.note("end")

    hold = fake_circusd.hold("list")
    running = run_plugin(Slow, seen=seen, **{"host.graceful_timeout": PATIENCE})
    fake_circusd.publish("web", "spawn")
    fake_circusd.publish("web", "reap")
    assert seen.take() == "begin"
    hold.wait()
    stopper = threading.Thread(target=running.stop)
    stopper.start()
    running.wait(lambda status: status.state == "stopping")
    hold.release()
    stopper.join(PATIENCE)
    assert seen.take() == "end"
    assert seen.take()[0] == "handle_stop"
    assert seen.empty
