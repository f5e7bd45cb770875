# A plugin without a host: made by hand, and started with its own `start`.

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from noting_plugins import Noting, Seen, Stops
from patience import PATIENCE

from circusplug import CircusPlugin, PluginLoadError, PluginStateError
from circusplug._plugin.load import load_plugin_class
from circusplug.testing import FakeCircusd


@pytest.mark.parametrize(
    ("config", "active"), [({"active": "false"}, False), ({"active": "1"}, True), ({}, True)]
)
def test_the_option_active_says_whether_a_plugin_is(
    config: dict[str, str], active: bool, alone: Callable[..., Any]
) -> None:
    assert alone(Noting, **config).active is active


@pytest.fixture
def alone(fake_circusd: FakeCircusd, seen: Seen) -> Iterator[Callable[..., Any]]:
    """Make a plugin for `start()` by hand; it is stopped at the end."""
    with contextlib.ExitStack() as stack:

        def make(plugin_class: type[CircusPlugin], **config: Any) -> CircusPlugin:
            plugin = plugin_class(
                fake_circusd.endpoint, fake_circusd.pubsub_endpoint, 5.0, None, seen=seen, **config
            )
            stack.callback(plugin.stop)
            return plugin

        yield make


def test_start_runs_the_plugin_on_the_calling_thread_until_stop(
    alone: Callable[..., Any], fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Plain(Stops):
        def handle_init(self) -> None:
            self.seen.note(threading.current_thread().name)

    plugin = alone(Plain)
    assert not plugin.running
    thread = threading.Thread(target=plugin.start, name="by hand")
    thread.start()
    assert seen.take() == "by hand"
    fake_circusd.wait_subscribed()
    fake_circusd.publish("web", "spawn")
    assert seen.take() == "spawn"
    assert plugin.running
    assert plugin.call("list")["watchers"] == []
    plugin.stop()  # returns when it has stopped
    assert seen.take() == ("handle_stop", "by hand")
    plugin.stop()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert not plugin.running
    assert seen.empty


def test_a_plugin_started_by_hand_may_stop_itself(
    alone: Callable[..., Any], fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class StopsItself(Stops):
        def handle_init(self) -> None:
            self.loop.add_callback(self.stop)

    plugin = alone(StopsItself)
    plugin.start()
    assert seen.take() == ("handle_stop", "MainThread")


def test_an_inactive_plugin_refuses_to_start(alone: Callable[..., Any]) -> None:
    with pytest.raises(PluginStateError, match="inactive"):
        alone(Noting, active="no").start()


def test_a_plugin_is_started_once(
    alone: Callable[..., Any], fake_circusd: FakeCircusd, seen: Seen
) -> None:
    plugin = alone(Stops)
    thread = threading.Thread(target=plugin.start)
    thread.start()
    fake_circusd.wait_subscribed()
    with pytest.raises(PluginStateError, match="make a new instance"):
        plugin.start()
    plugin.stop()
    thread.join(PATIENCE)
    with pytest.raises(PluginStateError, match="make a new instance"):
        plugin.start()


def test_a_plugin_that_was_not_started_can_be_stopped_and_not_call(
    alone: Callable[..., Any],
) -> None:
    plugin = alone(Stops)
    with pytest.raises(PluginStateError, match="not connected"):
        plugin.call("list")
    plugin.stop()
    plugin.stop()
    assert plugin.loop.is_closed()
    with pytest.raises(PluginStateError, match="make a new instance"):
        plugin.start()


def test_a_class_without_handle_recv_is_refused_by_name() -> None:
    class Deaf(CircusPlugin):
        pass

    with pytest.raises(PluginLoadError, match=r"Deaf has no handle_recv\(self, data\)"):
        load_plugin_class(Deaf)


_PROGRAM = """
import sys
from circusplug import CircusPlugin

class Plain(CircusPlugin):
    def handle_init(self):
        print("init", flush=True)
    def handle_recv(self, data):
        print(self.parse_event(data).action, flush=True)
    def handle_stop(self):
        print("stop", flush=True)

plugin = Plain(*sys.argv[1:], 5.0)
try:
    plugin.start()
except KeyboardInterrupt:
    print("interrupted", flush=True)
finally:
    plugin.stop()
print("done", flush=True)
"""


@pytest.mark.parametrize(
    ("number", "lines"),
    [(signal.SIGTERM, "stop\ndone\n"), (signal.SIGINT, "stop\ninterrupted\ndone\n")],
    ids=["SIGTERM", "SIGINT"],
)
def test_a_signal_stops_a_plugin_started_by_hand_on_the_main_thread(
    number: signal.Signals, lines: str, fake_circusd: FakeCircusd
) -> None:
    arguments = [fake_circusd.endpoint, fake_circusd.pubsub_endpoint]
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "init\n"
            fake_circusd.wait_subscribed()
            fake_circusd.publish("web", "spawn")
            assert process.stdout.readline() == "spawn\n"
            process.send_signal(number)
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (0, lines, "")
