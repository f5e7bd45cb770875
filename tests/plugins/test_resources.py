# ResourceWatcher: what it asks circusd for, by figures that the test chooses, and real ones.

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from bundled import Journal, do, given
from circusd_real import RealCircusd
from fixture_types import Run
from patience import PATIENCE, wait_while

from circusplug import Arbiter, SpecError
from circusplug.plugins import ResourceWatcher
from circusplug.plugins._processes import Meter, is_local
from circusplug.testing import FakeCircusd, RunningPlugin

ORDERS = ("restart", "kill", "signal")


@pytest.fixture
def watch(run_plugin: Run, fake_circusd: FakeCircusd) -> Callable[..., RunningPlugin]:
    """Runs a ResourceWatcher that looks only when it is told to."""

    def run(**options: Any) -> RunningPlugin:
        given = {"watcher": "web", "loop_rate": 1e6, "max_count": 1, "max_cpu": 90, **options}
        return run_plugin(ResourceWatcher, **given)

    return run


def look(running: RunningPlugin, times: int = 1) -> list[str]:
    """Have it look so often; returns the orders that it has given."""
    for _ in range(times):
        do(running, running.plugin.look)
    return given(running, *ORDERS)


def test_a_watcher_over_its_limit_for_too_long_is_restarted(
    watch: Callable[..., RunningPlugin], fake_circusd: FakeCircusd, journal: Journal
) -> None:
    fake_circusd.add_watcher("web", 2)
    fake_circusd.set_stats("web", fake_circusd.pids("web")[1], cpu=99.0)
    running = watch()
    assert look(running) == []
    assert look(running) == ["restart"]
    journal.wait("web: CPU of 99 % is over 90 %; restart")
    order = fake_circusd.wait_command("restart", name="web")
    assert order.properties["match"] == "simple"
    assert look(running) == ["restart"]  # the count has begun anew


def test_a_figure_or_a_process_that_is_not_there_passes_no_limit(
    watch: Callable[..., RunningPlugin], fake_circusd: FakeCircusd
) -> None:
    fake_circusd.add_watcher("web")
    fake_circusd.add_watcher("none", 0)
    fake_circusd.set_stats("web", cpu="N/A", mem="N/A", mem_info1="N/A")
    running = watch(watcher="web, none", min_cpu=1, min_mem="1M", max_count=0)
    assert look(running, 3) == []


def test_many_are_picked_by_patterns_and_circusds_own_plugins_never(
    watch: Callable[..., RunningPlugin], fake_circusd: FakeCircusd
) -> None:
    for name in ("web-1", "Web-2", "api", "plugin:web"):
        fake_circusd.add_watcher(name)
        fake_circusd.set_stats(name, cpu=99.0)
    running = watch(watcher="web*, plugin:*", max_count=0)
    assert look(running) == ["restart"] * 2
    names = {one.properties["name"] for one in fake_circusd.commands if one.command == "restart"}
    assert names == {"web-1", "Web-2"}


def test_the_one_process_may_be_killed_instead(
    watch: Callable[..., RunningPlugin], fake_circusd: FakeCircusd
) -> None:
    fake_circusd.add_watcher("web", 3)
    pid = fake_circusd.pids("web")[1]
    fake_circusd.set_stats("web", pid, cpu=99.0)
    assert look(watch(act="process", max_count=0)) == ["kill"]
    assert fake_circusd.wait_command("kill", name="web").properties["pid"] == pid


def test_a_limit_may_hold_for_all_processes_together(
    watch: Callable[..., RunningPlugin], fake_circusd: FakeCircusd, journal: Journal
) -> None:
    fake_circusd.add_watcher("web", 3)
    fake_circusd.set_stats("web", cpu=40.0)
    assert look(watch(measure="watcher", max_count=0)) == ["restart"]
    journal.wait("CPU of 120 % is over 90")


