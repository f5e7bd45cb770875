# The test kit's other half: a plugin of the user's under the real host, and the fixtures.

from __future__ import annotations

import os
import subprocess
import sys
import threading
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE
from recordings import reap, write

from circusplug import CircusPlugin, HostError, SpecError
from circusplug._errors import CircusdError
from circusplug._plugin import plugin_thread
from circusplug.testing import (
    FakeCircusd,
    PluginTestMixin,
    Replayed,
    RunningPlugin,
    run_plugin,
)


class Recorder(CircusPlugin):
    """Keeps what happens to it."""

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self.seen: list[str] = []

    def handle_init(self) -> None:
        self.seen.append("init")

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        event = self.parse_event(data)
        if event.action == "fail":
            raise ValueError(f"cannot handle {event.watcher}")
        self.seen.append(f"{event.watcher} {event.action}")

    def handle_stop(self) -> None:
        self.seen.append("stop")


class Scaler(CircusPlugin):
    """Adds a process whenever one dies."""

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        event = self.parse_event(data)
        if event.action == "reap":
            self.call("incr", name="web")


class Broken(CircusPlugin):
    """Fails where its option `fails` says."""

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self._fail("init")

    def handle_init(self) -> None:
        self._fail("handle_init")

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        self.loop.call_soon(self._fail, "callback")
        self._fail("handle_recv")

    def handle_stop(self) -> None:
        self._fail("handle_stop")

    def _fail(self, where: str) -> None:
        if self.config["fails"] == where:
            raise ZeroDivisionError(where)


def test_events_reach_the_plugin_and_its_life_is_complete() -> None:
    with run_plugin(Recorder, colour="red") as running:
        plugin = running.plugin
        assert isinstance(plugin, Recorder)
        assert plugin.config["colour"] == "red"
        running.publish("My App", "start")
        running.publish("My App", "stop")
        running.wait_handled(2)
        assert plugin.seen == ["init", "my_app start", "my_app stop"]
        assert (running.status.state, running.counters.received) == ("running", 2)
    assert plugin.seen[-1] == "stop"
    assert running.plugin is plugin


def test_commands_reach_the_circusd_given() -> None:
    with FakeCircusd(["web"]) as circusd, run_plugin(Scaler, circusd) as running:
        circusd.exit_process("web")
        command = circusd.wait_command("incr")
        assert dict(command.properties) == {"name": "web"}
        running.wait_handled(3)
        assert len(circusd.pids("web")) == 2
        assert running.counters.calls == 1


def test_a_plugin_can_be_stopped_within_the_block() -> None:
    with run_plugin(Recorder) as running:
        running.stop()
        assert running.plugin.seen == ["init", "stop"]
        assert (running.status.state, running.status.connected) == ("stopped", False)


def test_several_plugins_can_share_a_circusd() -> None:
    with FakeCircusd() as circusd:
        with run_plugin(Recorder, circusd) as one, run_plugin(Recorder, circusd) as two:
            circusd.publish("web", "start")
            one.wait_handled(1)
            two.wait_handled(1)
        circusd.wait_unsubscribed()


def test_a_plugin_with_topics_of_its_own_is_waited_for() -> None:
    class Picky(Recorder):
        topics = ("web.", b"watcher.db.", "db.")

    with run_plugin(Picky) as running:
        running.publish("app", "start")
        running.publish("web", "start")
        running.publish("db", "start")
        running.wait_handled(2)
        assert running.plugin.seen == ["init", "web start", "db start"]


def test_the_block_begins_when_the_subscription_has_arrived() -> None:
    blocked, gate = threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        gate.wait(20)

    class Late(Recorder):
        def handle_init(self) -> None:
            self.loop.call_later(0.1, gate.set)

    with FakeCircusd() as circusd:
        server = circusd._core.server
        server.run(lambda: server.call_later(0, block))
        blocked.wait()  # from here on it takes no subscription until the gate opens
        with run_plugin(Late, circusd):
            assert circusd.subscribers == 1


@pytest.mark.parametrize("where", ["init", "handle_init"])
def test_a_plugin_that_cannot_start_raises_its_own_error(where: str) -> None:
    with pytest.raises(ZeroDivisionError, match=where), run_plugin(Broken, fails=where):
        pytest.fail("the block is not to run")


@pytest.mark.parametrize("where", ["handle_recv", "callback", "handle_stop"])
def test_what_the_plugin_raises_is_raised_at_the_end(where: str) -> None:
    def use(running: RunningPlugin) -> None:
        running.publish("web", "start")
        if where != "handle_stop":
            running.arbiter.wait(lambda plugins: plugins[running.name].counters.errors == 1)

    with pytest.raises(ZeroDivisionError, match=where), run_plugin(Broken, fails=where) as running:
        use(running)
    assert [str(error) for error in running.errors] == [where]


def test_a_wait_ends_early_when_the_plugin_fails() -> None:
    def use(running: RunningPlugin) -> None:
        running.publish("web", "fail")
        running.wait_handled(1, timeout=60)
        pytest.fail("the wait has to raise")

    with pytest.raises(ValueError, match="cannot handle web"), run_plugin(Recorder) as running:
        use(running)


def test_errors_can_be_looked_at_instead() -> None:
    with run_plugin(Recorder, raise_errors=False) as running:
        running.publish("web", "fail")
        running.publish("web", "start")
        running.wait_handled(1)
        assert running.counters.errors == 1
        assert [type(error) for error in running.errors] == [ValueError]
    with run_plugin(Broken, fails="handle_init", raise_errors=False) as running:
        assert running.status.state == "failed"


