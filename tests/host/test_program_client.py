# `arbiter.client`: commands of the program itself, from any thread, against a FakeCircusd.

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from members import MakeHost, Member, hosting, member, state_is
from patience import PATIENCE

from circusplug import CallConflict, CallError, CallTimeout, HostError
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
