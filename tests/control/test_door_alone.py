# The door of a host and its circusd, with a socket in circusd's place: what it passes on, and in
# which form; what it makes of two replies; whom it answers. The plugins are those of a host that
# does nothing.

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq
from patience import PATIENCE
from steered import control_ends
from still_host import StillHost, status

from circusplug import HostError
from circusplug._control import door
from circusplug._control.door import Door
from circusplug._wire.commands import CALL_TIMEOUT

BUSY = {"status": "error", "errno": 5, "reason": "arbiter is already running watcher_stop command"}
ABSENT = {"status": "error", "errno": 3, "reason": "program plugin:a not found"}


class Scene:
    """A door, a client of it, and what is there in the place of circusd."""

    def __init__(self, context: zmq.Context[Any], endpoint: str) -> None:
        self.host = StillHost(status("a", pid=os.getpid()), status("b", isolated=True))
        self.door = Door(self.host, endpoint, f"{endpoint}.circusd")
        self._client, self._circusd = context.socket(zmq.DEALER), context.socket(zmq.ROUTER)
        for sock in (self._client, self._circusd):
            sock.linger = sock.sndhwm = 0
        self._circusd.bind(f"{endpoint}.circusd")
        self.door.open()
        self._client.connect(endpoint)

    def send(self, command: str, **message: Any) -> None:
        """Send a command to the door."""
        self._client.send_json({"command": command, "id": "mine", **message})

    def passed(self) -> dict[str, Any]:
        """What comes to circusd next."""
        assert self._circusd.poll(int(PATIENCE * 1000))
        self._sender, frame = self._circusd.recv_multipart()
        found: dict[str, Any] = json.loads(frame)
        return found

    def answer(self, **reply: Any) -> None:
        """Have circusd answer what has come to it last, or send any frame."""
        frame = reply.pop("frame", None) or json.dumps(reply).encode()
        self._circusd.send_multipart([self._sender, frame])

    def reply(self) -> dict[str, Any]:
        """What the client gets next."""
        assert self._client.poll(int(PATIENCE * 1000))
        found: dict[str, Any] = self._client.recv_json()
        return found

    def both(self, command: str, *, reply: dict[str, Any], **message: Any) -> dict[str, Any]:
        """Send a command that circusd answers so; returns what the client gets."""
        self.send(command, **message)
        self.answer(**{"id": self.passed()["id"], "status": "ok", "time": 1.0, **reply})
        return self.reply()

    def under_way(self) -> list[int]:
        """The commands that circusd has not answered."""
        return self.door.run(lambda: list(self.door._under_way))


@pytest.fixture
def scene() -> Iterator[Scene]:
    with control_ends() as ends:
        context: zmq.Context[Any] = zmq.Context()
        scene = Scene(context, ends.endpoint)
        yield scene
        scene.door.close()
        context.destroy(0)


# What both say becomes one.


@pytest.mark.parametrize(
    ("command", "theirs", "key", "merged"),
    [
        ("list", ["web", "zoo"], "watchers", ["plugin:a", "plugin:b", "web", "zoo"]),
        ("numwatchers", 2, "numwatchers", 4),
        ("NumProcesses", 5, "numprocesses", 6),
        (
            "status",
            {"web": "active"},
            "statuses",
            {"web": "active", "plugin:a": "active", "plugin:b": "active"},
        ),
    ],
)
def test_what_is_of_all_is_of_both(
    scene: Scene, command: str, theirs: Any, key: str, merged: Any
) -> None:
    reply = scene.both(command, reply={key: theirs})
    assert (reply["status"], reply["id"], reply[key]) == ("ok", "mine", merged)
    assert scene.under_way() == []


def test_stats_of_all_are_of_both_and_the_host_is_a_child_of_circusd(scene: Scene) -> None:
    infos = scene.both("stats", reply={"infos": {"web": {"7": {}}}})["infos"]
    assert list(infos) == ["web", "plugin:a", "plugin:b"]
    info = scene.both("dstats", reply={"info": {"pid": 7, "children": [{"pid": 8}]}})["info"]
    assert (info["pid"], [child["pid"] for child in info["children"]]) == (7, [8, os.getpid()])


@pytest.mark.parametrize("command", ["list", "dstats"])
def test_an_error_of_circusds_is_the_answer(scene: Scene, command: str) -> None:
    reply = scene.both(command, reply={"status": "error", "errno": 5, "reason": "no"})
    assert (reply["status"], reply["reason"], reply["id"]) == ("error", "no", "mine")


