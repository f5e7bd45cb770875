# A circusd that is started by a host holds its watchers back until the plugins are connected, so
# that they see them start. It takes commands meanwhile, and is held up by nobody for ever.

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from circusd_real import free_endpoints
from command import PATIENT, Fifo, Running, assert_ends, environment, holder, plugin, write_ini
from members import Journal, Member
from patience import PATIENCE

from circusplug import Arbiter
from circusplug._circusd import process
from circusplug._circusd.process import CircusdProcess
from circusplug._control.client import ControlClient

QUIET = environment(PYTHONWARNINGS="")
IDLE = "[watcher:idle]\ncmd = sleep 120\n"

#: `circusplug`, which does not wait for a plugin for long.
HASTY = [
    sys.executable,
    "-c",
    "from circusplug._cli import main; from circusplug._host import managed_plugin; "
    "managed_plugin.READY_WAIT = 0.1; main.run()",
]


def names(count: int) -> list[str]:
    return [f"w{number}" for number in range(count)]


def watchers(count: int) -> str:
    return "".join(f"[watcher:{name}]\ncmd = sleep 120\n" for name in names(count))


@pytest.mark.parametrize("count", [1, 10])
def test_plugins_under_up_see_every_watcher_start(tmp_path: Path, count: int) -> None:
    path = write_ini(
        tmp_path, *free_endpoints(2), watchers(count), plugin("one"), plugin("two", isolate=1)
    )
    with Running(tmp_path, "up", path, env=QUIET) as command:
        for name in ("one", "two"):
            command.wait_for(f"plugin:{name}: got {names(count)[-1]} start")
            for watcher in names(count):
                assert f"plugin:{name}: got {watcher} spawn" in command.output
        command.interrupt()
        assert command.end() == 0


@pytest.mark.parametrize("count", [1, 10])
def test_plugins_of_a_program_see_every_watcher_start(
    ends: dict[str, Any], journal: Journal, count: int
) -> None:
    plugin = {"use": Member, "name": "one", "journal": journal}
    watchers = [{"name": name, "cmd": "sleep 120"} for name in names(count)]
    options = {"multicast_endpoint": ""}
    with Arbiter([plugin], watchers=watchers, circusd=options, **ends):
        journal.wait("one", "start", count)
        assert journal.count("one", "spawn") == count


class Held:
    """A circusd of two watchers, which hold a FIFO, and a client of it."""

    def __init__(self, circusd: CircusdProcess, client: ControlClient, fifo: Fifo) -> None:
        self.circusd = circusd
        self.ask = client.ask
        self.fifo = fifo

    @property
    def numprocesses(self) -> dict[str, int]:
        return {name: self.ask("numprocesses", name=name)["numprocesses"] for name in ("a", "b")}


@pytest.fixture
def start(tmp_path: Path, ends: dict[str, Any], fifo: Fifo) -> Iterator[Callable[[], Held]]:
    """Starts a circusd that holds its watchers back."""
    said = [holder(fifo, name) for name in ("a", "b")]
    text = "[circus]\n" + "".join(f"{key} = {value}\n" for key, value in ends.items())
    for watcher in said:
        script = watcher["args"][1]
        text += f'[watcher:{watcher["name"]}]\ncmd = sh -c "{script}"\n'
    with contextlib.ExitStack() as stack:

        def make() -> Held:
            circusd = stack.enter_context(CircusdProcess(text, holds_back=True))
            return Held(circusd, stack.enter_context(ControlClient(ends["endpoint"])), fifo)

        yield make
    fifo.wait_unheld()


def test_commands_are_carried_out_meanwhile(start: Callable[[], Held]) -> None:
    held = start()
    assert held.ask("list")["watchers"] == ["a", "b"]
    assert held.ask("status")["statuses"] == {"a": "stopped", "b": "stopped"}
    assert held.numprocesses == {"a": 0, "b": 0}
    assert held.ask("incr", name="a", waiting=True)["numprocesses"] == 2  # no conflict
    assert held.numprocesses == {"a": 0, "b": 0}
    held.ask("start", name="b", waiting=True)
    held.fifo.wait_held(1)
    assert held.numprocesses == {"a": 0, "b": 1}
    held.circusd.let_go()
    held.fifo.wait_held(2)
    assert held.numprocesses == {"a": 2, "b": 1}


def test_who_asks_for_all_watchers_gets_them(start: Callable[[], Held]) -> None:
    held = start()
    held.ask("start", waiting=True)
    assert held.numprocesses == {"a": 1, "b": 1}


def test_circusd_waits_for_no_longer_than_it_may(
    start: Callable[[], Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "LONGEST_HOLD", 0.2)
    held = start()
    held.fifo.wait_held(2)


@pytest.mark.parametrize("how", ["quit", "SIGTERM"])
def test_it_ends_at_once_when_it_is_told_to(start: Callable[[], Held], how: str) -> None:
    held = start()
    ended: list[int | None] = []
    over = threading.Event()
    held.circusd.on_exit(lambda status: (ended.append(status), over.set()))
    if how == "quit":
        held.ask("quit")
    else:
        assert held.circusd.pid is not None
        os.kill(held.circusd.pid, signal.SIGTERM)
    assert over.wait(PATIENCE)
    assert ended == [0]


def test_a_plugin_that_does_not_get_ready_holds_nothing_up(tmp_path: Path) -> None:
    path = write_ini(tmp_path, *free_endpoints(2), IDLE, plugin("hangs", "tellers.Hangs"))
    with Running(tmp_path, "up", path, program=HASTY, env=QUIET) as command:
        command.wait_for("idle started")
        assert "to start" not in command.output  # circusd was told to go


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_host_that_ends_meanwhile_leaves_nothing(tmp_path: Path, number: int) -> None:
    hangs = plugin("hangs", "tellers.Hangs", host_graceful_timeout=0.1)
    path = write_ini(tmp_path, *free_endpoints(2), IDLE, plugin("one"), hangs)
    with Running(tmp_path, "up", path, program=PATIENT, env=QUIET) as command:
        found = command.wait_for("circusd runs, process").split()[-1]
        command.wait_for("plugin:one: init")
        command.signal(number)
        command.wait_silent()
        assert_ends(int(found))
    assert "idle started" not in command.output
