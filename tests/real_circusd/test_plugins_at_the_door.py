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
from patience import wait_while

from circusplug._control.client import ControlClient, NotRunningError
from circusplug._errors import CircusdError

QUIET = environment(PYTHONWARNINGS="")
IDLE = "[watcher:idle]\ncmd = sleep 120\n"

#: Plugins that send what they are told to when the watcher's options change: a handler, one that is
#: awaited, and a thread of the plugin's own, which its `handle_stop` waits for.
ASKERS = """\
import json
import threading

from tellers import Teller


class Asks(Teller):
    def handle_init(self):
        super().handle_init()
        self.command = self.config["command"]
        self.properties = json.loads(self.config.get("properties", "{}"))

    def handle_recv(self, data):
        if self.split_data(data)[1] == "updated":
            self.say(f"heard {json.dumps(self.call(self.command, **self.properties))}")


class Awaits(Asks):
    async def handle_recv(self, data):
        if self.split_data(data)[1] == "updated":
            reply = await self.call_async(self.command, **self.properties)
            self.say(f"heard {json.dumps(reply)}")


class FromThread(Asks):
    def handle_init(self):
        super().handle_init()
        self.due = threading.Event()
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self):
        self.due.wait()
        super().handle_recv((b"watcher.idle.updated", b"{}"))

    def handle_recv(self, data):
        if self.split_data(data)[1] == "updated":
            self.due.set()

    def handle_stop(self):
        self.due.set()
        self.thread.join()
        super().handle_stop()


class Casts(Asks):
    def handle_recv(self, data):
        if self.split_data(data)[1] == "updated":
            self.cast(self.command, **self.properties)


class Blocks(Teller):
    def handle_recv(self, data):
        if self.split_data(data)[1] == "updated":
            self.say("blocks")
            threading.Event().wait()


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
        self.say(f"heard {json.dumps(self.call(self.command, **self.properties))}")
"""


class Up:
    """`circusplug up` with a plugin that asks, another one, and a watcher."""

    def __init__(self, command: Running, client: ControlClient) -> None:
        self.command = command
        self.ask = client.ask
        self._hint = 0

    def cue(self) -> None:
        """Let the plugin ask."""
        self._hint += 1
        options = {"max_retry": 5 + self._hint}
        while True:
            with contextlib.suppress(CircusdError):  # it is busy
                with contextlib.suppress(
                    NotRunningError
                ):  # the plugin was quicker, and asked to quit
                    self.ask("set", name="idle", options=options, waiting=True)
                return

    def heard(self) -> dict[str, Any]:
        """What the plugin was answered."""
        self.cue()
        reply: dict[str, Any] = json.loads(
            self.command.wait_for("plugin:asks: heard ").partition(" heard ")[2]
        )
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
    command: str,
    isolate: bool = False,
    other: Mapping[str, Any] = MappingProxyType({}),
    uid: str = "",
    endpoint: str = "",
    **properties: Any,
) -> Iterator[Up]:
    endpoints = free_endpoints(2)
    if endpoint:
        endpoints[0] = f"{endpoint}\nendpoint_owner = {uid}"
    (directory / "askers.py").write_text(ASKERS)
    options = {"command": command, "properties": json.dumps(properties)}
    if uid:
        options["uid"] = uid
    asks = plugin("asks", f"askers.{use}", isolate=int(isolate), **options)
    path = write_ini(directory, *endpoints, IDLE, asks, plugin("other", **other))
    with Running(directory, "up", path, env=QUIET) as running:
        running.wait_for_all("asks: init", "other: init", "idle started")
        with ControlClient(endpoint or endpoints[0]) as client:
            yield Up(running, client)
    for line in running.lines:
        assert not ("asks" in line and "it is at" in line), running.output  # waited for in vain


KINDS = pytest.mark.parametrize(
    ("use", "isolate"),
    [("Asks", False), ("Asks", True), ("Awaits", False), ("FromThread", False), ("Awaits", True)],
)


@KINDS
@pytest.mark.parametrize("waiting", [False, True])
def test_a_pattern_restarts_watchers_and_plugins(
    tmp_path: Path, use: str, isolate: bool, waiting: bool
) -> None:
    with asking(tmp_path, use, "restart", isolate, name="*", waiting=waiting) as up:
        before = up.ask("list", name="idle")["pids"]
        assert up.heard()["status"] == "ok"
        up.command.wait_for("asks: init", 2)
        up.command.wait_for("other: init", 2)
        up.command.wait_for("idle stopped")
        up.command.wait_for("idle started", 2)
        assert up.ask("list", name="idle")["pids"] != before
        output = up.end()
    assert output.count("plugin:other: init") == 2


