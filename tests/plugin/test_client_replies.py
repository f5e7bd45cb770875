# Replies to a client's calls and what is none, circusd's errors, and what counts as sent.

from __future__ import annotations

from typing import Any

import pytest
from client_bench import SOON, Asking, Bench, Router, Way, ask_in_vain

from circusplug import CallConflict, CallError, CallTimeout
from circusplug._plugin.calls import raise_for_status
from circusplug.testing import FakeCircusd

pytestmark = pytest.mark.usefixtures("the_owner_may_be_late", "clock_as_before")


def test_a_call_returns_the_reply_to_it(way: Way, fake_circusd: FakeCircusd) -> None:
    fake_circusd.add_watcher("web")
    assert way("list")["watchers"] == ["web"]
    assert way("numprocesses", name="web")["numprocesses"] == 1


def test_each_command_has_an_id_of_its_own(way: Way, fake_circusd: FakeCircusd) -> None:
    replies = [way("list") for _ in range(3)]
    ids = [command.id for command in fake_circusd.commands]
    assert len(set(ids)) == 3
    assert [reply["id"] for reply in replies] == ids


@pytest.mark.parametrize("instead", [False, True], ids=["then the reply", "instead"])
@pytest.mark.parametrize("what", ["wrong_id", "garbage"])
def test_what_is_not_the_reply_is_dropped(
    what: str, instead: bool, way: Way, fake_circusd: FakeCircusd
) -> None:
    getattr(fake_circusd, what)("list", instead=instead, count=None)
    if instead:
        with pytest.raises(CallTimeout):
            way("list", SOON)
        fake_circusd.clear_faults()
    assert way("list")["watchers"] == []


@pytest.mark.parametrize(
    "frames",
    [
        (b"",),
        (b"\xff",),
        (b"[]",),
        (b"7",),
        (b"[" * 100_000,),
        (b'{"id": "2"}',),
        (b'{"id": [2]}',),
        (b'{"id": null, "status": "error"}',),
        (b"{}",),
        (b'{"id": 2, "status": "ok"}', b"more"),
        (b"more", b'{"id": 2, "status": "ok"}'),
    ],
    ids=lambda frames: str([frame[:30] for frame in frames]),
)
@pytest.mark.parametrize("where", ["other thread", "own thread"])
def test_a_reply_that_is_no_reply_to_anybody_is_dropped(
    where: str, frames: tuple[bytes, ...], router: Router, routed: Bench
) -> None:
    def call() -> Any:
        if where == "own thread":
            return routed.on_owner(lambda: routed.call("list"))
        return routed.call("list")

    asking = Asking(call)
    routing_id, request = router.take()
    assert request["id"] == 2
    router.send(routing_id, *frames)
    router.answer(routing_id, request, watchers=["right"])
    assert asking.result()["watchers"] == ["right"]


def test_a_late_reply_is_not_taken_for_the_next_commands(
    way: Way, fake_circusd: FakeCircusd
) -> None:
    hold = fake_circusd.hold("list")
    with pytest.raises(CallTimeout):
        way("list", SOON)
    fake_circusd.reply("numwatchers", {"numwatchers": 42})
    hold.release()
    assert way("numwatchers")["numwatchers"] == 42


def test_an_error_reply_becomes_a_call_error_with_circusds_words(fake_circusd: FakeCircusd) -> None:
    reply = {"status": "error", "reason": "program absent not found", "errno": 3, "tb": None}
    with pytest.raises(CallError) as caught:
        raise_for_status("incr", {"name": "absent"}, reply)
    error = caught.value
    assert (error.command, error.properties, error.errno) == ("incr", {"name": "absent"}, 3)
    assert error.reason == "program absent not found"
    assert error.reply == reply
    assert not error.retryable
    assert not isinstance(error, CallConflict)


@pytest.mark.parametrize(
    ("reason", "conflict"),
    [
        ("arbiter is already running watcher_restart command", True),
        ("arbiter is restarting...", True),
        ("command 'incr': invalid literal for int()", False),
    ],
)
def test_a_conflict_is_told_from_a_failing_command(reason: str, conflict: bool) -> None:
    with pytest.raises(CallError) as caught:
        raise_for_status("incr", {}, {"status": "error", "reason": reason, "errno": 5})
    assert isinstance(caught.value, CallConflict) is conflict
    assert caught.value.retryable is conflict


def test_a_reply_that_is_no_error_is_returned_as_it_is() -> None:
    reply = {"status": "stopped", "time": 1}
    assert raise_for_status("status", {"name": "web"}, reply) is reply


def test_what_cannot_be_said_in_json_is_refused_and_nothing_is_sent(
    way: Way, bench: Bench, fake_circusd: FakeCircusd
) -> None:
    loop: dict[str, Any] = {}
    loop["self"] = loop
    for value in (object(), b"bytes", {1, 2}, loop):
        with pytest.raises(CallError, match="cannot be sent as JSON"):
            way("set", name="web", options=value)
    with pytest.raises(CallError, match="cannot be sent as JSON"):
        bench.client.cast("set", {"name": object()})
    assert way("list")["watchers"] == []
    assert [command.command for command in fake_circusd.commands] == ["list"]


def test_only_what_was_sent_is_counted(bench: Bench, fake_circusd: FakeCircusd) -> None:
    bench.call("list")
    bench.client.cast("list", {})
    fake_circusd.silence("incr")
    ask_in_vain(lambda timeout: bench.call("incr", timeout))
    with pytest.raises(CallError):
        bench.call("set", options=object())
    assert bench.sent == 3
