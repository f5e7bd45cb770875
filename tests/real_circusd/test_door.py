# The one door of `circusplug up`: at the endpoint of the file a stock client finds circusd's
# watchers and the host's plugins together, and both can be changed there.

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from circusd_real import free_endpoints
from command import Running, environment, plugin, write_ini
from patience import PATIENCE, wait_while
from stopped import stopped

from circusplug._control.client import ControlClient
from circusplug._errors import CircusdError

IDLE = "[watcher:idle]\ncmd = sleep 120\n"
QUIET = environment(PYTHONWARNINGS="")


class Door:
    """A host with its circusd, and a client of it."""

    def __init__(self, command: Running, client: ControlClient, path: Path) -> None:
        self.command = command
        self.client = client
        self.path = path

    def ask(self, command: str, **properties: Any) -> dict[str, Any]:
        return self.client.ask(command, **properties)


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    endpoints = free_endpoints(2)
    path = write_ini(tmp_path, *endpoints, IDLE, plugin("one"), plugin("two", isolate=1))
    with Running(tmp_path, "up", path, env=QUIET) as command:
        command.wait_for_all("plugin:one: init", "plugin:two: init", "idle started")
        with ControlClient(endpoints[0]) as client:
            # What its handle_init has printed comes sooner than that it has returned.
            wait_while(lambda: "starting" in client.ask("status")["statuses"].values())
            yield Door(command, client, path)
        command.interrupt()
        assert command.end() == 0


def test_watchers_and_plugins_are_told_of_together_and_each_gets_what_is_its_own(
    door: Door,
) -> None:
    assert door.ask("list")["watchers"] == ["idle", "plugin:one", "plugin:two"]
    assert door.ask("status")["statuses"] == {
        "idle": "active",
        "plugin:one": "active",
        "plugin:two": "active",
    }
    assert set(door.ask("stats")["infos"]) == {"idle", "plugin:one", "plugin:two"}
    assert door.ask("numwatchers")["numwatchers"] == 3
    assert door.ask("numprocesses")["numprocesses"] == 3
    children = door.ask("dstats")["info"]["children"]
    assert door.command.pid in [child["pid"] for child in children]
    # And each gets what is its own.
    assert door.ask("options", name="idle")["options"]["cmd"] == "sleep 120"
    assert door.ask("options", name="PLUGIN:One")["options"]["use"] == "tellers.Teller"
    assert door.ask("incr", name="idle", waiting=True)["numprocesses"] == 2
    with pytest.raises(CircusdError, match="one process or thread"):
        door.ask("incr", name="plugin:one")
    with pytest.raises(CircusdError, match="program absent not found"):
        door.ask("status", name="absent")
    with pytest.raises(CircusdError, match="unknown command"):
        door.ask("absent")


def test_a_pattern_reaches_both(door: Door) -> None:
    door.ask("stop", name="plugin:*", waiting=True)
    assert door.ask("status", name="plugin:two")["status"] == "stopped"
    assert door.ask("status", name="idle")["status"] == "active"
    door.ask("start", name="pl*", waiting=True)  # which fits no watcher of circusd's
    before = door.ask("list", name="idle")["pids"]
    door.ask("restart", name="*", waiting=True)
    assert door.ask("list", name="idle")["pids"] != before
    door.command.wait_for("plugin:one: init", 3)
    statuses = door.ask("status")["statuses"]
    assert statuses == dict.fromkeys(("idle", "plugin:one", "plugin:two"), "active")


@pytest.mark.parametrize("how", ["reloadconfig", "SIGHUP"])
def test_the_whole_file_is_read_again(how: str, door: Door) -> None:
    """But for where circusd is: it stays where it was started."""
    text = door.path.read_text().replace("sleep 120", "sleep 121")
    text = re.sub("(?<=pubsub_endpoint = ).*", "tcp://127.0.0.1:1", text)
    text += "[watcher:more]\ncmd = sleep 122\n" + plugin("three")
    door.path.write_text(text)
    if how == "SIGHUP":
        door.command.signal(signal.SIGHUP)
        door.command.wait_for("reloaded: added three; circusd has read the watchers again")
    else:
        door.ask("reloadconfig", waiting=True)
    assert door.ask("list")["watchers"] == [
        *("idle", "more", "plugin:one", "plugin:three", "plugin:two")
    ]
    assert door.ask("options", name="idle")["options"]["cmd"] == "sleep 121"
    door.path.write_text(text.replace("[circus]", "[circus\n"))
    with pytest.raises(CircusdError):
        door.ask("reloadconfig", waiting=True)
    assert door.ask("numwatchers")["numwatchers"] == 5


def test_a_circusd_that_hangs_holds_up_no_command_about_plugins(door: Door) -> None:
    found = door.ask("dstats")["info"]["pid"]
    asked = [{"id": n, "command": "status", "properties": {}} for n in range(50)]
    with zmq.Context() as context, context.socket(zmq.DEALER) as other:
        other.linger = 0
        other.connect(door.client.endpoint)
        with stopped(found):
            for request in asked:
                other.send_json(request)
            assert door.ask("status", name="plugin:one")["status"] == "active"
            door.ask("restart", name="plugin:one", waiting=True)
        answered = []
        for _ in asked:
            assert other.poll(int(1000 * PATIENCE))
            answered.append(other.recv_json()["id"])
    assert sorted(answered) == list(range(50))


def test_without_the_door_circusd_is_at_the_endpoint_of_the_file(tmp_path: Path) -> None:
    endpoints = free_endpoints(2)
    path = write_ini(tmp_path, *endpoints, IDLE, plugin("one"), "[circusplug]\ndoor = no\n")
    with Running(tmp_path, "up", path, env=QUIET) as command:
        command.wait_for_all("plugin:one: init", "idle started")
        with ControlClient(endpoints[0]) as client:
            assert client.ask("list")["watchers"] == ["idle"]
        command.interrupt()
        assert command.end() == 0