def test_a_wait_in_vain_tells_the_plugins_status() -> None:
    vain = pytest.raises(AssertionError, match=r"in vain, rec: .*received=0")
    with run_plugin(Recorder, name="rec") as running, vain:
        running.wait_received(1, timeout=0)


def test_an_error_of_the_test_itself_is_raised_as_it_is() -> None:
    with pytest.raises(KeyError, match="mine"), run_plugin(Recorder):
        raise KeyError("mine")


def test_an_inactive_plugin_is_an_error() -> None:
    with pytest.raises(HostError, match="inactive"), run_plugin(Recorder, active=False):
        pytest.fail("the block is not to run")


def test_a_plugin_in_a_process_of_its_own_is_refused() -> None:
    with pytest.raises(HostError, match="leave out 'isolate'"), run_plugin(Recorder, isolate=True):
        pytest.fail("the block is not to run")


def test_a_wrong_host_option_is_an_error() -> None:
    options = {"host.restrt": "never"}
    with pytest.raises(SpecError, match="restrt"), run_plugin(Recorder, **options):
        pytest.fail("the block is not to run")


@pytest.mark.leaves_thread("the plugin is stuck on purpose")
def test_a_plugin_that_does_not_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for wait in ("PARK_WAIT", "_SHORT_WAIT"):
        monkeypatch.setattr(plugin_thread, wait, 0.05)
    hang = threading.Event()

    class Stuck(CircusPlugin):
        def handle_recv(self, data: tuple[bytes, bytes]) -> None:
            hang.wait(60)

    def use(running: RunningPlugin) -> None:
        running.publish("web", "start")
        running.wait_received(1)

    options = {"host.graceful_timeout": 0.1}
    with pytest.raises(HostError, match="does not end"), run_plugin(Stuck, **options) as running:
        use(running)
    with run_plugin(Stuck, raise_errors=False, **options) as running:
        use(running)
    assert running.status.state == "abandoned"
    hang.set()


def test_the_fixtures_work_together(
    fake_circusd: FakeCircusd, run_plugin: Callable[..., RunningPlugin]
) -> None:
    running = run_plugin(Recorder, colour="red")
    fake_circusd.publish("web", "start")
    running.wait_handled(1)
    assert running.circusd is fake_circusd
    assert running.plugin.seen == ["init", "web start"]


def test_the_fixture_replays_a_recording(replay: Callable[..., Replayed], tmp_path: Path) -> None:
    result = replay(write(tmp_path / "traffic", reap(1)), Recorder, name="other", colour="red")
    assert result.plugin.seen == ["init", "web reap", "stop"]
    config = result.plugin.config
    assert (config["name"], config["colour"], result.plugin.check_delay) == ("other", "red", 1.0)


def test_the_mixin_gives_each_test_of_unittest_its_own() -> None:
    seen: list[Any] = []

    class Base(unittest.TestCase):
        def setUp(self) -> None:
            seen.append("set up")

    class Tests(PluginTestMixin, Base):
        def test_one(self) -> None:
            running = self.run_plugin(Recorder, colour="red")
            self.fake_circusd.publish("web", "start")
            running.wait_handled(1)
            seen.extend((self.fake_circusd, running))

        test_two = test_one

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Tests).run(result)
    assert (result.testsRun, result.errors, result.failures) == (2, [], [])
    first, one, second, two = (each for each in seen if each != "set up")
    assert seen.count("set up") == 2
    assert first is not second
    for running in (one, two):
        assert running.plugin.seen == ["init", "web start", "stop"]
    with pytest.raises(CircusdError):
        first.publish("web", "start")


def test_a_stop_from_outside_is_not_lost_over_what_the_plugin_raised() -> None:
    def use(running: RunningPlugin) -> None:
        running.publish("web", "fail")
        running.arbiter.wait(lambda plugins: plugins[running.name].counters.errors == 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), run_plugin(Recorder) as running:
        use(running)

    def go_on(running: RunningPlugin) -> None:
        try:
            use(running)
        except KeyboardInterrupt:
            raise KeyError("of the test, and it comes second") from None

    with pytest.raises(ValueError, match="cannot handle web"), run_plugin(Recorder) as running:
        go_on(running)


def test_a_plugin_that_fails_is_not_started_again_and_knows_its_circusd() -> None:
    with (
        FakeCircusd(check_delay=7.5) as circusd,
        run_plugin(Recorder, circusd, raise_errors=False, **{"host.on_error": "restart"}) as it,
    ):
        assert it.plugin.check_delay == 7.5
        it.publish("web", "fail")
        it.wait(lambda status: status.state == "failed")
        assert it.counters.restarts == 0
        errors = it.errors
        errors.clear()
        assert len(it.errors) == 1


def test_the_fixture_fails_the_test_whose_plugin_failed(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "from circusplug import CircusPlugin\n"
        "class Failing(CircusPlugin):\n"
        "    def handle_stop(self):\n"
        "        raise ValueError('seen by pytest')\n"
        "    def handle_recv(self, data): pass\n"
        "def test_it(run_plugin):\n"
        "    run_plugin(Failing)\n"
    )
    # The tests of the pages show that pytest finds the plugin by itself.
    plugins = ["-p", "no:cacheprovider", "-p", "circusplug._pytest_plugin"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins, str(tmp_path)],
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert "ValueError: seen by pytest" in result.stdout
    assert "1 passed, 1 error" in result.stdout


def test_one_plugin_after_the_other_can_be_run_on_the_same_circusd() -> None:
    with FakeCircusd() as circusd:
        for _ in range(20):
            with run_plugin(Recorder, circusd) as running:
                running.publish("web", "spawn")
                running.wait_handled(1)
                running.stop()
                assert circusd.subscribers == 0