@KINDS
def test_a_plugin_that_restarts_itself_does_not_wait_for_its_own_end(
    tmp_path: Path, use: str, isolate: bool
) -> None:
    with asking(tmp_path, use, "restart", isolate, name="plugin:ASKS", waiting=True) as up:
        assert up.heard()["status"] == "ok"
        up.command.wait_for("asks: init", 2)
        output = up.end()
    assert output.count("plugin:other: init") == 1
    assert output.count("plugin:asks: stop") == 2


@pytest.mark.parametrize("isolate", [False, True])
def test_a_plugin_waits_for_the_restart_of_another(tmp_path: Path, isolate: bool) -> None:
    with asking(tmp_path, "Asks", "restart", isolate, name="plugin:other", waiting=True) as up:
        assert up.heard()["status"] == "ok"
        assert up.ask("status", name="plugin:other")["status"] == "active"
        assert up.end().count("plugin:other: init") == 2


@KINDS
@pytest.mark.parametrize("waiting", [False, True])
def test_a_plugin_can_quit(tmp_path: Path, use: str, isolate: bool, waiting: bool) -> None:
    with asking(tmp_path, use, "quit", isolate, waiting=waiting) as up:
        assert up.heard()["status"] == "ok"
        assert up.command.end() == 0
    assert up.command.output.count("plugin:asks: stop") == 1


@pytest.mark.parametrize("isolate", [False, True])
def test_casts_reach_plugins_too(tmp_path: Path, isolate: bool) -> None:
    with asking(tmp_path, "Casts", "restart", isolate, name="plugin:*") as up:
        up.cue()
        up.command.wait_for_all("asks: init", "other: init")
        up.command.wait_for("asks: init", 2)
        up.command.wait_for("other: init", 2)
        assert "idle stopped" not in up.end()[: up.command.output.index("all plugins are")]


@pytest.mark.parametrize("isolate", [False, True])
def test_plugins_find_watchers_and_plugins_together(tmp_path: Path, isolate: bool) -> None:
    with asking(tmp_path, "Asks", "list", isolate) as up:
        assert up.heard()["watchers"] == ["idle", "plugin:asks", "plugin:other"]
        up.end()


def test_a_plugin_has_the_whole_file_read_again(tmp_path: Path) -> None:
    with asking(tmp_path, "Asks", "reloadconfig", waiting=True) as up:
        path = tmp_path / "circus.ini"
        path.write_text(path.read_text() + plugin("third"))
        assert up.heard()["status"] == "ok"
        assert up.ask("list", name="plugin:third")["pids"]
        up.end()


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize(
    ("command", "properties"),
    [("list", {}), ("quit", {"waiting": True}), ("restart", {"name": "*", "waiting": True})],
)
def test_a_plugin_that_stops_is_answered(
    tmp_path: Path, isolate: bool, command: str, properties: dict[str, Any]
) -> None:
    with asking(tmp_path, "Last", command, isolate, **properties) as up:
        up.command.interrupt()
        assert up.command.end() == 0
    assert '"status": "ok"' in up.command.wait_for("plugin:asks: heard")


def test_a_plugin_is_stopped_while_it_waits_for_another(tmp_path: Path) -> None:
    blocks = {"use": "askers.Blocks", "host_graceful_timeout": 30}
    properties = {"name": "plugin:other", "waiting": True}
    with asking(tmp_path, "AsksLater", "stop", other=blocks, **properties) as up:
        up.cue()
        up.command.wait_for("plugin:other: blocks")
        up.cue()
        wait_while(lambda: up.ask("status", name="plugin:other")["status"] != "stopping")
        up.command.interrupt()
        assert up.command.end() == 0
    assert "plugin:asks: stop" in up.command.output


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start it as somebody else")
@pytest.mark.parametrize("kind", ["tcp", "ipc"])
@pytest.mark.parametrize(
    ("command", "properties", "found"),
    [
        ("list", {}, {"watchers": ["idle", "plugin:asks", "plugin:other"]}),
        ("numprocesses", {"name": "idle"}, {"numprocesses": 1}),
    ],
)
def test_a_plugin_of_another_user_reaches_circusd_and_plugins(
    kind: str, command: str, properties: dict[str, Any], found: dict[str, Any]
) -> None:
    more: dict[str, Any] = {"uid": "nobody"}
    # Not pytest's own, which the next run of pytest closes to others.
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        if kind == "ipc":
            more["endpoint"] = f"ipc://{directory}/door"
        with asking(Path(directory), "Asks", command, True, **more, **properties) as up:
            assert found.items() <= up.heard().items()
            up.end()
