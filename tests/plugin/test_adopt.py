# Plugins made for Circus run unmodified: each idiom of existing plugins, see
# circus_like_plugins.py, on Circus's base class and, the same text, on circusplug's own.

from __future__ import annotations

import logging
import queue
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import circus_like_plugins
import pytest
from circus.plugins import CircusPlugin as CircusBase
from circus.plugins.flapping import Flapping
from circus.plugins.resource_watcher import ResourceWatcher
from circus.plugins.statsd import BaseObserver, FullStats
from tornado.ioloop import IOLoop

import circusplug
from circusplug import Arbiter, PluginStatus
from circusplug._loop.plugin_loop import PluginLoop
from circusplug._plugin.adopt import _ReportFilter, adopt
from circusplug._plugin.load import load_plugin_class
from circusplug.testing import FakeCircusd

RUNNERS = ["thread", "process"]
BASES = ["circus", "circusplug"]

Run = Callable[..., "Running"]


class Running:
    """One sample under a host of its own."""

    def __init__(self, circusd: FakeCircusd, arbiter: Arbiter, name: str) -> None:
        self.circusd = circusd
        self.arbiter = arbiter
        self.name = name

    def said(self, *words: Any, count: int = 1) -> None:
        """Wait until the plugin has said this to circusd, `count` times."""
        self.circusd.wait_command("say", words=[*words], count=count, cast=True, timeout=10.0)

    def wait(self, predicate: Callable[[PluginStatus], object]) -> PluginStatus:
        statuses = self.arbiter.wait(lambda statuses: bool(predicate(statuses[self.name])), 10.0)
        return statuses[self.name]

    @property
    def plugin(self) -> Any:
        return self.arbiter.instance(self.name)


