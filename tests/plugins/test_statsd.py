# Statsd and FullStats: what arrives at a daemon's socket, and what a daemon that is away costs.

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from fixture_types import Run
from patience import PATIENCE

from circusplug.plugins import FullStats, Statsd
from circusplug.plugins._statsd import figures
from circusplug.plugins._statsd_client import StatsdClient, clean
from circusplug.testing import FakeCircusd


def lines(sock: socket.socket, count: int) -> list[str]:
    """So many lines, of as few datagrams as there are."""
    found: list[str] = []
    while len(found) < count:
        found += sock.recv(65536).decode().split("\n")
    return found


def at(sock: socket.socket) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": sock.getsockname()[1]}


def test_each_event_is_a_counter_under_circus_s_name(run_plugin: Run, udp: socket.socket) -> None:
    plugin = run_plugin(Statsd, application_name="shop", **at(udp))
    plugin.publish("My App.v1", "spawn")
    plugin.publish("web", "reap")
    assert lines(udp, 2) == [
        "circus.shop.watcher.my_app.v1.spawn:1|c",
        "circus.shop.watcher.web.reap:1|c",
    ]


def test_with_tags_names_are_told_by_them(run_plugin: Run, udp: socket.socket) -> None:
    plugin = run_plugin(Statsd, tags="dogstatsd", **at(udp))
    plugin.publish("web", "reap")
    assert lines(udp, 1) == ["circus.reap:1|c|#application:app,watcher:web"]


