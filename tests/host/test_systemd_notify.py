# What is told to systemd and when, with a clock of the test's own and a socket in place of
# systemd's. tests/cli/test_systemd.py has the same through the command.

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import PATIENCE

from circusplug import Arbiter, HostConfig
from circusplug._host.own_process import OwnProcess
from circusplug._host.systemd_notify import SystemdNotify


class Clock:
    """Goes forward when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.setblocking(False)
        there.bind(str(tmp_path / "notify"))
        yield there


def told(systemd: socket.socket) -> list[str]:
    """All that has been told and not been read yet."""
    found = []
    while True:
        try:
            found.append(systemd.recv(4096).decode())
        except BlockingIOError:
            return found


def fill(systemd: socket.socket) -> None:
    """Send to it until there is no room."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filling,
        contextlib.suppress(BlockingIOError),
    ):
        filling.setblocking(False)
        while True:
            filling.sendto(b"x", systemd.getsockname())


def notify(systemd: socket.socket, clock: Clock, watchdog: float = 0.0) -> SystemdNotify:
    return SystemdNotify(systemd.getsockname(), watchdog, clock)


def test_the_status_is_told_when_it_differs_and_at_most_a_few_times_a_second(
    systemd: socket.socket, clock: Clock
) -> None:
    host = notify(systemd, clock)
    assert host.next_timer() is None
    host.changed()
    host.run_timers(lambda: ["running", "starting", "running"])
    assert told(systemd) == ["STATUS=3 plugins: 2 running, 1 starting"]
    for _ in range(100):
        host.changed()
        host.run_timers(lambda: pytest.fail("it is too soon to look"))
    assert told(systemd) == []
    due = host.next_timer()
    assert due is not None
    assert clock.now + 0.2 <= due <= clock.now + 1.0
    clock.now = due
    host.run_timers(lambda: ["running"])
    assert told(systemd) == ["STATUS=1 plugin: 1 running"]
    clock.now += 1
    host.changed()
    host.run_timers(lambda: ["running"])
    assert told(systemd) == []
    assert host.next_timer() is None


def test_the_watchdog_is_fed_while_no_plugin_stalls(systemd: socket.socket, clock: Clock) -> None:
    host = notify(systemd, clock, 5.0)
    for _ in range(3):
        host.run_timers(lambda: ["running"])
        assert "WATCHDOG=1" in told(systemd)[-1].splitlines()
        assert host.next_timer() == clock.now + 5.0
        clock.now += 5.0
    stalled = clock.now
    while clock.now < stalled + 20:
        host.run_timers(lambda: ["running", "stalled"])
        due = host.next_timer()
        assert due is not None
        assert clock.now < due <= clock.now + 0.5
        clock.now = due
    assert "WATCHDOG" not in "".join(told(systemd))
    host.run_timers(lambda: ["running", "running"])
    assert "WATCHDOG=1" in told(systemd)[-1].splitlines()


def test_the_watchdog_does_not_bring_the_status_sooner(
    systemd: socket.socket, clock: Clock
) -> None:
    host = notify(systemd, clock, 0.01)
    host.run_timers(lambda: ["starting"])
    assert told(systemd) == ["STATUS=1 plugin: 1 starting\nWATCHDOG=1"]
    clock.now += 0.01
    host.changed()
    host.run_timers(lambda: ["running"])
    assert told(systemd) == ["WATCHDOG=1"]


def test_a_full_socket_is_tried_again_and_gets_the_newest(
    systemd: socket.socket, clock: Clock
) -> None:
    fill(systemd)
    host = notify(systemd, clock)
    host.ready()
    with host.reloading():
        host.changed()
        host.run_timers(lambda: ["running"])
    told(systemd)
    due = host.next_timer()
    assert due is not None
    clock.now = due
    host.run_timers(lambda: ["running"])
    assert told(systemd) == ["READY=1\nSTATUS=1 plugin: 1 running"]
    assert host.next_timer() is None


