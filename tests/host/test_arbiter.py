# The host as its users meet it: real plugins on real threads against a FakeCircusd, how they
# start and stop.

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from members import Acts, Journal, MakeHost, Member, StopsItself, hosting, member
from patience import PATIENCE

from circusplug import Arbiter, CircusPlugin, HostError, PluginSpec, SpecError
from circusplug._host import arbiter as arbiter_module
from circusplug._plugin.plugin_thread import PluginThread
from circusplug.testing import FakeCircusd

pytestmark = pytest.mark.usefixtures("unhurried")


@contextlib.contextmanager
def publishing(circusd: FakeCircusd) -> Iterator[None]:
    """Publish one event as soon as two plugins are subscribed, whatever happens here meanwhile."""

    def publish() -> None:
        circusd.wait_subscribed(2, PATIENCE)
        circusd.publish("web", "spawn")

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        yield
    finally:
        publisher.join(PATIENCE)


def test_constructors_begin_in_the_order_of_the_plugins(host: MakeHost, journal: Journal) -> None:
    class Made(Member):
        def __init__(self, *args: Any, **config: Any) -> None:
            config["journal"].note(config["name"], "begins")
            super().__init__(*args, **config)

    names = [f"plugin {number}" for number in range(20)]
    with host(*[member(name, Made) for name in names]):
        assert journal.names("begins") == names


def test_no_plugin_waits_for_the_handle_init_of_another(host: MakeHost, journal: Journal) -> None:
    class Meets(Member):
        def handle_init(self) -> None:
            super().handle_init()
            for name in "abc":  # each gets on only when all of them have got here
                journal.wait(name, "init")

    with host(*[member(name, Meets) for name in "abc"]) as arbiter:
        arbiter.wait(lambda plugins: {item.state for item in plugins.values()} == {"running"})


def test_plugins_stop_in_reverse_order(host: MakeHost, journal: Journal) -> None:
    with host(member("a"), member("b"), member("c")):
        pass
    assert journal.names("stop") == ["c", "b", "a"]


def test_in_the_background_handlers_run_on_the_plugins_thread_and_handle_stop_on_the_leaving_one(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd
) -> None:
    with host(member("a"), member("b")) as arbiter:
        threads = [status.thread for status in arbiter.plugins.values()]
        fake_circusd.wait_subscribed(2)
        fake_circusd.publish("web", "spawn")
        journal.wait("a", "spawn")
        journal.wait("b", "spawn")
    assert [thread.name for thread in threads if thread] == ["plugin:a", "plugin:b"]
    for name, thread in zip("ab", threads, strict=True):
        assert journal.thread(name, "init") is thread
        assert journal.thread(name, "spawn") is thread
        assert journal.thread(name, "stop") is threading.current_thread()


def test_with_start_handle_stop_runs_on_the_thread_that_started(
    host: MakeHost, journal: Journal
) -> None:
    arbiter = host(member("a"))

    def stop_when_ready() -> None:
        journal.wait("a", "init")
        arbiter.stop()
        journal.note("test", "stop returned")

    stopper = threading.Thread(target=stop_when_ready)
    stopper.start()
    arbiter.start()
    stopper.join(PATIENCE)
    assert journal.thread("a", "stop") is threading.current_thread()
    assert journal.thread("a", "init") is not threading.current_thread()
    assert [(who, what) for who, what, _ in journal.entries][-2:] == [
        ("a", "stop"),
        ("test", "stop returned"),
    ]


def test_stop_may_be_called_twice_and_from_several_threads(
    host: MakeHost, journal: Journal
) -> None:
    arbiter = host(member("a"))
    with arbiter:
        stoppers = [threading.Thread(target=arbiter.stop) for _ in range(5)]
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join(PATIENCE)
            assert not stopper.is_alive()
        arbiter.stop()
        assert arbiter.plugins["a"].state == "stopped"
    arbiter.stop()
    assert journal.names("stop") == ["a"]


def test_a_plugin_can_stop_its_host_from_its_own_thread(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd
) -> None:
    def stop_host() -> None:
        arbiter.stop()

    arbiter = host(member("a"), member("b", Acts, act=stop_host))
    with arbiter:
        fake_circusd.wait_subscribed(2)
        fake_circusd.publish("web", "spawn")
        journal.wait("a", "stop")
        arbiter.wait(lambda plugins: {each.state for each in plugins.values()} == {"stopped"})
    assert journal.names("stop") == ["b", "a"]
    assert journal.of("b")[-2:] == ["spawn", "stop"]


def test_a_plugin_can_end_a_blocking_start(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd
) -> None:
    def stop_host() -> None:
        journal.wait("a", "init")
        arbiter.stop()

    arbiter = host(member("a"), member("b", Acts, act=stop_host))
    with publishing(fake_circusd):
        arbiter.start()
    assert journal.names("stop") == ["b", "a"]


