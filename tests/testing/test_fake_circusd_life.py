# A FakeCircusd that starts, stops and comes back, and the ports that it stands at.

from __future__ import annotations

import os
import socket
import tempfile
import threading

import pytest
from patience import PATIENCE
from wire import Wire

from circusplug import testing
from circusplug._errors import CircusdError
from circusplug.testing import FakeCircusd
from circusplug.testing._server import _PORTS, part_of


class TestLife:
    def test_making_one_does_nothing_yet(self) -> None:
        before = {*os.listdir("/proc/self/fd")}
        fake = FakeCircusd(["web"])
        fake.add_watcher("other")
        fake.reply("list", {})
        assert fake.endpoint == fake.pubsub_endpoint == ""
        # Threads that a test before has left behind may close theirs any time.
        assert {*os.listdir("/proc/self/fd")} <= before

    def test_publishing_outside_of_with_is_an_error(self) -> None:
        with pytest.raises(CircusdError, match="use it in a 'with'"):
            FakeCircusd().publish("web", "start")

    def test_clients_come_back_to_the_same_ports_after_a_restart(
        self, fake: FakeCircusd, wire: Wire
    ) -> None:
        endpoints = (fake.endpoint, fake.pubsub_endpoint)
        for _ in range(3):
            fake.restart()
            wire.poll_until(lambda: fake.subscribers == 1)
            assert (fake.endpoint, fake.pubsub_endpoint) == endpoints
            fake.publish("web", "start")
            assert wire.event()[0] == "watcher.web.start"
            assert wire.call("list")["watchers"] == ["my app.v1"]

    def test_nobody_can_connect_once_it_is_stopped(self, fake: FakeCircusd, wire: Wire) -> None:
        for _ in range(50):
            fake.stop()
            for endpoint in (fake.endpoint, fake.pubsub_endpoint):
                host, _, port = endpoint.removeprefix("tcp://").partition(":")
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection((host, int(port))).close()
            fake.start()

    def test_a_stopped_circusd_has_no_subscribers_and_keeps_its_watchers(
        self, fake: FakeCircusd, wire: Wire
    ) -> None:
        pids = fake.pids("My App.v1")
        fake.stop()
        assert fake.subscribers == 0
        fake.stop()
        fake.start()
        fake.start()
        wire.poll_until(lambda: fake.subscribers == 1)
        assert wire.call("list", name="My App.v1")["pids"] == pids

    def test_quit_leaves_it_down_until_it_is_started(self, fake: FakeCircusd, wire: Wire) -> None:
        assert wire.call("quit")["status"] == "ok"
        fake.wait_unsubscribed()
        fake.start()
        wire.poll_until(lambda: fake.subscribers == 1)
        assert wire.call("status")["statuses"] == {"My App.v1": "stopped"}

    def test_restart_of_circusd_as_a_whole_disconnects_everybody(
        self, fake: FakeCircusd, wire: Wire
    ) -> None:
        before = fake.pids("My App.v1")
        wire.request("restart")
        assert wire.receive()["status"] == "ok"

        def answered() -> bool:  # a command on the connection that is going is lost
            wire.request("list", name="My App.v1")
            return bool(wire.dealer.poll(50))

        wire.poll_until(answered)
        assert len(wire.receive()["pids"]) == 2
        wire.poll_until(lambda: fake.subscribers == 1)
        assert set(fake.pids("My App.v1")).isdisjoint(before)

    def test_what_happens_while_it_is_down_is_told_to_nobody(self, fake: FakeCircusd) -> None:
        before = fake.pids("my app.v1")
        fake.stop()
        fake.exit_process("my app.v1")
        assert set(fake.pids("my app.v1")).isdisjoint(before)

    def test_after_a_restart_of_circusd_as_a_whole_it_is_as_new(
        self, fake: FakeCircusd, wire: Wire
    ) -> None:
        before = wire.call("dstats")["info"]["create_time"]
        wire.call("restart")
        fake.run_script('"My App.v1" takes 1 h to stop')  # when it is up again
        with Wire(fake) as anew:
            assert anew.call("dstats")["info"]["create_time"] > before
            anew.call("stop", name="My App.v1")
            busy = anew.call_raw("incr", name="My App.v1")
        assert busy["reason"] == "arbiter is already running watcher_stop command"

    def test_one_can_be_used_again(self) -> None:
        fake = FakeCircusd(["web"])
        with fake:
            endpoint = fake.endpoint
        with fake, Wire(fake) as wire:
            assert fake.endpoint == endpoint
            assert wire.call("list")["watchers"] == ["web"]

    def test_two_can_run_at_once(self) -> None:
        with FakeCircusd(["one"]) as one, FakeCircusd(["two"]) as two:
            assert one.endpoint != two.endpoint
            with Wire(one) as wire:
                assert wire.call("list")["watchers"] == ["one"]

    def test_it_can_be_used_from_many_threads(self, fake: FakeCircusd, wire: Wire) -> None:
        threads = [threading.Thread(target=fake.publish, args=("web", "start")) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {wire.event()[0] for _ in range(20)} == {"watcher.web.start"}

    def test_a_failure_of_its_thread_is_raised_at_the_end_and_ends_all_waits(self) -> None:
        def fail() -> None:
            raise ZeroDivisionError("a defect of the fake")

        def use(fake: FakeCircusd) -> None:
            server = fake._core.server
            server.run(lambda: server.call_later(0, fail))
            with pytest.raises(CircusdError, match="a defect of the fake"):
                fake.wait_subscribed(timeout=10 * PATIENCE)

        with pytest.raises(ZeroDivisionError), FakeCircusd() as fake:
            use(fake)

    def test_the_error_of_the_test_itself_is_not_lost(self) -> None:
        with pytest.raises(KeyError), FakeCircusd():
            raise KeyError("of the test")

    def test_an_error_on_its_thread_goes_before_one_of_the_test_but_not_before_ctrl_c(
        self,
    ) -> None:
        def use(fake: FakeCircusd, error: BaseException) -> None:
            fake._core.server.errors.append(ZeroDivisionError("on its thread"))
            raise error

        fake = FakeCircusd()
        for error, raised in (
            (KeyError("of the test"), ZeroDivisionError),
            (KeyboardInterrupt(), KeyboardInterrupt),
        ):
            with pytest.raises(raised), fake:
                use(fake, error)
        with fake:
            pass  # the errors of earlier times are over

    def test_a_place_that_is_taken_is_an_error(self, fake: FakeCircusd) -> None:
        taken = FakeCircusd(endpoint=fake.endpoint)
        with pytest.raises(CircusdError, match=f"cannot bind {fake.endpoint}"), taken:
            pytest.fail("the block is not to run")

    def test_it_keeps_as_many_events_as_it_is_told_to_and_tells_its_check_delay(self) -> None:
        with FakeCircusd(check_delay=7.5, sndhwm=12) as fake, Wire(fake) as wire:
            server = fake._core.server
            assert server.run(lambda: server.publisher().sndhwm) == 12
            assert wire.call("globaloptions")["options"]["check_delay"] == 7.5

    def test_the_kit_says_what_it_offers(self) -> None:
        assert all(hasattr(testing, name) for name in testing.__all__)


def test_processes_side_by_side_have_ports_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = []
    for pid in range(1000, 1064):
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        parts.append(part_of(_PORTS))
    ports = [port for part in parts for port in part]
    assert sorted(ports) == [*_PORTS]


def test_it_stands_where_it_is_told_to_and_keeps_that_place() -> None:
    with tempfile.TemporaryDirectory() as directory:
        ends = f"ipc://{directory}/commands", f"ipc://{directory}/events"
        with FakeCircusd(endpoint=ends[0], pubsub_endpoint=ends[1]) as fake:
            for _ in range(2):
                assert (fake.endpoint, fake.pubsub_endpoint) == ends
                # A connection of its own: what is sent while an old one breaks may be lost.
                with Wire(fake) as wire:
                    assert wire.call("list")["status"] == "ok"
                fake.restart()