def test_globaloptions_are_circusds_but_for_its_endpoint(scene: Scene) -> None:
    options = {"endpoint": "elsewhere", "check_delay": 3}
    reply = scene.both("globaloptions", reply={"options": options})
    assert reply["options"] == {"endpoint": scene.door.endpoint, "check_delay": 3}
    asked = {"properties": {"option": "check_delay"}}
    reply = scene.both("globaloptions", reply={"options": {"check_delay": 3}}, **asked)
    assert reply["options"] == {"check_delay": 3}
    assert scene.both("globaloptions", reply=BUSY)["reason"] == BUSY["reason"]


# Whose a command is.


@pytest.mark.parametrize(
    ("command", "name"),
    [("status", "PLUGIN:a"), ("list", "plugin:B"), ("stop", "plugin:*"), ("Restart", "Plugin:a")],
)
def test_what_is_the_plugins_alone_does_not_come_to_circusd(
    scene: Scene, command: str, name: str
) -> None:
    scene.send(command, properties={"name": name})
    assert scene.reply()["status"] not in ("error", None)
    scene.send("status", properties={"name": "web"})
    assert scene.passed()["properties"] == {"name": "web"}


def test_a_command_that_a_plugin_does_not_know_gets_a_hint(scene: Scene) -> None:
    scene.send("restrt", properties={"name": "plugin:a"})
    assert scene.reply()["reason"] == "unknown command: 'restrt' (did you mean 'restart'?)"


@pytest.mark.parametrize("command", ["quit", "reloadconfig", "QUIT"])
def test_what_ends_or_reloads_both_is_asked_of_the_host(scene: Scene, command: str) -> None:
    scene.send(command, properties={"waiting": True})
    scene.send("incr", properties={"name": "web"})
    assert scene.passed()["command"] == "incr"
    scene.host.done.set_result(None)
    assert scene.reply()["id"] == "mine"


@pytest.mark.parametrize(
    ("command", "properties"),
    [
        ("incr", {"name": "web", "nb": 2}),
        ("restart", {"name": ["plugin:a"]}),
        ("restart", {"name": "w*"}),
        ("status", {"name": "plugin:c"}),
        ("absent", {}),
        ("incr", 3),
        ("add", {"name": "big", "env": {"A": "x" * 2_000_000}}),
    ],
)
def test_what_is_circusds_is_passed_on_as_it_is_and_so_is_the_answer(
    scene: Scene, command: str, properties: Any
) -> None:
    scene.send(command, properties=properties, msg_type="any")
    passed = scene.passed()
    assert (passed["command"], passed["properties"]) == (command, properties)
    assert passed["msg_type"] == "any"
    scene.answer(id=passed["id"], status="error", reason="as it is", errno=42, time=3)
    assert scene.reply() == {
        "id": "mine", "status": "error", "reason": "as it is", "errno": 42, "time": 3,
    }  # fmt: skip
    assert scene.host.asked == []
    assert scene.under_way() == []


# What is asked of both.


def test_a_pattern_that_fits_no_watcher_of_circusds_may_fit_a_plugin(scene: Scene) -> None:
    reply = scene.both("stop", reply=ABSENT, properties={"name": "pl*"})
    assert (reply["status"], reply["id"], reply["reason"]) == ("ok", "mine", None)
    reply = scene.both("Start", reply=ABSENT, properties={"name": "web|plugin:b", "match": "regex"})
    assert reply["status"] == "ok"
    assert scene.host.asked == [("stop", "a", "b"), ("start", "b")]


def test_another_error_of_circusds_is_told(scene: Scene) -> None:
    reply = scene.both("stop", reply={**BUSY, "reason": "no"}, properties={"name": "pl*"})
    assert (reply["status"], reply["reason"]) == ("error", "no")


def test_who_waits_for_both_hears_when_both_are_done(scene: Scene) -> None:
    scene.send("stop", properties={"waiting": True})
    scene.answer(id=scene.passed()["id"], status="ok")
    scene.send("numwatchers")
    scene.answer(id=scene.passed()["id"], status="ok", numwatchers=0)
    assert scene.reply()["numwatchers"] == 2
    scene.host.done.set_result(None)
    assert (reply := scene.reply())["status"] == "ok"
    assert reply["id"] == "mine"