def test_a_plugin_may_end_the_host_before_the_start_of_its_thread_has_returned(
    host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()
    start = PluginThread.start

    def start_slowly(thread: PluginThread) -> None:
        start(thread)
        assert asked.wait(PATIENCE)

    class Ends(Member):
        def handle_init(self) -> None:
            arbiter.stop()
            asked.set()

    monkeypatch.setattr(PluginThread, "start", start_slowly)
    arbiter = host(member("a", Ends))
    arbiter.start()
    assert arbiter.plugins["a"].state == "stopped"


def test_a_host_can_be_stopped_before_it_starts_and_then_does_not_start(host: MakeHost) -> None:
    arbiter = host(member("a"))
    arbiter.stop()
    with pytest.raises(HostError, match="once"):
        arbiter.start()
    assert arbiter.plugins["a"].state == "stopped"
    arbiter.fail("circusd has ended")
    assert arbiter.failure is None


def test_what_fails_once_the_host_was_told_to_stop_makes_that_no_failure(host: MakeHost) -> None:
    with host(member("a")) as arbiter:
        arbiter.stop()
        arbiter.fail("circusd has ended")
    assert arbiter.failure is None


def test_a_host_can_be_started_once_only(host: MakeHost) -> None:
    arbiter = host(member("a"))
    with arbiter, pytest.raises(HostError, match="once"):
        arbiter.start()
    with pytest.raises(HostError, match="once"), arbiter:
        pass


def test_a_host_without_plugins_runs_until_stopped(host: MakeHost) -> None:
    arbiter = host()
    with hosting(arbiter) as raised:
        assert arbiter.plugins == {}
    assert raised == []


def test_with_exit_when_done_the_host_ends_after_its_last_plugin(
    host: MakeHost, journal: Journal, fake_circusd: FakeCircusd
) -> None:
    arbiter = host(
        member("a", StopsItself),
        member("b", StopsItself),
        member("c", active=False),
        exit_when_done=True,
    )
    with publishing(fake_circusd):
        arbiter.start()
    assert sorted(journal.names("stop")) == ["a", "b"]


def test_with_exit_when_done_a_host_that_has_nothing_to_run_ends_at_once(host: MakeHost) -> None:
    arbiter = host(member("a", active=False), exit_when_done=True)
    limit = threading.Timer(PATIENCE, arbiter.fail, ["it does not end"])
    limit.start()
    try:
        arbiter.start()
    finally:
        limit.cancel()
        limit.join()


def test_a_context_that_was_given_is_used_and_not_ended(host: MakeHost) -> None:
    with zmq.Context() as context:
        context.set(zmq.MAX_SOCKETS, 1)  # not enough for a plugin
        with host(member("a", **{"host.restart": "never"}), context=context) as arbiter:
            error = arbiter.plugins["a"].last_error
        assert "Too many open files" in (error or "")
        assert not context.closed
        made = Arbiter.from_config(arbiter.config, context=context, exit_when_done=True)
        assert (made._context, made._exit_when_done) == (context, True)


def test_an_inactive_plugin_is_listed_and_not_started(host: MakeHost, journal: Journal) -> None:
    with host(member("a", active="no"), member("b")) as arbiter:
        assert [status.state for status in arbiter.plugins.values()] == ["inactive", "running"]
    assert arbiter.plugins["a"].state == "inactive"
    assert journal.of("a") == []


def test_two_plugins_of_one_name_are_refused(host: MakeHost) -> None:
    with pytest.raises(SpecError, match="two plugins are named 'a'"):
        host(member("a"), member("a"))


def test_a_class_or_a_spec_is_as_good_as_a_mapping(
    fake_circusd: FakeCircusd, journal: Journal
) -> None:
    class Plain(CircusPlugin):
        def handle_recv(self, data: tuple[bytes, bytes]) -> None:
            pass

    spec = PluginSpec("b", Member, {"name": "b", "journal": journal})
    endpoints = fake_circusd.endpoint, fake_circusd.pubsub_endpoint
    with Arbiter([Plain, spec], *endpoints) as arbiter:
        states = [(name.rpartition(".")[2], each.state) for name, each in arbiter.plugins.items()]
    assert states == [("Plain", "running"), ("b", "running")]


def test_plugins_get_what_the_host_was_told(fake_circusd: FakeCircusd, journal: Journal) -> None:
    with Arbiter(
        [member("a", journal=journal, colour="red", number=7)],
        endpoint=fake_circusd.endpoint,
        pubsub_endpoint=fake_circusd.pubsub_endpoint,
        check_delay=0.5,
    ) as arbiter:
        plugin = arbiter.instance("a")
        assert (plugin.endpoint, plugin.pubsub_endpoint, plugin.check_delay, plugin.ssh_server) == (
            fake_circusd.endpoint,
            fake_circusd.pubsub_endpoint,
            0.5,
            None,
        )
        assert plugin.config == {"name": "a", "journal": journal, "colour": "red", "number": 7}


@pytest.mark.parametrize(
    ("plugins", "said"),
    [
        (["events.Logger"], "'events.Logger' is no plugin; write a class, or"),
        ("events.Logger", "'plugins' is a list"),
        ({"use": "events.Logger"}, "'plugins' is a list"),
    ],
)
def test_what_is_no_plugin_is_refused_in_words(plugins: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        Arbiter(plugins)


def test_a_failure_from_before_the_start_ends_a_host_at_its_start(host: MakeHost) -> None:
    arbiter = host()
    arbiter.fail("circusd was killed by SIGKILL")
    assert arbiter.failure == "circusd was killed by SIGKILL"
    with pytest.raises(HostError, match=r"^circusd was killed by SIGKILL$"), arbiter:
        pass


def test_a_host_that_cannot_be_made_leaves_no_control_endpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_engine(*_: Any) -> None:
        raise OSError("no descriptors left")

    monkeypatch.setattr(arbiter_module, "Engine", no_engine)
    with pytest.raises(OSError, match="descriptors"):
        Arbiter([], control=f"ipc://{tmp_path}/control").start()
    assert not (tmp_path / "control").exists()
