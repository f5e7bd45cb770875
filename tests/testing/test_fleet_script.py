# Fleets that live by a script: what happens, when, and what circusd tells of it meanwhile.

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest
from diary import Diary, Event, notes_of
from patience import PATIENCE
from wire import Wire

from circusplug import CallConflict, SpecError
from circusplug.testing import FakeCircusd, RunningPlugin, run_plugin
from circusplug.testing._virtual_clock import VirtualClock

Noted = list[tuple[float, str]]


class Observer(Diary):
    """Notes events with their exit codes, and what circusd answers."""

    def handle_recv(self, data: Event) -> None:
        event = self.parse_event(data)
        code = event.payload.get("exit_code")
        self.note(f"{event.watcher} {event.action}" + ("" if code is None else f" {code}"))

    def handle_reconnect(self) -> None:
        self.note("connected")

    def ask(self, command: str, **properties: Any) -> None:
        try:
            reply = self.call(command, **properties)
        except CallConflict as error:
            self.note(str(error.reason))
        else:
            self.replies.append(reply)
            self.note(f"{command} answered")

    def handle_init(self) -> None:
        self.replies: list[Any] = []


def ask(plugin: RunningPlugin, command: str, **properties: Any) -> dict[str, Any]:
    """Have the plugin call circusd, and return the reply."""
    observer: Observer = plugin.plugin
    observer.loop.add_callback(functools.partial(observer.ask, command, **properties))
    plugin.advance(0)
    reply: dict[str, Any] = observer.replies.pop()
    observer.notes.pop()
    return reply