@pytest.fixture(scope="session")
def changed_import(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The samples' text on circusplug's base; the name of its module."""
    directory = tmp_path_factory.mktemp("changed")
    name = circus_like_plugins.write_on_our_base(directory)
    sys.path.insert(0, str(directory))
    yield name
    sys.path.remove(str(directory))


@pytest.fixture(params=BASES)
def base(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=RUNNERS)
def run(request: pytest.FixtureRequest, changed_import: str) -> Iterator[Run]:
    """Run a sample by its name, on one of the runners, and wait until it receives."""
    with ExitStack() as stack:

        def start(sample: str | type, base: str = "circus", **config: Any) -> Running:
            circusd = stack.enter_context(FakeCircusd(["web"]))
            module = circus_like_plugins.__name__ if base == "circus" else changed_import
            options = {
                "use": f"{module}.{sample}" if isinstance(sample, str) else sample,
                "name": "plugin:sample",
                "isolate": request.param == "process",
                "host.restart": "never",
                **config,
            }
            arbiter = Arbiter([options], circusd.endpoint, circusd.pubsub_endpoint, 7.0)
            stack.enter_context(arbiter)
            running = Running(circusd, arbiter, "sample")
            status = running.wait(lambda status: status.state in ("running", "failed"))
            assert status.state == "running", status
            circusd.wait_subscribed()
            return running

        yield start


def test_a_constructor_that_names_its_arguments_gets_them_all(run: Run, base: str) -> None:
    running = run("Positional", base, word="a b")
    running.said("init", "a b", "a b", 7.0)
    running.circusd.publish("my.app:v1", "reap", process_pid=42)
    running.said("my.app:v1", "reap", 42)


def test_a_plugin_whose_name_is_none_runs(run: Run, base: str) -> None:
    run("Star", base, word="x").said("init", "plugin:sample", "x")


def test_a_plugin_that_drops_its_config_on_the_way_up_runs(run: Run, base: str) -> None:
    run("Dropper", base, word="x").said("init", "x", {})


def test_call_works_in_handle_init_and_then_in_initialize(run: Run, base: str) -> None:
    run("Initializer", base).said("initialized", [["web"], ["web"]])


def test_timers_made_before_the_start_run_on_the_plugins_loop(run: Run, base: str) -> None:
    running = run("Timers", base)
    running.said("timeout")
    running.said("callback")
    for word in ("early", "late", "coroutine"):
        running.said(word, True, count=3)


def test_timers_are_stopped_in_handle_stop(run: Run, base: str) -> None:
    running = run("Timers", base)
    running.said("late", True)
    running.arbiter.stop()
    running.said("stopped")
    assert running.wait(lambda _: True).counters.errors == 0


def test_a_failing_periodic_callback_is_counted_and_goes_on(run: Run) -> None:
    status = run("Failing").wait(lambda status: status.counters.errors >= 2)
    assert status.state == "running"
    assert "nothing to look after" in str(status.last_error)


def test_a_failing_periodic_callback_is_logged_once_with_its_traceback(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    running = run("Failing")
    running.wait(lambda status: status.counters.errors)
    running.arbiter.stop()
    errors = running.wait(lambda _: True).counters.errors
    # What a process has logged last may be written a moment after the stop.
    running.wait(lambda _: ", in look_after\n" in caplog.text)
    assert errors >= 1
    assert caplog.text.count(", in look_after\n") == 1


def test_a_descriptor_is_watched_by_the_plugins_loop(run: Run, base: str) -> None:
    running = run("Listener", base)
    said = running.circusd.wait_command("say")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for text in ("one", "two"):
            sock.sendto(text.encode(), ("127.0.0.1", said.properties["words"][1]))
            running.said(text, True, True)


def test_threads_of_the_plugin_call_and_cast(run: Run, base: str) -> None:
    running = run("Threaded", base)
    running.said("thread", 1)
    plugin = running.plugin
    running.arbiter.stop()
    if plugin is not None:  # it lives in this process
        plugin.done.set()
        plugin.thread.join(5.0)
        # Circus's plugins cast from timers of theirs, with nobody there to catch anything.
        refused = "PluginStateError"
        assert plugin.outcomes == [refused, None if base == "circus" else refused]


def test_a_plugin_may_stop_itself_and_be_stopped_twice(run: Run, base: str) -> None:
    running = run("Stopper", base)
    running.circusd.publish("web", "reap", process_pid=1)
    status = running.wait(lambda status: status.state == "stopped")
    running.said("handle_stop", ["started"])
    running.arbiter.stop()
    assert status.last_error is None
    assert sum(command.command == "say" for command in running.circusd.commands) == 1


def test_attributes_that_happen_to_be_named_as_ours_are_the_plugins_own(run: Run) -> None:
    running = run("Namesakes")
    running.circusd.publish("plugin:other", "spawn", process_pid=1)
    running.said("plugin:other", ["queue"])


def test_a_plugin_that_calls_its_base_by_name_runs(run: Run, base: str) -> None:
    running = run("ByName", base, word="x")
    running.said("init", "x")
    running.said("initialized", ["web"])
    running.said("timeout")
    running.said("early", count=2)
    running.circusd.publish("web", "reap", process_pid=1)
    running.said("web", "reap")
    running.arbiter.stop()
    running.said("handle_stop")
    said = [command.properties.get("words") for command in running.circusd.commands]
    assert said.count(["handle_stop"]) == said.count(["web", "reap"]) == 1
    status = running.wait(lambda _: True)
    assert (status.state, status.last_error) == ("stopped", None)


class Observer(BaseObserver):  # type: ignore[misc]
    name = "observer"

    def look_after(self) -> None:
        self.cast("say", words=["looked", self.call("stats", name="absent")["status"]])


def test_an_observer_looks_after_things_and_gets_circusds_errors_as_replies(run: Run) -> None:
    running = run(Observer, loop_rate="0.01", port="9")
    running.said("looked", "error", count=2)


def test_a_command_without_a_reply_raises_at_its_deadline() -> None:
    class Asker(CircusBase):  # type: ignore[misc]
        outcomes: queue.SimpleQueue[object] = queue.SimpleQueue()
        timeouts = iter([0.05, 10.0])

        def handle_recv(self, data: object) -> None:
            try:
                self.outcomes.put(self.call("list", timeout=next(self.timeouts)))
            except circusplug.CallTimeout as error:
                self.outcomes.put(error)

    with (
        FakeCircusd() as circusd,
        Arbiter([Asker], circusd.endpoint, circusd.pubsub_endpoint) as arbiter,
    ):
        arbiter.wait(lambda statuses: all(s.state == "running" for s in statuses.values()))
        circusd.wait_subscribed()
        circusd.silence("list")
        circusd.publish("web", "spawn")
        assert isinstance(Asker.outcomes.get(timeout=10.0), circusplug.CallTimeout)
        circusd.clear_faults()
        circusd.publish("web", "spawn")
        assert Asker.outcomes.get(timeout=15.0)["status"] == "ok"  # type: ignore[index]


def test_a_plugin_that_closes_its_loop_and_raises_in_its_constructor_fails_alone() -> None:
    specs = [
        {"use": ResourceWatcher, "name": "broken", "host.restart": "never"},  # lacks 'watcher'
        {"use": "circus_like_plugins.Positional", "name": "whole"},
    ]
    with FakeCircusd() as circusd, Arbiter(specs, circusd.endpoint, circusd.pubsub_endpoint) as a:
        statuses = a.wait(lambda statuses: statuses["broken"].state == "failed")
        assert "watcher is mandatory" in str(statuses["broken"].last_error)
        circusd.wait_command("say", words=["init", None, None, 5.0])


def test_our_base_stands_just_above_circuss() -> None:
    adopted = adopt(FullStats)
    order = [f"{cls.__module__}.{cls.__name__}" for cls in adopted.__mro__]
    assert order[1:4] == [
        "circus.plugins.statsd.FullStats",
        "circus.plugins.statsd.BaseObserver",
        "circus.plugins.statsd.StatsdEmitter",
    ]
    assert order[-3:-1] == ["circusplug._plugin.base.CircusPlugin", "circus.plugins.CircusPlugin"]


def test_a_class_is_adopted_once_and_keeps_its_name() -> None:
    adopted = load_plugin_class("circus.plugins.flapping.Flapping")
    assert adopted is load_plugin_class(Flapping)
    assert adopted.__qualname__ == "Flapping"
    assert adopted.__module__ == "circus.plugins.flapping"
    assert issubclass(adopted, Flapping)


def test_mixins_before_and_after_the_base_keep_their_places() -> None:
    class Mixin:
        pass

    class Before(Mixin, CircusBase):  # type: ignore[misc]
        pass

    class After(CircusBase, Mixin):  # type: ignore[misc]
        pass

    for cls in (Before, After):
        order = [each for each in adopt(cls).__mro__ if each in (Mixin, CircusBase)]
        assert order == [each for each in cls.__mro__ if each in (Mixin, CircusBase)]


def test_tornado_forgets_the_loops_of_plugins_that_have_ended(run: Run) -> None:
    before = {*IOLoop._ioloop_for_asyncio}
    running = run("Timers")
    running.said("late", True)
    running.arbiter.stop()
    # Tornado forgets by itself the loops that others have closed, when it makes another one.
    assert {*IOLoop._ioloop_for_asyncio} <= before


def test_an_adopted_plugin_runs_by_hand_until_it_stops_itself() -> None:
    class Once(CircusBase):  # type: ignore[misc]
        stops = 0

        def handle_init(self) -> None:
            self.loop.add_callback(self.stop)

        def handle_stop(self) -> None:
            self.stops += 1

    with FakeCircusd() as circusd:
        plugin = adopt(Once)(circusd.endpoint, circusd.pubsub_endpoint, 5.0)
        plugin.start()
        plugin.stop()
        assert plugin.stops == 1


def test_what_tornado_logs_elsewhere_is_logged_as_ever(loop: PluginLoop) -> None:
    told: list[Any] = []
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    error = ZeroDivisionError()
    plain, failed = (
        logging.LogRecord("tornado.application", logging.ERROR, "", 0, "text", (), exc_info)
        for exc_info in (None, (ZeroDivisionError, error, None))
    )
    report = _ReportFilter()
    assert (report.filter(plain), report.filter(failed)) == (True, True)
    passes: list[bool] = []
    for record in (plain, failed):
        loop.call_soon(lambda record=record: passes.append(report.filter(record)))
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert (passes, told) == ([True, False], [error])


@pytest.mark.parametrize("way", ["close", "stop"])
def test_an_adopted_plugin_may_end_by_its_loop_and_casts_nothing_before_its_start(
    way: str,
) -> None:
    class Once(CircusBase):  # type: ignore[misc]
        """Of which Circus knows."""

        def handle_init(self) -> None:
            self.loop.add_callback(getattr(self.loop, way))  # as some do in the place of a stop

        def handle_recv(self, data: object) -> None:
            pass

    assert adopt(Once).__doc__ == "Of which Circus knows."
    with FakeCircusd() as circusd:
        plugin = adopt(Once)(circusd.endpoint, circusd.pubsub_endpoint, 5.0)
        with pytest.raises(circusplug.PluginStateError, match="not started yet"):
            plugin.cast("list")
        assert not plugin.loop.is_closed()
        plugin.start()
        assert plugin.loop.is_closed()
        plugin.cast("list")  # only logged: it has stopped


def test_circus_is_imported_only_if_a_plugin_brings_it() -> None:
    program = (
        "import sys, circusplug\n"
        "from circusplug.testing import run_plugin\n"
        "class P(circusplug.CircusPlugin):\n"
        "    def handle_recv(self, data): pass\n"
        "with run_plugin(P): pass\n"
        "print({'circus', 'tornado'} & {*sys.modules})\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout == "set()\n", result.stderr
