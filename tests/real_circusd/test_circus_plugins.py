# Circus's own plugins under our host, doing their job against a real circusd: nothing of
# theirs is changed. What they do is seen where it arrives: in circusd's events, on a socket.

from __future__ import annotations

import os
import re
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from circusd_real import RealCircusd
from patience import PATIENCE
from wire import Wire

from circusplug import Arbiter, CircusPlugin

#: Absolute, since CommandReloader looks at the files of all watchers' commands.
SLEEP = {"cmd": "/bin/sleep", "args": "1000"}


@pytest.fixture(scope="module")
def circusd() -> Iterator[RealCircusd]:
    with RealCircusd({"quiet": SLEEP}, check_delay=0.1) as circusd:
        yield circusd
        circusd.terminate()


@pytest.fixture
def wire(circusd: RealCircusd) -> Iterator[Wire]:
    with Wire(circusd) as wire:
        wire.call("add", name="sentinel", cmd="true", waiting=True)
        wire.subscribe_with("sentinel")
        wire.call("rm", name="sentinel", waiting=True)
        yield wire


@pytest.fixture(params=["thread", "process"])
def isolate(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "process")


@contextmanager
def watcher(wire: Wire, name: str, cmd: str, args: str = "", **options: Any) -> Iterator[None]:
    """A watcher of circusd's for the block; started, and its events not read yet."""
    reply = wire.call(
        "add",
        name=name,
        cmd=cmd,
        args=args,
        start=True,
        waiting=True,
        options={"graceful_timeout": 0.2, **options},
    )
    assert reply["status"] == "ok", reply
    try:
        yield
    finally:  # else the next test of the same circusd fails as well
        wire.call("rm", name=name, waiting=True)


@contextmanager
def hosted(circusd: RealCircusd, use: Any, isolate: bool, **options: Any) -> Iterator[Arbiter]:
    """One plugin under our host, which receives when the block begins."""
    plugin = {"use": use, "name": "it", "isolate": isolate, "host.restart": "never", **options}
    with Arbiter([plugin], circusd.endpoint, circusd.pubsub_endpoint) as arbiter:
        arbiter.wait(lambda statuses: statuses["it"].state == "running", PATIENCE)
        for _ in range(1000):  # a real circusd does not tell when a subscription has arrived
            circusd.call("set", name="quiet", options={"max_retry": 5})
            with suppress(TimeoutError):
                arbiter.wait(lambda statuses: statuses["it"].counters.received > 0, 0.05)
                break
        yield arbiter


def wait_actions(wire: Wire, name: str, *actions: str) -> list[dict[str, Any]]:
    """Wait until these actions have come from a watcher, in this order, others between them."""
    payloads = []
    for action in actions:
        while True:
            topic, payload = wire.event()
            if topic == f"watcher.{name}.{action}":
                payloads.append(payload)
                break
    return payloads


def test_flapping_stops_a_watcher_that_dies_every_50_ms_and_starts_it_again(
    circusd: RealCircusd, wire: Wire, isolate: bool
) -> None:
    # Its casts come while circusd sees to the dead process, and is too busy for them.
    options = {"attempts": "2", "window": "5", "retry_in": "0.1", "max_retry": "-1"}
    dies = ["-c", "import time; time.sleep(0.05)"]
    with (
        hosted(circusd, "circus.plugins.flapping.Flapping", isolate, **options) as arbiter,
        watcher(wire, "flaps", shlex.quote(sys.executable), dies),  # type: ignore[arg-type]
    ):
        wait_actions(wire, "flaps", "stop", "start", "stop")
        assert arbiter.plugins["it"].counters.casts_failed == 0


def test_a_stop_that_is_cast_once_from_a_reap_handler_takes_effect(
    circusd: RealCircusd, wire: Wire
) -> None:
    class StopsIt(CircusPlugin):
        def handle_init(self) -> None:
            self.stopped: set[str] = set()

        def handle_recv(self, data: tuple[bytes, bytes]) -> None:
            event = self.parse_event(data)
            if event.action == "reap" and event.watcher not in self.stopped:
                self.stopped.add(event.watcher)
                self.cast("stop", name=event.watcher)

    with hosted(circusd, StopsIt, isolate=False) as arbiter:
        for number in range(5):
            with watcher(wire, f"dies{number}", "/bin/false"):
                wait_actions(wire, f"dies{number}", "stop")
        assert arbiter.plugins["it"].counters.casts_failed == 0