def test_children_are_judged_each_for_itself_and_signalled(
    watch: Callable[..., RunningPlugin], fake_circusd: FakeCircusd
) -> None:
    fake_circusd.add_watcher("web")
    children = [{"pid": 4000001, "cpu": 99.0}, {"pid": 4000002, "cpu": 1.0}, "rubbish", {}]
    fake_circusd.set_stats("web", cpu=1.0, children=children)
    assert look(watch(process_children="yes", child_signal="HUP", max_count=0)) == ["signal"]
    order = fake_circusd.wait_command("signal", name="web").properties
    assert (order["pid"], order["childpid"], order["signum"]) == (
        *fake_circusd.pids("web"),
        4000001,
        1,
    )


def test_each_child_has_a_count_of_its_own_and_one_that_is_gone_stops_nothing(
    watch: Callable[..., RunningPlugin], fake_circusd: FakeCircusd, journal: Journal
) -> None:
    fake_circusd.add_watcher("web")
    cpus = {4000001: 99.0, 4000002: 1.0, 4000003: 99.0}
    children = [{"pid": pid, "cpu": cpu} for pid, cpu in cpus.items()]
    fake_circusd.set_stats("web", cpu=1.0, children=children)
    no = {"status": "error", "reason": "no such child", "errno": 3}
    fake_circusd.reply("signal", no, childpid=4000001)
    running = watch(process_children="yes")
    assert look(running) == []
    assert look(running) == ["signal"] * 2
    journal.wait("web: signal name='web'")


def test_a_signal_is_sent_again_while_circusd_is_busy(
    watch: Callable[..., RunningPlugin], fake_circusd: FakeCircusd
) -> None:
    fake_circusd.add_watcher("web")
    fake_circusd.set_stats("web", cpu=1.0, children=[{"pid": 4000001, "cpu": 99.0}])
    busy = {"status": "error", "reason": "arbiter is already running x", "errno": 5}
    fake_circusd.reply("signal", busy)
    running = watch(process_children="yes", max_count=0, loop_rate=1000, clock="virtual")
    running.advance(1000 + 100)
    fake_circusd.clear()
    running.advance(10)
    assert given(running, "signal")


def test_no_more_restarts_than_allowed(
    watch: Callable[..., RunningPlugin], fake_circusd: FakeCircusd, journal: Journal
) -> None:
    fake_circusd.add_watcher("web")
    fake_circusd.set_stats("web", cpu=99.0)
    running = watch(max_count=0, restart_limit=2)
    assert look(running, 4) == ["restart"] * 2
    assert journal.wait("left alone, as it was restarted 2 times within").levelname == "ERROR"
    plugin = running.plugin
    plugin.loop.add_callback(setattr, plugin._restarts, "clock", lambda: 1e9)
    assert look(running) == ["restart"] * 3


def test_a_watcher_that_has_just_started_is_left_alone(
    watch: Callable[..., RunningPlugin], fake_circusd: FakeCircusd
) -> None:
    fake_circusd.add_watcher("web")
    fake_circusd.set_stats("web", cpu=99.0, age=1000.0)
    running = watch(max_count=0, grace=500)
    running.publish("web", "start")
    running.wait_handled(1, PATIENCE)
    assert look(running) == []
    running.publish("web", "remove")
    running.wait_handled(2, PATIENCE)
    assert look(running) == ["restart"]


def test_so_is_a_process_that_has(
    watch: Callable[..., RunningPlugin], fake_circusd: FakeCircusd
) -> None:
    fake_circusd.add_watcher("web")
    fake_circusd.set_stats("web", cpu=99.0, age=499.0)
    running = watch(max_count=0, grace=500)
    assert look(running) == []
    fake_circusd.set_stats("web", age=500.0)
    assert look(running) == ["restart"]


def test_a_watcher_that_somebody_has_started_begins_anew(
    watch: Callable[..., RunningPlugin], fake_circusd: FakeCircusd
) -> None:
    for name in ("My App", "other"):
        fake_circusd.add_watcher(name)
        fake_circusd.set_stats(name, cpu=99.0)
    running = watch(watcher="my app, other", max_count=1)
    assert look(running) == []
    running.publish("My App", "start")
    running.wait_handled(1, PATIENCE)
    assert look(running) == ["restart"]
    assert fake_circusd.wait_command("restart").properties["name"] == "other"
    assert look(running) == ["restart"] * 2


