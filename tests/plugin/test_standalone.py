# How a plugin without a host of ours lives and ends: `start()` by hand. The contract is that of a
# host, bounds included.

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from typing import Any

import pytest
from patience import PATIENCE

from circusplug import CircusPlugin, HostConfig, HostOptions
from circusplug._logging.speaker import speaker
from circusplug._plugin import standalone
from circusplug._plugin.plugin_thread import PluginThread
from circusplug._plugin.stop_guard import StopGuard
from circusplug.testing import FakeCircusd


def test_a_programs_own_wakeup_descriptor_is_put_back(fake_circusd: FakeCircusd) -> None:
    class StopsAtOnce(CircusPlugin):
        def handle_init(self) -> None:
            self.stop()

    with contextlib.ExitStack() as stack:
        for end in (ends := socket.socketpair()):
            stack.enter_context(end).setblocking(False)
        before = signal.set_wakeup_fd(ends[0].fileno())
        try:
            StopsAtOnce(fake_circusd.endpoint, fake_circusd.pubsub_endpoint).start()
        finally:
            found = signal.set_wakeup_fd(before)
        assert found == ends[0].fileno()


def test_on_any_other_thread_all_of_it_runs_right_there(fake_circusd: FakeCircusd) -> None:
    class Notes(CircusPlugin):
        def handle_init(self) -> None:
            noted.append(threading.current_thread())

        def handle_recv(self, data: tuple[bytes, bytes]) -> None:
            noted.append(threading.current_thread())
            self.stop()

        def handle_stop(self) -> None:
            noted.append(threading.current_thread())

    noted: list[threading.Thread] = []
    plugin = Notes(fake_circusd.endpoint, fake_circusd.pubsub_endpoint)
    thread = threading.Thread(target=plugin.start)
    thread.start()
    fake_circusd.wait_subscribed(1, PATIENCE)
    fake_circusd.publish("web", "spawn")
    thread.join(PATIENCE)
    assert noted == [thread] * 3


@pytest.mark.circusd_leaves
def test_on_any_other_thread_too_it_says_that_there_is_no_circusd(
    fake_circusd: FakeCircusd, caplog: pytest.LogCaptureFixture, absent_soon: None
) -> None:
    class Made(CircusPlugin):
        def handle_init(self) -> None:
            initialised.set()

    initialised = threading.Event()
    fake_circusd.stop()
    plugin = Made(fake_circusd.endpoint, fake_circusd.pubsub_endpoint)
    thread = threading.Thread(target=plugin.start)
    thread.start()
    assert initialised.wait(PATIENCE)
    plugin.stop()
    thread.join(PATIENCE)
    assert caplog.text.count("no circusd at ") == 1


class Lives(CircusPlugin):
    """Does what its options say, on the main thread of the test; notes what happens."""

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self.noted: list[Any] = []

    def handle_init(self) -> None:
        self.config.get("begin", lambda _: None)(self)
        self.loop.call_soon(self.config.get("then", CircusPlugin.stop), self)

    def handle_stop(self) -> None:
        self.noted.append("stop")
        self.config.get("end", lambda _: None)(self)


class NotForOneself(threading.Event):
    """An end that nobody is to wait for."""

    def wait(self, timeout: float | None = None) -> bool:
        raise AssertionError("it waits for its own end")


def live(circusd: FakeCircusd, **config: Any) -> Lives:
    return Lives(circusd.endpoint, circusd.pubsub_endpoint, **config)


def fail(_: Lives) -> None:
    raise ZeroDivisionError("of the plugin")


@pytest.mark.parametrize(("where", "stopped"), [("begin", []), ("end", ["stop"])])
def test_what_the_plugin_raises_is_raised_when_all_of_it_is_closed(
    where: str, stopped: list[str], fake_circusd: FakeCircusd
) -> None:
    plugin = live(fake_circusd, **{where: fail})
    with pytest.raises(ZeroDivisionError, match="of the plugin"):
        plugin.start()
    assert (plugin.noted, plugin.running, plugin.loop.is_closed()) == (stopped, False, True)
    assert not plugin._circusplug_worker.connected


def test_what_has_ended_its_life_is_raised_when_it_has_stopped(fake_circusd: FakeCircusd) -> None:
    def leave(_: Lives) -> None:
        sys.exit("by itself")

    plugin = live(fake_circusd, then=leave)
    with pytest.raises(SystemExit, match="by itself"):
        plugin.start()
    assert plugin.noted == ["stop"]