def test_watchdog_kills_a_process_that_is_silent_and_spares_one_that_is_not(
    circusd: RealCircusd, wire: Wire
) -> None:
    # A silence of 4 s, not of one round: a process that wants to beat may have to wait for a CPU.
    # Both ways to host it at once, as it takes so long.
    beat = (
        "import os, socket, sys, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "while True: s.sendto(b'%d;0' % os.getpid(), ('127.0.0.1', int(sys.argv[1]))); "
        "time.sleep(0.05)"
    )
    ways = {"thread": False, "process": True}
    with ExitStack() as stack:
        for way, isolate in ways.items():
            udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            udp.bind(("127.0.0.1", 0))
            udp.settimeout(PATIENCE)
            port = str(udp.getsockname()[1])
            options = {
                "loop_rate": "0.5",
                "max_count": "8",
                "watchers_regex": f"^(silent|beats)_{way}$",
                "port": port,
            }
            command = {"cmd": shlex.quote(sys.executable), "args": ["-c", beat, port]}
            stack.enter_context(watcher(wire, f"beats_{way}", **command))  # type: ignore[arg-type]
            udp.recv(1024)
            udp.close()  # the port is the plugin's
            stack.enter_context(watcher(wire, f"silent_{way}", **SLEEP))
            use = "circus.plugins.watchdog.WatchDog"
            stack.enter_context(hosted(circusd, use, isolate, **options))
        lives: dict[str, list[tuple[str, int]]] = {
            f"{name}_{way}": [] for way in ways for name in ("beats", "silent")
        }
        while any(len(lives[f"silent_{way}"]) < 3 for way in ways):
            topic, payload = wire.event()
            _, name, action = topic.split(".")
            if name in lives and action in ("spawn", "kill"):
                lives[name].append((action, payload["process_pid"]))
        for way in ways:
            spawned, killed, respawned = lives[f"silent_{way}"][:3]
            assert killed == ("kill", spawned[1]), way
            assert respawned[0] == spawned[0] == "spawn", way
            assert respawned[1] != spawned[1], way
            # It goes by the watchers' names, so this one's turn came before.
            assert [action for action, _ in lives[f"beats_{way}"]] == ["spawn"], way


def test_resource_watcher_restarts_a_memory_hog(
    circusd: RealCircusd, wire: Wire, isolate: bool, udp: socket.socket
) -> None:
    hog = "hog = b'x' * 100_000_000; import time; time.sleep(1000)"
    options = {
        "watcher": "hog",
        "loop_rate": "0.1",
        "max_mem": "80M",
        "max_cpu": "1000000",
        "health_threshold": "1000000",
        "max_count": "1",
        "host": "127.0.0.1",
        "port": str(udp.getsockname()[1]),
    }
    with (
        watcher(wire, "hog", shlex.quote(sys.executable), ["-c", hog]),  # type: ignore[arg-type]
        hosted(circusd, "circus.plugins.resource_watcher.ResourceWatcher", isolate, **options),
    ):
        (first,) = wait_actions(wire, "hog", "spawn")
        reaped, second = wait_actions(wire, "hog", "reap", "spawn")
        assert reaped["process_pid"] == first["process_pid"] != second["process_pid"]
        assert b"_resource_watcher.hog.over_memory:1|c" in udp.recv(1024)


def test_command_reloader_restarts_a_watcher_whose_command_has_changed(
    circusd: RealCircusd, wire: Wire, isolate: bool, tmp_path: Path
) -> None:
    command = tmp_path / "command"
    command.write_text("#!/bin/sh\nexec sleep 1000\n")
    command.chmod(0o755)
    with (
        watcher(wire, "changes", str(command)),
        hosted(circusd, "circus.plugins.command_reloader.CommandReloader", isolate) as arbiter,
    ):
        (first,) = wait_actions(wire, "changes", "spawn")
        # A round is three calls: `list` and a `get` for each of the two watchers, by name: before
        # the one for "quiet" it has looked at the file of "changes".
        arbiter.wait(lambda statuses: statuses["it"].counters.calls >= 3, PATIENCE)
        os.utime(command, (1, 1))
        reaped, second = wait_actions(wire, "changes", "reap", "spawn")
        assert reaped["process_pid"] == first["process_pid"] != second["process_pid"]


def test_full_stats_sends_gauges(
    circusd: RealCircusd, wire: Wire, isolate: bool, udp: socket.socket
) -> None:
    options = {
        "application_name": "shop",
        "loop_rate": "0.1",
        "host": "127.0.0.1",
        "port": str(udp.getsockname()[1]),
    }
    with hosted(circusd, "circus.plugins.statsd.FullStats", isolate, **options):
        texts = "\n".join(_until(udp, b"quiet.mem_sum"))
    assert "circus.shop.watcher._stats.quiet.watchers_num:1|g" in texts
    assert re.search(r"_stats\.quiet\.cpu_max:[\d.]+\|g", texts)
    assert re.search(r"_stats\.quiet\.mem_sum:\d\d\d+", texts)


def test_statsd_emitter_counts_each_event(
    circusd: RealCircusd, wire: Wire, isolate: bool, udp: socket.socket
) -> None:
    options = {"host": "127.0.0.1", "port": str(udp.getsockname()[1])}
    with hosted(circusd, "circus.plugins.statsd.StatsdEmitter", isolate, **options):
        with watcher(wire, "My App.v1", **SLEEP):
            pass
        texts = _until(udp, b"my_app.v1.remove")
    prefix = "circus.app.watcher.my_app.v1."
    counted = [text.removeprefix(prefix) for text in texts if text.startswith(prefix)]
    assert counted == ["add:1|c", "spawn:1|c", "start:1|c", "remove:1|c"]


def _until(udp: socket.socket, mark: bytes) -> list[str]:
    """Return the datagrams up to the one that holds *mark*."""
    texts = []
    while True:
        text = udp.recv(1024)
        texts.append(text.decode())
        if mark in text:
            return texts
