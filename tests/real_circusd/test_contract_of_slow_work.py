# What circusd says and does while a process takes its time to stop: the same facts asked of a
# FakeCircusd and of a real circusd.

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from contract import SENTINEL, actions, content
from patience import PATIENCE
from wire import Circusd, Wire

from circusplug.testing import FakeCircusd

_STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open({ready!r}, "w").close()
while not os.path.exists({go!r}):
    time.sleep(0.05)
os._exit(7)
"""


class Stubborn:
    """The watcher "slow", whose one process goes on after SIGTERM until it is let go."""

    def __init__(self, circusd: Circusd, wire: Wire, directory: Path) -> None:
        self._circusd, self._wire, self._go = circusd, wire, directory / "go"
        ready = directory / "ready"
        script = _STUBBORN.format(ready=str(ready), go=str(self._go))
        if isinstance(circusd, FakeCircusd):
            ready.touch()
        command = {"cmd": sys.executable, "args": ["-ISc", script], "start": True}
        options = {"graceful_timeout": PATIENCE}
        self.ask("add", name="slow", **command, options=options, waiting=True)
        if isinstance(circusd, FakeCircusd):
            circusd.run_script("slow has 1 process\nslow takes 1 h to stop")
        wire.poll_until(ready.exists)
        wire.events_until(SENTINEL)

    def ask(self, name: str, /, **properties: Any) -> dict[str, Any]:
        """Call circusd, and return the rest of a good reply."""
        return content(self._wire.call(name, **properties))

    def let_go(self) -> None:
        """Let it exit with 7."""
        if isinstance(self._circusd, FakeCircusd):
            self._circusd.run_script("slow takes 0 s to stop")
            self._circusd.exit_process("slow", 7)
        else:
            self._go.touch()


@pytest.fixture
def slow(circusd: Circusd, wire: Wire, tmp_path: Path) -> Iterator[Stubborn]:
    slow = Stubborn(circusd, wire, tmp_path)
    yield slow
    slow.let_go()
    slow.ask("rm", name="slow", waiting=True)


@pytest.mark.parametrize("order", ["stop", "restart", "reload", "decr"])
def test_others_meet_a_conflict_while_a_process_takes_its_time_to_stop(
    wire: Wire, slow: Stubborn, order: str
) -> None:
    options = {"graceful": False} if order == "reload" else {}
    assert slow.ask(order, name="slow", **options) == {}
    for command, properties in (
        ("start", {"name": "My App.v1"}),
        ("stop", {"name": "My*", "waiting": True}),
        ("stop", {}),
        ("restart", {"name": "My App.v1"}),
        ("reload", {}),
        ("incr", {"name": "My App.v1"}),
        ("set", {"name": SENTINEL, "options": {"max_retry": 3}}),
        ("add", {"name": "other", "cmd": "true"}),
        ("rm", {"name": "My App.v1"}),
        ("reloadconfig", {}),
        ("quit", {}),
        ("restart", {}),
    ):
        wire.send(json.dumps({"id": 2, "command": command, "properties": properties}).encode())
        reply = wire.receive()
        assert (reply["errno"], reply["reason"]) == (
            5,
            f"arbiter is already running watcher_{order} command",
        )
    assert wire.call("start", name="absent")["errno"] == 3


def test_a_watcher_that_is_being_stopped_is_there_until_it_is_done(
    wire: Wire, slow: Stubborn
) -> None:
    (pid,) = slow.ask("list", name="slow")["pids"]
    assert slow.ask("stop", name="slow") == {}
    assert wire.call("status", name="slow")["status"] == "stopping"
    assert slow.ask("status")["statuses"] == {
        "My App.v1": "active",
        "Single": "stopped",
        SENTINEL: "stopped",
        "slow": "stopping",
    }
    assert slow.ask("list", name="slow")["pids"] == [pid]
    assert slow.ask("numprocesses", name="slow")["numprocesses"] == 1
    assert slow.ask("stats", name="slow")["info"][str(pid)]["pid"] == pid
    assert slow.ask("options", name="slow")["options"]["numprocesses"] == 1
    assert slow.ask("kill", name="slow", waiting=True) == {}  # it is being killed already
    assert wire.event()[0] == "watcher.slow.kill"
    slow.let_go()
    topic, reap = wire.event()
    assert (topic, reap["process_pid"], reap["exit_code"]) == ("watcher.slow.reap", pid, 7)
    assert wire.event()[0] == "watcher.slow.stop"
    assert wire.call("status", name="slow")["status"] == "stopped"


def test_who_waits_is_answered_when_a_slow_restart_is_done(wire: Wire, slow: Stubborn) -> None:
    (pid,) = slow.ask("list", name="slow")["pids"]
    while True:
        call_id = wire.request("restart", name="slow", waiting=True)
        wire.request("status", name="slow")
        if (first := wire.receive())["status"] != "error":
            break
        wire.receive()
    assert first["status"] == "stopping"
    slow.let_go()
    reply = wire.receive()
    assert reply["id"] == call_id
    assert content(reply)["info"]["stopped"] == [pid]


def test_a_process_that_does_not_stop_is_killed(wire: Wire, slow: Stubborn) -> None:
    slow.ask("set", name="slow", options={"graceful_timeout": 0.1}, waiting=True)
    wire.events_until(SENTINEL)
    assert slow.ask("stop", name="slow", waiting=True) == {"info": None}
    events = wire.events_until(SENTINEL)
    assert actions(events, "slow") == ["kill", "kill", "reap", "stop"]
    assert events[2][1]["exit_code"] == -signal.SIGKILL


def test_the_dead_of_others_are_seen_when_a_slow_stop_is_done(
    wire: Wire, job: str, slow: Stubborn
) -> None:
    slow.ask("stop", name="slow")
    dead, other = slow.ask("list", name=job)["pids"]
    assert slow.ask("kill", name=job, pid=dead, signum="KILL", waiting=True) == {}
    assert slow.ask("list", name=job)["pids"] == [other]
    assert slow.ask("numprocesses", name=job)["numprocesses"] == 2
    info = slow.ask("stats", name=job)["info"]
    assert info[str(dead)] == "No such process (stopped?)"
    slow.let_go()
    seen = [wire.event()[0] for _ in range(4)]
    assert seen == [
        *("watcher.slow.kill", "watcher.the_job.kill", "watcher.slow.reap", "watcher.slow.stop")
    ]
    while wire.event()[0] != "watcher.the_job.spawn":  # a real circusd may miss the reap
        pass


def test_a_watcher_starts_one_process_after_the_other(wire: Wire) -> None:
    options = {"numprocesses": 2, "warmup_delay": 0.3}
    wire.call("add", name="warm", cmd="sleep 1000", options=options, waiting=True)
    wire.events_until(SENTINEL)
    while wire.call("start", name="warm")["status"] != "ok":
        pass
    assert wire.event()[0] == "watcher.warm.spawn"
    wire.send(b'{"id": 1, "command": "status", "properties": {"name": "warm"}}')
    wire.send(b'{"id": 2, "command": "incr", "properties": {"name": "warm"}}')
    replies = [wire.receive(), wire.receive()]
    assert [wire.event()[0] for _ in range(2)] == ["watcher.warm.spawn", "watcher.warm.start"]
    wire.call("rm", name="warm", waiting=True)
    wire.events_until(SENTINEL)
    if replies[1]["status"] == "error":  # it was asked in time
        assert replies[0]["status"] == "starting"
        assert replies[1]["reason"] == "arbiter is already running watcher_start command"