def test_a_reload_on_the_way_up_does_not_make_it_ready(
    systemd: socket.socket, clock: Clock
) -> None:
    host = notify(systemd, clock)
    with host.reloading():
        pass
    assert told(systemd) == []
    host.ready()
    with host.reloading():
        assert told(systemd) == ["READY=1", "RELOADING=1\nMONOTONIC_USEC=1000000000"]
    assert told(systemd) == ["READY=1"]


def test_after_the_stop_nothing_is_told(systemd: socket.socket, clock: Clock) -> None:
    host = notify(systemd, clock, 1.0)
    host.ready()
    with host.reloading():
        host.stopping()
    host.changed()
    host.run_timers(lambda: ["running"])
    assert told(systemd)[2:] == ["STOPPING=1\nSTATUS=stopping"]


def test_a_socket_that_is_gone_is_no_matter(systemd: socket.socket, clock: Clock) -> None:
    host = notify(systemd, clock)
    os.unlink(systemd.getsockname())
    host.ready()
    host.stopping()
    assert host.next_timer() is None


def test_an_abstract_socket_and_one_with_any_name_are_reached(tmp_path: Path) -> None:
    for address in (f"@{tmp_path.name}-{os.getpid()}", str(tmp_path / "caf\u00e9")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
            there.setblocking(False)
            there.bind(address.replace("@", "\0"))
            SystemdNotify.take({"NOTIFY_SOCKET": address}).ready()
            assert told(there) == ["READY=1"]


def test_what_is_sent_waits_for_nobody_and_leaves_nothing_open(
    systemd: socket.socket, clock: Clock
) -> None:
    host = notify(systemd, clock)
    before = os.listdir("/proc/self/fd")
    host.ready()
    fill(systemd)
    host.stopping()
    assert os.listdir("/proc/self/fd") == before


def test_a_host_tells_its_start_its_reloads_and_its_stop(systemd: socket.socket) -> None:
    config = HostConfig((), "ipc:///nonexistent/c", "ipc:///nonexistent/e")
    process = OwnProcess(SystemdNotify(systemd.getsockname()))
    with Arbiter.from_config(config, reload=lambda: config, process=process) as arbiter:
        systemd.settimeout(PATIENCE)
        while "READY=1" not in systemd.recv(4096).decode().splitlines():
            pass
        systemd.setblocking(False)
        arbiter.reload()
        words = "\n".join(told(systemd)).splitlines()
        assert words[0] == "RELOADING=1"
        assert "READY=1" in words
    assert told(systemd)[-1] == "STOPPING=1\nSTATUS=stopping"


def test_no_plugins_at_all_are_a_status_too(systemd: socket.socket, clock: Clock) -> None:
    host = notify(systemd, clock)
    host.changed()
    host.run_timers(list)
    assert told(systemd) == ["STATUS=no plugins"]


def test_without_systemd_nothing_is_due() -> None:
    host = SystemdNotify.take({"WATCHDOG_USEC": "1000"})
    host.changed()
    host.ready()
    assert host.next_timer() is None


@pytest.mark.parametrize(
    ("interval", "pid", "due"),
    [
        ("3000000", None, True),
        ("3000000", "ours", True),
        ("3000000", "1", False),
        ("3000000", "", True),
        ("0", None, False),
        ("soon", None, False),
        ("²", None, False),
        (None, None, False),
    ],
)
def test_the_watchdog_is_for_the_process_that_systemd_means(
    interval: str | None, pid: str | None, due: bool
) -> None:
    pid = str(os.getpid()) if pid == "ours" else pid
    given = {"NOTIFY_SOCKET": "/run/nobody", "WATCHDOG_USEC": interval, "WATCHDOG_PID": pid}
    environ = {key: value for key, value in given.items() if value is not None}
    host = SystemdNotify.take(environ)
    assert environ == {}
    assert (host.next_timer() is not None) == due
    assert host._watchdog == (1.5 if due else 0.0)  # twice in the interval


def test_a_socket_of_another_kind_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    assert SystemdNotify.take({"NOTIFY_SOCKET": "vsock:2:1"}).next_timer() is None
    assert "'vsock:2:1' is no path" in caplog.text