def test_of_two_errors_circusds_is_told(scene: Scene) -> None:
    scene.host.done.set_exception(HostError("not the plugins"))
    error = {"status": "error", "errno": 42, "reason": "not the watchers"}
    reply = scene.both("stop", reply=error, properties={"waiting": True})
    assert (reply["errno"], reply["reason"]) == (42, "not the watchers")


def test_a_reply_that_comes_when_the_door_is_closed_is_no_error(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.send("stop", properties={"waiting": True})
    scene.answer(id=scene.passed()["id"], status="ok")
    scene.send("numwatchers")
    scene.answer(id=scene.passed()["id"], status="ok", numwatchers=0)
    scene.reply()
    scene.door.close()
    scene.host.done.set_result(None)
    assert caplog.records == []


# Casts, and a circusd that is busy.


def test_a_cast_is_passed_on_as_one_and_nothing_is_kept_of_it(scene: Scene) -> None:
    for command in ("incr", "list"):
        scene.send(command, msg_type="cast")
        assert scene.passed()["msg_type"] == "cast"
    assert scene.under_way() == []


def test_a_cast_to_both_is_sent_again_to_a_busy_circusd_and_not_answered(scene: Scene) -> None:
    scene.send("stop", msg_type="cast")
    first = scene.passed()
    assert first["msg_type"] is None  # which is answered, or nobody knew that it is busy
    scene.answer(id=first["id"], **BUSY)
    again = scene.passed()
    assert again["id"] != first["id"]
    scene.answer(id=again["id"], status="ok")
    assert scene.both("numwatchers", reply={"numwatchers": 0})["numwatchers"] == 2
    assert scene.host.asked == [("stop", "a", "b")]  # once
    assert scene.under_way() == []


def test_a_busy_circusd_is_asked_less_and_less_often(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: list[float] = []

    def at_once(seconds: float, function: Callable[[], None]) -> None:
        delays.append(seconds)
        function()

    monkeypatch.setattr(scene.door, "call_later", at_once)
    scene.send("stop")
    for _ in range(3):
        scene.answer(id=scene.passed()["id"], **BUSY)
    scene.answer(id=scene.passed()["id"], status="ok")
    assert scene.reply()["status"] == "ok"
    assert delays == [0.05, 0.1, 0.2]


def test_the_door_gives_up_before_its_client_does() -> None:
    assert CALL_TIMEOUT / 2 < door._PATIENCE < CALL_TIMEOUT


# Replies and commands that go astray.


def test_a_reply_to_nothing_is_passed_over(scene: Scene) -> None:
    scene.send("incr", properties={"name": "web"})
    number = scene.passed()["id"]
    for frame in (b"garbage", b"{}", b'{"id": 999}', b'{"id": "1"}', b'{"id": [1]}'):
        scene.answer(frame=frame)
    scene.answer(id=number, status="ok")
    scene.answer(id=number, status="twice")
    assert scene.reply()["status"] == "ok"
    assert scene.both("decr", reply={"status": "ok"})["status"] == "ok"


def test_of_too_many_commands_that_are_not_answered_the_oldest_are_forgotten(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "_MOST_UNDER_WAY", 3)
    for _ in range(5):
        scene.send("incr")
    numbers = [scene.passed()["id"] for _ in range(5)]
    assert scene.under_way() == numbers[-3:]


def test_a_circusd_that_takes_nothing_holds_up_no_command_about_plugins(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with control_ends() as ends, zmq.Context() as context:
        opened = Door(StillHost(status("a")), ends.endpoint, "ipc:///nobody/here")
        opened.open()
        try:
            with context.socket(zmq.DEALER) as client:
                client.linger = client.sndhwm = 0
                client.connect(ends.endpoint)
                for _ in range(1200):  # more than wait in a socket
                    client.send_json({"command": "incr"})
                client.send_json({"command": "status", "properties": {"name": "plugin:a"}})
                assert client.poll(int(PATIENCE * 1000))
                assert client.recv_json()["status"] == "active"
            assert caplog.records == []
        finally:
            opened.close()


# To whom it belongs.


def test_an_owner_that_there_is_not_is_told() -> None:
    with control_ends() as ends:
        opened = Door(StillHost(), ends.endpoint, "ipc:///nobody/here", "no such user")
        with pytest.raises(HostError, match="'endpoint_owner' no such user: no user"):
            opened.open()


def test_a_port_belongs_to_nobody() -> None:
    from circusd_real import free_endpoints

    (endpoint,) = free_endpoints(1)
    opened = Door(StillHost(), endpoint, "ipc:///nobody/here", "no such user")
    opened.open()
    opened.close()