def test_a_limit_may_be_passed_for_a_time(
    watch: Callable[..., RunningPlugin], fake_circusd: FakeCircusd
) -> None:
    fake_circusd.add_watcher("web")
    fake_circusd.set_stats("web", cpu=99.0)
    running = watch(max_count=0, over_for=60)
    for now, orders in ((0.0, []), (59.0, []), (60.0, ["restart"])):
        running.plugin._restarts.clock = lambda now=now: now
        assert look(running) == orders


def test_what_is_too_little_is_told_by_the_least(
    watch: Callable[..., RunningPlugin], fake_circusd: FakeCircusd, journal: Journal
) -> None:
    fake_circusd.add_watcher("web", 2)
    fake_circusd.set_stats("web", cpu=50.0)
    fake_circusd.set_stats("web", fake_circusd.pids("web")[1], cpu=1.0)
    assert look(watch(max_count=0, min_cpu=5)) == ["restart"]
    journal.wait("web: CPU of 1 % is not over 5 %; restart")


def test_a_process_that_was_gone_begins_anew(
    watch: Callable[..., RunningPlugin], fake_circusd: FakeCircusd
) -> None:
    fake_circusd.add_watcher("web")
    fake_circusd.set_stats("web", cpu=99.0)
    running = watch(act="process", max_count=1)
    look(running)
    me = psutil.Process()
    other = {str(me.pid): {"create_time": me.create_time(), "cpu": 1.0}}
    fake_circusd.reply("stats", {"info": other}, count=1)
    look(running)
    assert set(running.plugin._meter._known) == {me.pid}
    assert look(running) == []
    assert running.plugin._meter._known == {}
    assert look(running) == ["kill"]


@pytest.mark.parametrize(("with_children", "orders"), [("yes", ["restart"]), ("no", [])])
def test_children_may_count_with_their_process(
    with_children: str,
    orders: list[str],
    watch: Callable[..., RunningPlugin],
    fake_circusd: FakeCircusd,
) -> None:
    fake_circusd.add_watcher("web")
    fake_circusd.set_stats("web", cpu=50.0, children=[{"pid": 4000001, "cpu": 60.0}])
    assert look(watch(max_count=0, with_children=with_children)) == orders


def test_pss_is_measured_where_it_is_asked_for() -> None:
    for memory, pss in (("rss", False), ("pss", True)):
        plugin = ResourceWatcher(watcher="web", memory=memory)
        assert plugin._meter._pss is pss
        plugin.loop.close()


def test_one_that_there_is_not_hides_no_other(
    watch: Callable[..., RunningPlugin], fake_circusd: FakeCircusd, udp: socket.socket
) -> None:
    fake_circusd.add_watcher("web")
    fake_circusd.set_stats("web", cpu=99.0)
    where = {"host": "127.0.0.1", "port": udp.getsockname()[1]}
    assert look(watch(watcher="absent, web", max_count=0, **where)) == ["restart"]
    assert b"circus.app.watcher._resource_watcher.absent.error:1|c" in udp.recv(65536)


def test_while_circusd_refuses_nothing_is_restarted(
    watch: Callable[..., RunningPlugin], fake_circusd: FakeCircusd, journal: Journal
) -> None:
    running = watch(watcher="absent", max_count=0)
    assert look(running) == []
    journal.wait("no figures this time: stats")
    fake_circusd.add_watcher("absent")
    fake_circusd.set_stats("absent", cpu=99.0)
    assert look(running) == ["restart"]


@pytest.mark.parametrize("infos", [None, [], "x", {"web": None}, {"web": {"x": 3, "7": [1]}}])
def test_rubbish_of_circusds_is_nothing(
    infos: object, watch: Callable[..., RunningPlugin], fake_circusd: FakeCircusd
) -> None:
    fake_circusd.reply("stats", {"status": "ok", "infos": infos})
    assert look(watch(watcher="*", max_count=0, min_cpu=50)) == []