def test_a_stop_by_another_thread_returns_when_it_has_stopped(fake_circusd: FakeCircusd) -> None:
    class Ended(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.set()
            return super().wait(timeout)

    def stop(plugin: Lives) -> None:
        plugin.stop()
        plugin.noted.append("returned")
        waits.set()

    waits, stopper = threading.Event(), threading.Thread()
    plugin = live(fake_circusd, then=lambda _: stopper.start(), end=lambda _: waits.wait(PATIENCE))
    stopper = threading.Thread(target=stop, args=(plugin,))
    plugin._circusplug_worker.ended = Ended()
    plugin.start()
    stopper.join(PATIENCE)
    assert plugin.noted == ["stop", "returned"]


def test_a_signal_that_somebody_else_handles_is_left_to_them(fake_circusd: FakeCircusd) -> None:
    def ours(*_: object) -> None:
        pass

    numbers = signal.SIGTERM, signal.SIGINT
    before = [signal.signal(number, ours) for number in numbers]
    try:
        plugin = live(
            fake_circusd, begin=lambda it: it.noted.extend(map(signal.getsignal, numbers))
        )
        plugin._circusplug_worker.ended = NotForOneself()
        plugin.start()
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    assert plugin.noted == [ours, ours, "stop"]
    assert plugin._circusplug_worker.counters.errors == 0  # it did not wait for its own end


def test_what_it_says_is_known_as_its_own_on_both_threads(fake_circusd: FakeCircusd) -> None:
    def speaks(plugin: Lives) -> None:
        plugin.noted.append(speaker.name)

    plugin = live(fake_circusd, name="it", begin=speaks, end=speaks)
    plugin.start()
    assert plugin.noted == ["it", "stop", "it"]
    assert speaker.name is None


def test_a_signal_handler_of_the_program_s_may_stop_it(fake_circusd: FakeCircusd) -> None:
    def signalled(plugin: Lives) -> None:
        plugin.loop.add_signal_handler(signal.SIGWINCH, print)
        os.kill(os.getpid(), signal.SIGTERM)

    plugin = live(fake_circusd, begin=signalled, then=lambda _: None)
    plugin._circusplug_worker.ended = NotForOneself()
    before = signal.signal(signal.SIGTERM, lambda *_: plugin.stop())
    try:
        plugin.start()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert plugin.noted == ["stop"]


def test_each_ctrl_c_counts_and_is_raised_when_it_has_stopped(
    fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    def signalled(plugin: Lives) -> None:
        plugin.loop.add_signal_handler(signal.SIGWINCH, print)
        os.kill(os.getpid(), signal.SIGINT)

    heard: list[str] = []
    monkeypatch.setattr(standalone, "SecondInterrupt", lambda: lambda: heard.append("SIGINT"))
    plugin = live(fake_circusd, begin=signalled, then=lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        plugin.start()
    assert (heard, plugin.noted, plugin.loop.is_closed()) == (["SIGINT"], ["stop"], True)


def test_what_somebody_else_s_signal_handler_raises_stops_it_first(
    fake_circusd: FakeCircusd,
) -> None:
    def ours(*_: object) -> None:
        raise ZeroDivisionError("of the program")

    def signalled(plugin: Lives) -> None:
        # From then on the main thread waits for news.
        plugin.loop.add_signal_handler(signal.SIGWINCH, print)
        os.kill(os.getpid(), signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, ours)
    try:
        plugin = live(fake_circusd, begin=signalled, then=lambda _: None)
        with pytest.raises(ZeroDivisionError, match="of the program"):
            plugin.start()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert (plugin.noted, plugin.loop.is_closed()) == (["stop"], True)


def test_the_event_in_hand_and_handle_stop_share_one_deadline(
    fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Guard(StopGuard):
        def begin(self, deadline: float) -> None:
            told.append(deadline)
            super().begin(deadline)

    def finish_stop(self: PluginThread, deadline: float, run_handle_stop: Any) -> bool:
        told.append(deadline)
        return PluginThread.finish_stop(self, deadline, run_handle_stop)

    told: list[float] = []
    monkeypatch.setattr(standalone, "StopGuard", Guard)
    thread = type("Thread", (PluginThread,), {"finish_stop": finish_stop})
    monkeypatch.setattr(standalone, "PluginThread", thread)
    live(fake_circusd).start()
    assert len(told) == 2
    assert told[0] == told[1]


def test_a_stop_has_the_time_that_a_host_gives() -> None:
    defaults = HostConfig(())
    assert defaults.stop_timeout == standalone.STOP_TIMEOUT
    assert HostOptions().graceful_timeout == standalone.GRACEFUL_TIMEOUT


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [("class's", {"name": "given"}, "given"), ("class's", {}, "class's"), (None, {}, "Named")],
)
def test_its_logger_bears_the_name_that_there_is(
    name: str | None, config: dict[str, Any], expected: str
) -> None:
    plugin = type("Named", (Lives,), {"name": name})("tcp://*:5555", "tcp://0.0.0.0:5556", **config)
    assert plugin.logger.name == f"circusplug.plugin.{expected}"
    link = plugin._circusplug_worker.link
    # circusd's endpoint as its file has it, which is no place to connect to.
    ends = link.endpoint, link.pubsub_endpoint
    assert ends == ("tcp://127.0.0.1:5555", "tcp://127.0.0.1:5556")
    plugin.stop()
