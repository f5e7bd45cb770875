# What files made for Circus rely on: the documentation's examples, and what else they do. Plugins
# note what happens to them in `seen`, a queue of the test's.

from __future__ import annotations

import asyncio
import datetime
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fixture_types import Run
from noting_plugins import Frames, Noting, Seen, Works

from circusplug import CircusPlugin
from circusplug.testing import FakeCircusd


class Logger(CircusPlugin):
    name = "logger"

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self.filename = config.get("filename")

    def handle_init(self) -> None:
        assert self.filename is not None
        self.file = open(self.filename, "a+", buffering=1)  # noqa: SIM115 - as documented

    def handle_recv(self, data: Frames) -> None:
        watcher_name, action, message = self.split_data(data)
        self.file.write(f"{action} {watcher_name}::{self.load_message(message)!r}\n")

    def handle_stop(self) -> None:
        self.file.close()


def test_the_logger_of_the_documentation_writes_its_file(
    run_plugin: Run, fake_circusd: FakeCircusd, tmp_path: Path
) -> None:
    file = tmp_path / "circus.log"
    running = run_plugin(Logger, filename=str(file))
    fake_circusd.publish("My App.v1", "reap", process_pid=7, exit_code=-9, time=1.5)
    running.wait_handled(1)
    running.stop()
    payload = {"time": 1.5, "process_pid": 7, "exit_code": -9}
    assert file.read_text() == f"reap my_app.v1::{payload!r}\n"
    assert running.plugin.file.closed


def test_a_constructor_may_take_circus_arguments_by_name_and_drop_its_config(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Old(CircusPlugin):
        name = None

        def __init__(
            self,
            endpoint: str,
            pubsub_endpoint: str,
            check_delay: float,
            ssh_server: str | None = None,
            **config: Any,
        ) -> None:
            super().__init__(endpoint, pubsub_endpoint, check_delay, ssh_server=ssh_server)
            self.seen = config["seen"]
            self.name = "renamed"

        def handle_recv(self, data: Frames) -> None:
            self.seen.note((self.config, self.active, self.name))

    run_plugin(Old, seen=seen)
    fake_circusd.publish("web", "spawn")
    assert seen.take() == ({}, True, "renamed")


def test_tornados_periodic_callback_made_in_handle_init_calls_back(
    run_plugin: Run, seen: Seen
) -> None:
    ioloop = pytest.importorskip("tornado.ioloop")

    class Ticks(Noting):
        def handle_init(self) -> None:
            self.period = ioloop.PeriodicCallback(self.look_after, 1)
            self.period.start()

        def look_after(self) -> None:
            self.seen.note((threading.current_thread().name, asyncio.get_running_loop()))

        def handle_stop(self) -> None:
            self.period.stop()

    running = run_plugin(Ticks, name="ticks", seen=seen)
    loop = running.plugin.loop
    assert seen.take_all(3) == [("plugin:ticks", loop)] * 3


def test_tornados_periodic_callback_made_in_the_constructor_calls_back(
    run_plugin: Run, seen: Seen
) -> None:
    ioloop = pytest.importorskip("tornado.ioloop")

    class Ticks(Noting):
        def __init__(self, *args: Any, **config: Any) -> None:
            super().__init__(*args, **config)
            self.period = ioloop.PeriodicCallback(lambda: self.seen.note("tick"), 1)

        def handle_init(self) -> None:
            self.period.start()

    run_plugin(Ticks, seen=seen)
    assert seen.take_all(2) == ["tick", "tick"]


def test_a_handler_on_a_udp_socket_is_called(run_plugin: Run, seen: Seen) -> None:
    class Udp(Noting):
        def handle_init(self) -> None:
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.socket.bind(("127.0.0.1", 0))
            self.loop.add_handler(self.socket.fileno(), self.receive, self.loop.READ)
            self.seen.note(self.socket.getsockname())

        def receive(self, fd: int, events: int) -> None:
            assert fd == self.socket.fileno()
            assert events == self.loop.READ
            self.seen.note(self.socket.recv(100))

        def handle_stop(self) -> None:
            self.loop.remove_handler(self.socket.fileno())
            self.socket.close()

    run_plugin(Udp, seen=seen)
    address = seen.take()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for message in (b"one", b"two"):
            sender.sendto(message, address)
            assert seen.take() == message


def test_what_was_put_on_the_loop_before_start_runs_after_handle_init(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Early(Noting):
        def __init__(self, *args: Any, **config: Any) -> None:
            super().__init__(*args, **config)
            self.loop.add_timeout(datetime.timedelta(0), self.seen.note, "timedelta")
            self.loop.add_timeout(time.time(), self.seen.note, "time")
            self.loop.add_callback(self.seen.note, "callback")

        def handle_init(self) -> None:
            self.seen.note("init")

        def initialize(self) -> None:
            super().initialize()
            self.seen.note("initialize")

    run_plugin(Early, seen=seen)
    noted = seen.take_all(5)
    assert noted[:3] == ["init", "initialize", "callback"]
    assert sorted(noted[3:]) == ["time", "timedelta"]


def test_an_initialize_that_ends_in_a_call_gets_its_reply(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Asks(Noting):
        def initialize(self) -> None:
            super().initialize()
            self.seen.note(self.call("list")["watchers"])

    fake_circusd.add_watcher("web")
    run_plugin(Asks, seen=seen)
    assert seen.take() == ["web"]


def test_a_thread_started_in_handle_init_calls_and_casts(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Threaded(Works):
        def work(self) -> None:
            self.seen.note(self.call("numprocesses", name="web")["numprocesses"])
            self.cast("incr", name="web")
            self.call("incr", name="web", waiting=True)
            self.seen.note("worked")

        def handle_recv(self, data: Frames) -> None:
            pass

        def handle_stop(self) -> None:
            self.thread.join()

    fake_circusd.add_watcher("web")
    running = run_plugin(Threaded, seen=seen)
    assert seen.take_all(2) == [1, "worked"]
    assert [command.cast for command in fake_circusd.commands] == [False, True, False]
    assert running.counters.calls == 3


def test_a_plugin_may_override_stop_and_have_it_called_by_the_host(
    run_plugin: Run, seen: Seen
) -> None:
    class Old(Noting):
        def handle_stop(self) -> None:
            self.seen.note("handle_stop")

        def stop(self) -> None:
            self.seen.note("stop")
            super().stop()
            self.loop.close()

    running = run_plugin(Old, seen=seen)
    running.stop()
    assert seen.take_all(2) == ["stop", "handle_stop"]


def test_the_worker_attribute_and_the_other_names_in_use_are_free_for_plugins(
    run_plugin: Run, fake_circusd: FakeCircusd, seen: Seen
) -> None:
    class Greedy(Noting):
        def __init__(self, *args: Any, **config: Any) -> None:
            super().__init__(*args, **config)
            self.worker = self._worker = self._thread = self._client = self.client = "mine"

    run_plugin(Greedy, seen=seen)
    fake_circusd.publish("web", "spawn")
    assert seen.take() == "spawn"
