# What plugins send about plugins under `circusplug up`: it reaches them as it does under Circus,
# also the one that has sent it, and nobody waits for himself.

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from circusd_real import free_endpoints
from command import Running, environment, plugin, write_ini
from patience import PATIENCE, wait_while

from circusplug._control.client import ControlClient, NotRunningError
from circusplug._errors import CircusdError

QUIET = environment(PYTHONWARNINGS="")
IDLE = "[watcher:idle]\ncmd = sleep 120\n"

#: Plugins that send what their file says when the watcher's options change: a handler, one that is
#: awaited, and a thread of the plugin's own, which its `handle_stop` waits for.
ASKERS = """\
import json
import threading

from tellers import Teller


class Asks(Teller):
    def order(self):
        with open(self.config["order"]) as file:
            return json.load(file)

    def ask(self):
        order = self.order()
        self.say(f"heard {order['number']} {json.dumps(self.call(**order['command']))}")

    def handle_recv(self, data):
        if self.split_data(data)[1] == "updated":
            self.ask()


class Awaits(Asks):
    async def handle_recv(self, data):
        if self.split_data(data)[1] == "updated":
            order = self.order()
            reply = await self.call_async(**order["command"])
            self.say(f"heard {order['number']} {json.dumps(reply)}")


class FromThread(Asks):
    def handle_init(self):
        super().handle_init()
        self.due, self.stops = threading.Event(), False
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self):
        self.due.wait()
        if not self.stops:
            self.ask()

    def handle_recv(self, data):
        if self.split_data(data)[1] == "updated":
            self.due.set()

    def handle_stop(self):
        self.stops = not self.due.is_set()
        self.due.set()
        self.thread.join()
        super().handle_stop()


class Casts(Asks):
    def handle_recv(self, data):
        if self.split_data(data)[1] == "updated":
            self.cast(**self.order()["command"])


class Blocks(Teller):
    def handle_recv(self, data):
        if self.split_data(data)[1] == "updated":
            self.say("blocks")
            open(self.config["until"]).close()


class AsksLater(Asks):
    def handle_init(self):
        super().handle_init()
        self.cues = 0

    def handle_recv(self, data):
        self.cues += self.split_data(data)[1] == "updated"
        if self.cues > 1:
            super().handle_recv(data)


class Last(Asks):
    def handle_recv(self, data):
        pass

    def handle_stop(self):
        self.ask()
"""


class Up:
    """`circusplug up` with a plugin that asks, another one, and a watcher."""

    def __init__(self, command: Running, client: ControlClient, order: Path) -> None:
        self.command = command
        self.ask = client.ask
        self._order = order
        self._number = 0

    def order(self, command: str, **properties: Any) -> None:
        """Say what the plugin shall ask."""
        self._number += 1
        order = {"number": self._number, "command": {"command": command, **properties}}
        self._order.write_text(json.dumps(order))

    def cue(self, command: str, **properties: Any) -> None:
        """Let the plugin ask."""
        self.order(command, **properties)
        options = {"max_retry": 5 + self._number}
        while True:
            with contextlib.suppress(CircusdError):  # it is busy
                with contextlib.suppress(
                    NotRunningError
                ):  # the plugin was quicker, and asked to quit
                    self.ask("set", name="idle", options=options, waiting=True)
                return

    def heard(self, command: str, **properties: Any) -> dict[str, Any]:
        """What the plugin is answered."""
        self.cue(command, **properties)
        start = f"plugin:asks: heard {self._number} "
        reply: dict[str, Any] = json.loads(self.command.wait_for(start).partition(start)[2])
        return reply

    def end(self) -> str:
        """Stop it; returns what was printed."""
        self.command.interrupt()
        assert self.command.end() == 0
        return self.command.output


@contextlib.contextmanager
def asking(
    directory: Path,
    use: str,
    isolate: bool = False,
    other: Mapping[str, Any] = MappingProxyType({}),
    uid: str = "",
    endpoint: str = "",
) -> Iterator[Up]:
    endpoints = free_endpoints(2)
    if endpoint:
        endpoints[0] = f"{endpoint}\nendpoint_owner = {uid}"
    (directory / "askers.py").write_text(ASKERS)
    options = {"uid": uid} if uid else {}
    order = directory / "order"
    asks = plugin("asks", f"askers.{use}", isolate=int(isolate), order=order, **options)
    path = write_ini(directory, *endpoints, IDLE, asks, plugin("other", **other))
    with Running(directory, "up", path, env=QUIET) as running:
        running.wait_for_all("asks: init", "other: init", "idle started")
        with ControlClient(endpoint or endpoints[0]) as client:
            yield Up(running, client, order)
    for line in running.lines:
        assert not ("asks" in line and "it is at" in line), running.output  # waited for in vain