def run_script(script: str, seconds: float) -> Noted:
    with (
        FakeCircusd(script=script) as circusd,
        run_plugin(Observer, circusd, clock="virtual") as plugin,
    ):
        plugin.advance(seconds)
        return notes_of(plugin)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (
            "web crashes every 30 s",
            [(moment, what) for moment in (30, 60) for what in ("web reap 1", "web spawn")],
        ),
        ("web crashes with SIGSEGV at 0:45", [(45, "web reap -11"), (45, "web spawn")]),
        (
            "web exits after 40 s  # each process",
            [(moment, what) for moment in (40, 80) for what in ("web reap 0", "web spawn")],
        ),
        (
            "web has respawn no\nweb exits with 3 at 1 min",
            [(60, "web reap 3"), (60, "web stop")],
        ),
        (
            "web takes 8 s to stop\nweb restarts at 0:10\nweb stops at 0:12\nweb starts at 1:00",
            [
                *((10, "web kill"), (18, "web reap 0"), (18, "web stop")),
                *((18, "web spawn"), (18, "web start"), (18, "web kill")),
                *((26, "web reap 0"), (26, "web stop"), (60, "web spawn"), (60, "web start")),
            ],
        ),
        (
            "web takes 8 s to stop\nweb has graceful_timeout 5\nweb stops at 0:10",
            [(10, "web kill"), (15, "web kill"), (15, "web reap -9"), (15, "web stop")],
        ),
        (
            "web has 2 processes\nweb reloads at 0:10\nweb takes 2 s to stop",
            [
                *((10, "web spawn"), (10, "web spawn"), (10, "web kill"), (10, "web kill")),
                (12, "web reload"),
            ],
        ),
        (
            "web has warmup_delay 3\nweb has 2 processes\nweb restarts at 0:10",
            [
                *((10, "web kill"), (10, "web kill"), (10, "web reap -15"), (10, "web reap -15")),
                *((10, "web stop"), (10, "web spawn"), (13, "web spawn"), (16, "web start")),
            ],
        ),
        (
            "web fails to start from 0:30 to 1:00\nweb crashes every 40 s\nweb starts at 0:50\n"
            "web starts at 1:10",
            [
                *((40, "web reap 1"), (40, "web stop"), (50, "web stop")),
                *((70, "web spawn"), (70, "web start"), (80, "web reap 1"), (80, "web spawn")),
            ],
        ),
        (
            "web takes 5 s to stop\ndb crashes every 20 s\nweb stops at 0:18",
            [
                *((18, "web kill"), (23, "web reap 0"), (23, "web stop")),
                *((23, "db reap 1"), (23, "db spawn")),  # circusd was busy
                *((moment, what) for moment in (40, 60, 80) for what in ("db reap 1", "db spawn")),
            ],
        ),
        (
            "web takes 5 s to stop\ncircusd restarts at 0:20\nweb crashes at 0:50",
            [
                *((20, "web kill"), (25, "web reap 0"), (25, "web stop"), (25, "connected")),
                *((50, "web reap 1"), (50, "web spawn")),
            ],
        ),
        (
            "web crashes every 25 s\ncircusd stops at 0:20\ncircusd starts at 0:40",
            [
                *((20, "web kill"), (20, "web reap -15"), (20, "web stop"), (40, "connected")),
                *((50, "web reap 1"), (50, "web spawn"), (75, "web reap 1"), (75, "web spawn")),
            ],
        ),
        (
            # One that is up need not start, and one that is down cannot restart.
            "circusd starts at 0:05\ncircusd stops at 0:10\ncircusd restarts at 0:20\n"
            "circusd starts at 0:40\nweb crashes at 0:50",
            [
                *((10, "web kill"), (10, "web reap -15"), (10, "web stop"), (40, "connected")),
                *((50, "web reap 1"), (50, "web spawn")),
            ],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_script_says_happens_when_it_says_so(script: str, expected: Noted) -> None:
    named = sorted({line.split()[0] for line in script.splitlines()} - {"circusd"})
    assert run_script("\n".join(f"{name} has 1 process" for name in named) + f"\n{script}", 80) == (
        expected
    )


class Beside(Observer):
    """Has timers of its own at the moments of the script."""

    def handle_init(self) -> None:
        super().handle_init()
        self.periodic(lambda: self.note("tick"), 30)
        self.loop.call_later(30, self.ask, "status", name="web")


def test_a_script_has_the_same_trace_each_time_and_comes_after_the_timers_of_that_moment() -> None:
    script = "web has 2 processes\nweb crashes every 30 s\nweb takes 2 s to stop\nweb stops at 1:00"
    with FakeCircusd(script=script) as circusd:
        for _ in range(40):
            with run_plugin(Beside, circusd, clock="virtual") as plugin:
                plugin.advance(62)
                assert notes_of(plugin) == [
                    *((30, "status answered"), (30, "tick"), (30, "web reap 1"), (30, "web spawn")),
                    *((60, "tick"), (60, "web reap 1"), (60, "web spawn"), (60, "web kill")),
                    *((60, "web kill"), (62, "web reap 0"), (62, "web reap 0"), (62, "web stop")),
                ]


def test_a_day_of_a_script_agrees_with_what_circusd_answers() -> None:
    script = """
        web has 2 processes
        web crashes with 3 every 45 min
        web leaks 6 MB/h
        "My App" has 1 process
        "My App" exits after 5 h
    """
    with (
        FakeCircusd(script=script) as circusd,
        run_plugin(Observer, circusd, clock="virtual") as plugin,
    ):
        for hour in range(24):
            plugin.advance(3600)
            infos = ask(plugin, "stats")["infos"]
            for name, infos_of_one in infos.items():
                assert [int(pid) for pid in infos_of_one] == ask(plugin, "list", name=name)["pids"]
                for info in infos_of_one.values():
                    leaked = info["age"] / 3600 * 6 if name == "web" else 0
                    assert info["mem_info1"] == f"{1.5 + leaked:.2f}M"
            assert ask(plugin, "numprocesses")["numprocesses"] == 3, hour
        events = [what for _, what in notes_of(plugin)]
        assert events.count("web reap 3") == events.count("web spawn") == 32
        assert events.count("my_app reap 0") == 4


def test_figures_follow_the_script() -> None:
    script = """
        web has 1 process
        web uses 80 % CPU from 1:00 to 2:00
        web uses 100 MB
        web leaks 30 MB/min from 1:00 to 3:00
    """
    with (
        FakeCircusd(script=script) as circusd,
        run_plugin(Observer, circusd, clock="virtual") as plugin,
    ):
        for expected in ((0.0, "100.00M"), (80.0, "115.00M"), (0.0, "145.00M"), (0.0, "160.00M")):
            plugin.advance(30 if plugin.elapsed == 0 else 60)
            (info,) = ask(plugin, "stats", name="web")["info"].values()
            assert (info["cpu"], info["mem_info1"]) == expected or plugin.elapsed == 30


def test_commands_meet_a_fleet_in_the_middle_of_something() -> None:
    script = "web has 2 processes\nweb takes 8 s to stop\ndb has 1 process"
    with (
        FakeCircusd(script=script) as circusd,
        run_plugin(Observer, circusd, clock="virtual") as plugin,
    ):
        observer: Observer = plugin.plugin
        observer.loop.add_callback(functools.partial(observer.ask, "stop", name="web"))
        observer.loop.call_later(2, functools.partial(observer.ask, "incr", name="db", timeout=1))
        plugin.advance(4)
        assert [what for _, what in notes_of(plugin)] == [
            "stop answered",
            "web kill",
            "web kill",
            "arbiter is already running watcher_stop command",
        ]
        assert ask(plugin, "status")["statuses"] == {"web": "stopping", "db": "active"}
        assert len(ask(plugin, "list", name="web")["pids"]) == 2
        assert circusd.status("web") == "stopping"
        observer.loop.add_callback(functools.partial(observer.ask, "incr", name="db", waiting=True))
        plugin.advance(5)  # it is tried again until circusd is done
        assert [what for _, what in notes_of(plugin)] == [
            *("incr answered", "web reap 0", "web reap 0", "web stop", "db spawn")
        ]
        assert observer.replies.pop()["numprocesses"] == 2
        assert ask(plugin, "status", name="web")["status"] == "stopped"


def test_a_command_that_waits_is_answered_when_its_work_is_done() -> None:
    script = "web has 1 process\nweb takes 8 s to stop"
    with (
        FakeCircusd(script=script) as circusd,
        run_plugin(Observer, circusd, clock="virtual") as plugin,
    ):
        observer: Observer = plugin.plugin
        wait = functools.partial(observer.ask, "restart", name="web", waiting=True)
        observer.loop.add_callback(wait)
        plugin.advance(100)
        assert (8, "restart answered") in notes_of(plugin)
        info = observer.replies.pop()["info"]
        assert [len(info[key]) for key in ("stopped", "started", "kept")] == [1, 1, 0]


def test_what_is_under_way_ends_with_the_virtual_clock() -> None:
    script = "web has 1 process\nweb takes 8 s to stop\ncircusd stops at 1:00"
    with FakeCircusd(script=script) as circusd:
        for _ in range(2):
            with run_plugin(Observer, circusd, clock="virtual") as plugin:
                plugin.advance(61)
                assert [what for _, what in notes_of(plugin)] == ["web kill"]
            assert circusd.status("web") == "active"  # it has come up again


def test_what_a_script_says_of_a_watcher_that_is_gone_is_passed_over() -> None:
    with (
        FakeCircusd(script="web has 1 process\nweb crashes at 0:10\nweb stops at 0:20") as circusd,
        run_plugin(Observer, circusd, clock="virtual") as plugin,
    ):
        ask(plugin, "rm", name="web")
        notes_of(plugin)
        plugin.advance(30)
        assert notes_of(plugin) == []


def test_with_a_new_clock_all_is_as_the_script_says() -> None:
    with FakeCircusd(script="web has 2 processes") as circusd:
        for _ in range(2):
            with run_plugin(Observer, circusd, clock="virtual") as plugin:
                assert len(circusd.pids("web")) == 2
                ask(plugin, "incr", name="web", nb=3)
                assert len(circusd.pids("web")) == 5
        circusd.stop()
        circusd._core.use_clock(VirtualClock())
        assert not circusd._core.server.bound  # the test has stopped it, and not the script
        circusd._core.use_clock(None)


def test_a_script_runs_in_real_time(tmp_path: Path) -> None:
    path = tmp_path / "fleet.txt"
    path.write_text("web takes 20 ms to stop\nweb crashes with 3 after 10 ms\nweb stops at 0.2 s")
    with FakeCircusd(["web"]) as circusd, Wire(circusd) as wire:
        circusd.wait_subscribed(timeout=PATIENCE)
        circusd.run_script(path)
        seen = [wire.event() for _ in range(2)]
        assert [topic for topic, _ in seen] == ["watcher.web.reap", "watcher.web.spawn"]
        assert seen[0][1]["exit_code"] == 3
        while wire.event()[0] != "watcher.web.stop":
            pass


def test_a_script_begins_with_the_block() -> None:
    script = "web has 1 process\nweb crashes with 3 every 20 ms"
    with FakeCircusd(script=script) as circusd, Wire(circusd) as wire:
        topic, payload = wire.event()
        while topic != "watcher.web.reap":
            topic, payload = wire.event()
        assert payload["exit_code"] == 3


def test_a_script_changes_watchers_that_are_there(fake_circusd: FakeCircusd) -> None:
    fake_circusd.add_watcher("web")
    fake_circusd.run_script("web has 3 processes\nweb has flapping.window 7")
    assert len(fake_circusd.pids("web")) == 3
    with Wire(fake_circusd) as wire:
        options = wire.call("options", name="web")["options"]
        assert (options["numprocesses"], options["flapping.window"]) == (3, "7")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("web crashs every 3 s", "'web crashs every 3 s' has no verb (did you mean 'crashes'?)"),
        ("web", "'web' has no verb; write WATCHER and one of has, crashes"),
        ("web crashes evry 3 s", "'crashes evry 3 s' makes no sense; write crashes [with CODE"),
        ("web crashes every 3 blinks", "'3 blinks' is not a number of seconds; write 90, 1.5 min"),
        ("web crashes every 0 s", "'0 s' is not a number of seconds of more than 0"),
        ("web crashes with 300 at 1:00", "'300' is more than 255"),
        ("web crashes with SIGFOO at 1:00", "'SIGFOO' is neither an exit code nor a signal"),
        ("web stops", "'stops' makes no sense; write stops at MOMENT, or every TIME"),
        ("web stops at 1:75", "'1:75' is no moment; write 0:45, 2:00:00 or 90 s"),
        ("web leaks 5 MB", "'leaks 5 MB' makes no sense; write leaks SIZE/TIME"),
        ("web leaks 5 XB/min", "'5 XB' is not a size"),
        ("web leaks 5 MB/blink", "'1 blink' is not a number of seconds"),
        ("web uses 5 %", "'uses 5 %' makes no sense; write uses NUMBER % CPU, or SIZE"),
        ("web uses 5 % CPU from 2:00 to 1:00", "1:00 is not after 2:00"),
        ("web has gracful_timeout 3", "no option 'gracful_timeout' (did you mean 'graceful_ti"),
        ("web has graceful_timeout x", "option graceful_timeout: 'x' is not a number of seconds"),
        ("web takes 3 s", "'takes 3 s' makes no sense; write takes TIME to stop"),
        ("circusd leaks 5 MB/min", "'circusd leaks' makes no sense; circusd starts, stops or r"),
        ("wbe stops at 1:00", "there is no watcher 'wbe' (did you mean 'web'?); a line 'wbe has"),
    ],
)
@pytest.mark.parametrize("way", ["text", "file"])
def test_a_bad_line_is_told_in_one(tmp_path: Path, line: str, message: str, way: str) -> None:
    text = f"# a fleet\nweb has 1 process\n{line}"
    path = tmp_path / "fleet.txt"
    path.write_text(text)
    with pytest.raises(SpecError, match=re.escape(message)) as caught:
        FakeCircusd(script=text if way == "text" else path)
    assert str(caught.value).startswith(f"{'script' if way == 'text' else path}, line 3: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"absent: cannot be read: .*No such file"):
        FakeCircusd(script=tmp_path / "absent")


def test_a_name_of_a_file_is_no_script() -> None:
    with pytest.raises(SpecError, match=r"'fleet.txt' is no sentence; give a file as a pathlib"):
        FakeCircusd(script="fleet.txt")


def test_a_bad_script_for_a_running_one_changes_nothing(fake_circusd: FakeCircusd) -> None:
    with pytest.raises(SpecError, match="script, line 2: "):
        fake_circusd.run_script("web has 1 process\nweb flies")
    with Wire(fake_circusd) as wire:
        assert wire.call("list")["watchers"] == []