def test_figures_are_counted_under_circus_s_names(
    watch: Callable[..., RunningPlugin], fake_circusd: FakeCircusd, udp: socket.socket
) -> None:
    fake_circusd.add_watcher("web")
    fake_circusd.set_stats("web", cpu=99.0)
    look(watch(max_count=0, host="127.0.0.1", port=udp.getsockname()[1]))
    told = b""
    while b"restarting" not in told:
        told += udp.recv(65536) + b"\n"
    prefix = "circus.app.watcher._resource_watcher.web"
    assert told.decode().split() == [f"{prefix}.over_cpu:1|c", f"{prefix}.restarting:1|c"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "'watcher' is missing"),
        ({"watcher": "web", "max_mem": "much"}, "'max_mem': 'much' is neither a size nor percent"),
        ({"watcher": "web", "min_cpu": 95}, "'min_cpu' is more than 'max_cpu'"),
        ({"watcher": "web", "measure": "watcher", "act": "process"}, "'act' = process takes"),
    ],
)
def test_bad_options_are_told(options: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        ResourceWatcher(**options)


def test_the_old_name_of_an_option_does() -> None:
    plugin = ResourceWatcher(service="web")
    assert plugin._patterns.match("web")
    plugin.loop.close()


@pytest.mark.parametrize(
    ("endpoint", "ssh_server", "local"),
    [
        ("ipc:///run/circus", None, True),
        ("tcp://127.0.0.1:5555", None, True),
        ("tcp://localhost:5555", None, True),
        ("tcp://10.0.0.1:5555", None, False),
        ("tcp://127.0.0.1:5555", "far", False),
    ],
)
def test_only_processes_of_this_machine_are_measured(
    endpoint: str, ssh_server: str | None, local: bool
) -> None:
    assert is_local(endpoint, ssh_server) is local


@pytest.fixture
def family() -> Iterator[psutil.Process]:
    """A process that has started another one, which works."""
    program = (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', "
        "'while True: pass']); print('up', flush=True); sys.stdin.read(); "
        "child.kill(); child.wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield psutil.Process(process.pid)
        assert process.stdin is not None
        process.stdin.close()


def test_a_process_here_is_measured_here_with_its_children(family: psutil.Process) -> None:
    meter = Meter(local=True)
    info = {"pid": family.pid, "create_time": family.create_time(), "cpu": 0.0, "mem_info1": "1B"}
    first = meter.family_of(info)
    assert first.cpu is None
    assert (first.memory or 0) > 2**20
    busy = 0.0
    while not busy > 10:
        busy = meter.family_of(info).cpu or 0.0
    assert (meter.of(info).files or 0) >= 3
    assert meter.of(info).threads == 1
    pss = Meter(local=True, pss=True).of(info).memory
    assert 0 < (pss or 0) <= (meter.of(info).memory or 0)
    meter.forget_gone()
    meter.forget_gone()
    assert meter._known == {}


def test_a_process_of_that_number_elsewhere_is_not_measured(family: psutil.Process) -> None:
    meter = Meter(local=True)
    for more in ({"create_time": family.create_time() - 60}, {}, {"create_time": "N/A"}):
        assert meter.of({"pid": family.pid, "cpu": 5.0, **more}).files is None
    assert Meter(local=False).of({"pid": family.pid, "cpu": 5.0}).cpu == 5.0


def test_a_real_process_that_eats_memory_is_replaced(run_plugin: Run, journal: Journal) -> None:
    eats = f'{sys.executable} -c "x = bytearray(64 << 20); import time; time.sleep(1000)"'
    with RealCircusd({"eater": {"cmd": eats}, "idle": {}}) as circusd:
        pid = circusd.call("list", name="eater")["pids"][0]
        plugin = {
            "use": ResourceWatcher,
            "watcher": "*",
            "max_mem": "40M",
            "max_count": 0,
            "loop_rate": 0.05,
        }
        with Arbiter([plugin], circusd.endpoint, circusd.pubsub_endpoint):
            journal.wait("eater: memory of")
            wait_while(lambda: circusd.call("list", name="eater").get("pids") in ([pid], []))
        assert not [text for text in journal.messages if text.startswith("idle")]