@pytest.mark.parametrize(
    ("use", "isolate", "waiting"),
    [
        ("Asks", False, False),
        ("Asks", False, True),
        ("Asks", True, True),
        ("Awaits", False, True),
        ("Awaits", True, False),
        ("FromThread", False, False),
    ],
)
def test_a_plugin_restarts_all_and_itself_and_quits(
    tmp_path: Path, use: str, isolate: bool, waiting: bool
) -> None:
    """It does not wait for its own end."""
    with asking(tmp_path, use, isolate) as up:
        before = up.ask("list", name="idle")["pids"]
        assert up.heard("restart", name="*", waiting=waiting)["status"] == "ok"
        up.command.wait_for("asks: init", 2)
        up.command.wait_for("other: init", 2)
        up.command.wait_for("idle stopped")
        up.command.wait_for("idle started", 2)
        assert up.ask("list", name="idle")["pids"] != before
        assert up.heard("restart", name="plugin:ASKS", waiting=True)["status"] == "ok"
        up.command.wait_for("asks: init", 3)
        assert up.heard("quit", waiting=waiting)["status"] == "ok"
        assert up.command.end() == 0
    output = up.command.output
    assert output.count("plugin:asks: stop") == 3
    assert output.count("plugin:other: init") == 2


@pytest.mark.parametrize("isolate", [False, True])
def test_a_plugin_asks_about_plugins(tmp_path: Path, isolate: bool) -> None:
    with asking(tmp_path, "Asks", isolate) as up:
        assert up.heard("list")["watchers"] == ["idle", "plugin:asks", "plugin:other"]
        restarted = up.heard("restart", name="plugin:other", waiting=True)
        assert restarted["status"] == "ok"
        assert up.ask("status", name="plugin:other")["status"] == "active"
        up.command.wait_for("plugin:other: init", 2)
        path = tmp_path / "circus.ini"
        path.write_text(path.read_text() + plugin("third"))
        assert up.heard("reloadconfig", waiting=True)["status"] == "ok"
        assert up.ask("list", name="plugin:third")["pids"]
        assert up.end().count("plugin:other: init") == 2


@pytest.mark.parametrize("isolate", [False, True])
def test_casts_reach_plugins_too(tmp_path: Path, isolate: bool) -> None:
    with asking(tmp_path, "Casts", isolate) as up:
        up.cue("restart", name="plugin:*")
        up.command.wait_for("asks: init", 2)
        up.command.wait_for("other: init", 2)
        assert "idle stopped" not in up.end()[: up.command.output.index("all plugins are")]


@pytest.mark.parametrize(
    ("command", "isolate", "properties"),
    [
        ("list", False, {}),
        ("list", True, {}),
        ("quit", True, {"waiting": True}),
        ("restart", False, {"name": "*", "waiting": True}),
    ],
)
def test_a_plugin_that_stops_is_answered(
    tmp_path: Path, isolate: bool, command: str, properties: dict[str, Any]
) -> None:
    with asking(tmp_path, "Last", isolate) as up:
        up.order(command, **properties)
        up.command.interrupt()
        assert up.command.end() == 0
    assert '"status": "ok"' in up.command.wait_for("plugin:asks: heard")


def test_a_plugin_is_stopped_while_it_waits_for_another(tmp_path: Path) -> None:
    until = tmp_path / "until"
    os.mkfifo(until)
    blocks = {"use": "askers.Blocks", "host_graceful_timeout": PATIENCE, "until": until}
    stop = {"command": "stop", "name": "plugin:other", "waiting": True}
    with asking(tmp_path, "AsksLater", other=blocks) as up:
        up.cue(**stop)
        up.command.wait_for("plugin:other: blocks")
        up.cue(**stop)
        wait_while(lambda: up.ask("status", name="plugin:other")["status"] != "stopping")
        up.command.interrupt()
        up.command.wait_for("handle_recv failed: CallError: stop name='plugin:other'")
        until.open("w").close()  # which lets the other one go on
        assert up.command.end() == 0
    assert "plugin:asks: stop" in up.command.output


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start it as somebody else")
@pytest.mark.parametrize("kind", ["tcp", "ipc"])
def test_a_plugin_of_another_user_reaches_circusd_and_plugins(kind: str) -> None:
    # Not pytest's own, which the next run of pytest closes to others.
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        endpoint = f"ipc://{directory}/door" if kind == "ipc" else ""
        with asking(Path(directory), "Asks", True, uid="nobody", endpoint=endpoint) as up:
            assert up.heard("list")["watchers"] == ["idle", "plugin:asks", "plugin:other"]
            assert up.heard("numprocesses", name="idle")["numprocesses"] == 1
            up.end()
