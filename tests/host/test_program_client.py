# `arbiter.client`: commands of the program itself, from any thread, against a FakeCircusd.

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import zmq
from members import MakeHost, Member, hosting, member, state_is
from patience import PATIENCE

from circusplug import CallConflict, CallError, CallTimeout, HostError, PluginStateError
from circusplug._host import program_client
from circusplug._host.program_client import ProgramClient
from circusplug.testing import FakeCircusd

CONFLICT = {
    "status": "error",
    "errno": 5,
    "reason": "arbiter is already running watcher_restart command",
}

pytestmark = pytest.mark.usefixtures("unhurried")


def test_before_the_start_and_after_the_stop_there_is_one_clear_error(host: MakeHost) -> None:
    arbiter = host()
    client = arbiter.client
    for send in (client.call, client.cast):
        with pytest.raises(HostError, match=r"^cannot send 'list': the arbiter has not been star"):
            send("list")
    with arbiter:
        assert client.call("list")["watchers"] == []
    for send in (client.call, client.cast):
        with pytest.raises(HostError, match=r"^cannot send 'list': the arbiter has stopped$"):
            send("list")


def test_commands_are_sent_from_many_threads(host: MakeHost, fake_circusd: FakeCircusd) -> None:
    fake_circusd.add_watcher("Web", numprocesses=1)
    with host() as arbiter, ThreadPoolExecutor(8) as threads:
        call = arbiter.client.call
        found = list(threads.map(lambda number: call("options", name="Web"), range(200)))
        assert {reply["options"]["numprocesses"] for reply in found} == {1}
        assert len({reply["id"] for reply in found}) == 200


def test_a_cast_reaches_circusd(host: MakeHost, fake_circusd: FakeCircusd) -> None:
    with host() as arbiter:
        arbiter.client.cast("say", what="hello")
        command = fake_circusd.wait_command("say", timeout=PATIENCE)
        assert command.properties == {"what": "hello"}


def test_a_blocking_host_has_a_client_too(host: MakeHost, fake_circusd: FakeCircusd) -> None:
    arbiter = host(member("a"))
    with hosting(arbiter) as raised:
        arbiter.wait(state_is("a", "running"), PATIENCE)
        assert arbiter.client.call("list")["watchers"] == []
    assert raised == []


def test_errors_are_those_of_a_plugin_s_calls(host: MakeHost, fake_circusd: FakeCircusd) -> None:
    with host() as arbiter:
        with pytest.raises(CallError, match="absent") as caught:
            arbiter.client.call("options", name="absent")
        assert caught.value.errno == 3
        with pytest.raises(CallError, match="cannot be sent as JSON"):
            arbiter.client.call("options", name=object())
        fake_circusd.silence()
        with pytest.raises(CallTimeout):
            arbiter.client.call("list", timeout=0.05)


def test_a_conflict_is_tried_again(host: MakeHost, fake_circusd: FakeCircusd) -> None:
    fake_circusd.add_watcher("web")
    with host() as arbiter:
        fake_circusd.reply("incr", CONFLICT, count=1)
        assert arbiter.client.call("incr", name="web")["status"] == "ok"
        fake_circusd.reply("incr", CONFLICT, count=1)
        with pytest.raises(CallConflict):
            arbiter.client.call("incr", name="web", patience=0)


def test_a_call_under_way_when_the_host_stops_fails_at_once(
    host: MakeHost, fake_circusd: FakeCircusd
) -> None:
    failed: list[Exception] = []
    fake_circusd.silence()
    arbiter = host()

    def ask() -> None:
        try:
            arbiter.client.call("list", timeout=10 * PATIENCE)
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    with arbiter:
        thread.start()
        fake_circusd.wait_command("list", timeout=PATIENCE)
    thread.join(PATIENCE)
    assert [str(error) for error in failed] == ["cannot send 'list': the arbiter has stopped"]
    assert isinstance(failed[0], HostError)


def test_a_plugin_that_stops_may_use_it(host: MakeHost, fake_circusd: FakeCircusd) -> None:
    found: list[Any] = []

    class Asks(Member):
        def handle_stop(self) -> None:
            found.append(arbiter.client.call("list")["watchers"])

    arbiter = host(member("a", Asks))
    with arbiter:
        pass
    assert found == [[]]


def test_it_follows_the_host_to_another_circusd(host: MakeHost) -> None:
    with host() as arbiter, FakeCircusd() as other:
        arbiter.client.call("list")
        other.add_watcher("there")
        ends = {"endpoint": other.endpoint, "pubsub_endpoint": other.pubsub_endpoint}
        arbiter.reconfigure(replace(arbiter.config, **ends))
        assert arbiter.client.call("list")["watchers"] == ["there"]


def test_it_is_where_the_host_is_although_it_was_not_used_before(host: MakeHost) -> None:
    with host() as arbiter, FakeCircusd() as other:
        other.add_watcher("there")
        ends = {"endpoint": other.endpoint, "pubsub_endpoint": other.pubsub_endpoint}
        arbiter.reconfigure(replace(arbiter.config, **ends))
        assert arbiter.client.call("list")["watchers"] == ["there"]


def no_loop(patch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError("no descriptors left")

    patch.setattr(program_client, "PluginLoop", fail)


def no_thread(patch: pytest.MonkeyPatch) -> None:
    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    patch.setattr(
        program_client, "threading", SimpleNamespace(Thread=NoThread, Event=threading.Event)
    )


def no_socket(patch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise zmq.ZMQError(errno.EMFILE)

    patch.setattr(program_client, "command_socket", fail)


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        (no_loop, "no descriptors left"),
        (no_thread, "can't start new thread"),
        (no_socket, "Too many open files"),
    ],
)
def test_what_it_lacks_is_told_and_it_is_tried_again_with_the_next_command(
    lacks: Callable[[pytest.MonkeyPatch], None],
    said: str,
    host: MakeHost,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with host() as arbiter:
        with monkeypatch.context() as patch:
            lacks(patch)
            for send in (arbiter.client.call, arbiter.client.cast):
                with pytest.raises(HostError, match=f"^no connection to circusd: {said}$"):
                    send("list")
        assert arbiter.client.call("list")["watchers"] == []


def test_what_is_sent_as_the_host_stops_is_told_so() -> None:
    def refuse(*_: object) -> None:
        raise PluginStateError("closed")

    client = ProgramClient()
    client.close()
    client._client = lambda _: SimpleNamespace(call=refuse, cast=refuse)  # type: ignore[assignment]
    for send in (client.call, client.cast):
        with pytest.raises(HostError, match=r"^cannot send 'list': the arbiter has stopped$"):
            send("list")


def test_a_command_has_the_time_and_the_patience_that_it_was_given() -> None:
    given: list[object] = []

    def call(*what: object) -> dict[str, object]:
        given.append(what)
        return {"status": "ok"}

    client = ProgramClient()
    client._client = lambda _: SimpleNamespace(call=call)  # type: ignore[assignment]
    client.call("incr", name="web", timeout=3.0, patience=2.0)
    client.call("list")
    assert given == [("incr", {"name": "web"}, 3.0, 2.0), ("list", {}, None, None)]