def test_a_sample_says_what_share_it_is(
    run_plugin: Run, udp: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = iter([0.9, 0.1])
    monkeypatch.setattr("random.random", lambda: next(draws))
    plugin = run_plugin(Statsd, sample_rate="0.25", **at(udp))
    plugin.publish("left_out", "reap")
    plugin.publish("web", "reap")
    assert lines(udp, 1) == ["circus.app.watcher.web.reap:1|c|@0.25"]


@pytest.mark.parametrize("name", ["a:b", "a|b", "a@b", "a#b", "a,b", "a\nb", "a\x00b", ""])
def test_no_name_is_taken_for_statsd_s_own_signs(name: str) -> None:
    assert clean(name) == ("a_b" if name else "_")


def test_a_burst_goes_in_few_packets_that_fit(run_plugin: Run, udp: socket.socket) -> None:
    plugin = run_plugin(Statsd, **at(udp))
    plugin.circusd.publish_many(1000, "web", "spawn")
    packets, seen = [], 0
    while seen < 1000:
        packets.append(udp.recv(65536))
        seen += packets[-1].count(b"\n") + 1
    assert max(map(len, packets)) <= 1432
    assert len(packets) < 500


def test_a_unix_socket_may_come_later(run_plugin: Run) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        path = os.path.join(directory, "statsd.sock")
        plugin = run_plugin(Statsd, host=f"unix://{path}")
        plugin.publish("lost", "spawn")
        plugin.wait_handled(1)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(path)
            sock.settimeout(PATIENCE)
            plugin.publish("web", "spawn")
            while lines(sock, 1)[-1] != "circus.app.watcher.web.spawn:1|c":
                pass  # what was to be lost has come to a socket that was there in time


def test_what_waits_for_a_name_is_sent_when_that_is_known_and_is_bounded(
    udp: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    later: list[Callable[[], None]] = []
    answers: list[Any] = [OSError("no such name"), [(socket.AF_INET, 0, 0, "", udp.getsockname())]]

    def look_up(*_: Any, **__: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr("circusplug.plugins._statsd_client._LOOK_UP_AGAIN", 0.0)
    client = StatsdClient("statsd.example", 8125, "", 1.0, None, later.append)
    for number in range(200):
        client.gauge("x", number)
        client.flush()
        while (thread := client._asking) is not None:
            thread.join(PATIENCE)
        if number == 0:
            assert not later or client._address is None
            monkeypatch.setattr("circusplug.plugins._statsd_client._LOOK_UP_AGAIN", 1e9)
    monkeypatch.setattr("circusplug.plugins._statsd_client._LOOK_UP_AGAIN", 0.0)
    client.flush()
    while (thread := client._asking) is not None:
        thread.join(PATIENCE)
    later[-1]()
    assert lines(udp, 100) == [f"x:{number}|g" for number in range(100, 200)]
    client.close()


def test_a_negative_gauge_is_set_by_way_of_0(udp: socket.socket) -> None:
    client = StatsdClient(*udp.getsockname(), "", 1.0, None, lambda _: None)
    client._address = socket.AF_INET, udp.getsockname()
    client.gauge("x", -1.5)
    client.timing("t", 12.4)
    client.close()
    assert lines(udp, 3) == ["x:0|g", "x:-1.5|g", "t:12|ms"]


def test_a_daemon_that_is_slow_keeps_nobody_waiting(udp: socket.socket) -> None:
    client = StatsdClient(*udp.getsockname(), "", 1.0, None, lambda _: None)
    client._address = socket.AF_INET, udp.getsockname()
    client.gauge("x", 1)
    client.flush()
    assert client._socket is not None
    assert not os.get_blocking(client._socket.fileno())
    client.close()


def test_a_daemon_may_move_to_another_kind_of_address(udp: socket.socket) -> None:
    client = StatsdClient("unix:///nowhere/statsd", 8125, "", 1.0, None, lambda _: None)
    client.gauge("lost", 1)
    client.flush()
    client._address = socket.AF_INET, udp.getsockname()
    client.gauge("x", 1)
    client.close()
    assert lines(udp, 1) == ["x:1|g"]


def test_a_name_is_looked_up_again_after_a_minute_by_one_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, asked, threads = 0.0, 0, True

    class Thread:
        def __init__(self, **_: Any) -> None:
            pass

        def start(self) -> None:
            nonlocal asked
            asked += 1
            if not threads:
                raise RuntimeError("can't start new thread")

    monkeypatch.setattr(
        "circusplug.plugins._statsd_client.threading", SimpleNamespace(Thread=Thread)
    )
    monkeypatch.setattr(
        "circusplug.plugins._statsd_client.time", SimpleNamespace(monotonic=lambda: now)
    )
    client: Any = StatsdClient("statsd.example", 8125, "", 1.0, None, lambda _: None)

    def look_ups() -> int:
        client.gauge("x", 1)
        client.flush()
        return asked

    assert look_ups() == 1
    now = 1000.0
    assert look_ups() == 1  # the first one is still under way
    client._asking = None  # that was it
    now, threads = 1e6, False
    assert look_ups() == 2
    now = 1e6 + 59
    assert look_ups() == 2
    now = 1e6 + 60
    assert look_ups() == 3


def test_a_name_that_is_none_is_as_one_that_is_not_known() -> None:
    client = StatsdClient("x" * 70 + ".example", 8125, "", 1.0, None, lambda _: None)
    client.gauge("x", 1)
    client.flush()
    while (thread := client._asking) is not None:
        thread.join(PATIENCE)
    client.close()


def test_in_a_replay_nothing_is_sent(run_plugin: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Statsd, "replaying", True)
    running = run_plugin(Statsd)
    running.publish("web", "reap")
    running.stop()
    assert running.plugin.statsd._asked_at == float("-inf")


def test_names_of_ours_are_cleaned_and_groups_have_no_underscore_with_tags(
    run_plugin: Run, udp: socket.socket, fake_circusd: FakeCircusd
) -> None:
    plugin = run_plugin(Statsd, application_name="my:app", **at(udp))
    plugin.publish("a:b", "reap")
    assert lines(udp, 1) == ["circus.my_app.watcher.a_b.reap:1|c"]
    plugin.stop()
    fake_circusd.add_watcher("a,b|c")
    run_plugin(FullStats, name="full", loop_rate=0.01, tags="dogstatsd", **at(udp))
    assert lines(udp, 1)[0] == "circus.stats.watchers_num:1|g|#application:app,watcher:a_b_c"


def test_figures_of_all_watchers_are_gauges(
    run_plugin: Run, fake_circusd: FakeCircusd, udp: socket.socket
) -> None:
    fake_circusd.add_watcher("web", numprocesses=2)
    fake_circusd.add_watcher("plugin:x")
    fake_circusd.set_stats("web", cpu=10.0, mem=1.5, mem_info1="2M")
    run_plugin(FullStats, loop_rate=0.01, **at(udp))
    prefix = "circus.app.watcher._stats.web."
    found = lines(udp, 7)[:7]
    assert found == [
        f"{prefix}{text}|g"
        for text in (
            *("watchers_num:2", "cpu_max:10", "cpu_sum:20", "mem_pct_max:1.5", "mem_pct_sum:3"),
            *("mem_max:2097152", "mem_sum:4194304"),
        )
    ]


def test_a_circusd_that_refuses_is_counted(
    run_plugin: Run, fake_circusd: FakeCircusd, udp: socket.socket
) -> None:
    fake_circusd.reply("stats", {"status": "error", "reason": "busy", "errno": 3})
    run_plugin(FullStats, loop_rate=0.01, **at(udp))
    assert lines(udp, 1)[0] == "circus.app.watcher._stats.error:1|c"


@pytest.mark.parametrize(
    ("info", "found"),
    [
        (None, {"watchers_num": 0}),
        ({}, {"watchers_num": 0}),
        ({"1": {"cpu": "N/A", "mem": "N/A", "mem_info1": "N/A"}}, {"watchers_num": 1}),
        (
            {"1": {"cpu": True, "mem": None}, "spawn_count": 3},
            {"watchers_num": 1, "spawn_count": 3},
        ),
        (
            {"1": {"cpu": 1.0, "mem_info1": "1.5K"}, "2": {"cpu": 2, "mem_info1": "512B"}},
            {"watchers_num": 2, "cpu_max": 2, "cpu_sum": 3.0, "mem_max": 1536.0, "mem_sum": 2048.0},
        ),
    ],
)
def test_what_is_not_known_is_no_figure(info: Any, found: dict[str, float]) -> None:
    assert figures(info) == found
