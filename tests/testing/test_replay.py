# Replays: what a plugin would have done, and when; and that compared with a golden file.

from __future__ import annotations

import time
import types
from pathlib import Path
from typing import Any

import pytest
from recordings import STARTED, event, figures, reap, write

from circusplug import CallError, CircusPlugin, SpecError
from circusplug.plugins import (
    Flapping,
)
from circusplug.testing import Deed, FakeCircusd, Replayed, replay
from circusplug.testing._replayed import command_deed


class Watchful(CircusPlugin):
    """Asks, orders, waits and logs."""

    name = "watchful"

    def handle_init(self) -> None:
        self.seen: list[tuple[float, float, Any]] = []
        self.connects = 0

    def handle_connect(self) -> None:
        self.connects += 1
        self.connected_at = self.loop.time()

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        event = self.parse_event(data)
        self.seen.append((self.loop.time(), self.now(), self.call("list", name="web")["pids"]))
        if event.action == "reap":
            self.loop.call_later(10, self.cast, "start", name=event.watcher)
        elif event.action == "odd":
            raise ValueError("odd")

    def handle_stop(self) -> None:
        self.logger.info("seen %d", len(self.seen))


def told(result: Replayed) -> list[tuple[float, str, str]]:
    return [(deed.at, deed.kind, deed.text) for deed in result.deeds]


def test_a_plugin_gets_events_and_answers_at_their_moments(path: Path) -> None:
    write(
        path,
        figures(0, web={"1": {"started": STARTED}, "2": {}}),
        reap(100, pid=1),
        event(100.5, "web", "spawn", process_pid=3),
        event(105, "web", "odd"),
        figures(110, web={"7": {}}),
        event(200, "web", "updated"),
        {"at": 300, "end": True},
    )
    result = replay(path, Watchful)
    assert result.plugin.seen == [
        (100.0, STARTED + 100, [2]),
        (100.5, STARTED + 100.5, [2, 3]),
        (105.0, STARTED + 105, [2, 3]),
        (200.0, STARTED + 200, [7]),
    ]
    assert told(result) == [
        (105.0, "error", "ValueError: odd"),
        (110.0, "command", "start name='web' (cast)"),
        (300.0, "log", "seen 4"),
    ]
    assert (result.events, result.seconds, result.warnings) == (4, 300.0, [])
    assert __file__ in result.errors[0].facts["where"]


def test_two_replays_are_the_same(path: Path) -> None:
    write(path, *(reap(at / 7, f"w{at % 5}", at) for at in range(200)), {"at": 999, "end": True})
    one = replay(path, Watchful)
    assert one.events == 200
    assert one.deeds == replay(path, Watchful).deeds


def test_orders_are_answered_and_not_carried_out(path: Path) -> None:
    class Ordering(CircusPlugin):
        def handle_recv(self, data: tuple[bytes, bytes]) -> None:
            self.answers = [
                self.call("incr", name="web", nb=2)["numprocesses"],
                self.call("numprocesses", name="web")["numprocesses"],
                self.call("stop", name="WEB", waiting=True)["status"],
                self.call("status", name="web")["status"],
                self.call("quit")["status"],
                self.call("options", name="web")["options"]["cmd"],
                self.call("dstats")["info"],
                self.call("globaloptions")["options"],
            ]
            for command, properties in (("stop", {"name": "nobody"}), ("fly", {})):
                with pytest.raises(CallError, match=r"not found|unknown command"):
                    self.call(command, **properties)

    told = {"check_delay": 1}
    write(
        path,
        {"at": 0, "options": {"web": {"cmd": "x", "numprocesses": 1}}, "globaloptions": told},
        {**figures(0, web={"1": {}}), "dstats": {"pid": 5}},
        reap(1, "other"),
    )
    result = replay(path, Ordering)
    assert result.errors == []
    assert result.plugin.answers == [3, 1, "ok", "active", "ok", "x", {"pid": 5}, told]
    assert [deed.facts["command"] for deed in result.commands] == [
        "incr", "stop", "quit", "stop", "fly",
    ]  # fmt: skip


def test_circusd_goes_and_comes_back(path: Path) -> None:
    write(path, reap(1), {"at": 5, "circusd": "back"}, figures(5, web={"9": {}}), reap(6, "db"))
    result = replay(path, Watchful)
    assert (result.plugin.connects, result.plugin.connected_at) == (2, 5.0)
    assert result.plugin.seen[-1] == (6.0, STARTED + 6, [9])


def test_a_plugin_that_starts_finds_the_first_state(path: Path) -> None:
    class Asking(Watchful):
        def handle_init(self) -> None:
            super().handle_init()
            self.first = self.call("list", name="web")["pids"]

    write(path, {"at": 0.2, "options": {"web": {}}}, figures(0.5, web={"4": {}}), reap(1, "db"))
    assert replay(path, Asking).plugin.first == [4]


def test_events_that_a_plugin_does_not_get_take_no_others_moments(path: Path) -> None:
    class Picky(Watchful):
        topics = ("db.",)

    write(path, reap(1), reap(5, "db"), reap(7), reap(9, "db"))
    assert [at for at, _, _ in replay(path, Picky).plugin.seen] == [5.0, 9.0]


def test_a_long_recording_is_not_kept_in_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fake(FakeCircusd):
        def clear(self) -> None:
            kept.append((len(self.commands), len(recorded_of(self).coming)))
            super().clear()

    class Silent(CircusPlugin):
        def handle_recv(self, data: tuple[bytes, bytes]) -> None:
            pass

    def recorded_of(circusd: FakeCircusd) -> Any:
        return circusd._core.script

    kept: list[tuple[int, int]] = []
    monkeypatch.setattr("circusplug.testing._replay._BATCH", 2)
    monkeypatch.setattr("circusplug.testing._replay.FakeCircusd", Fake)
    write(path, *(event(at, "web", "spawn") for at in range(1, 21)))
    for plugin_class in (Watchful, Silent):
        kept.clear()
        assert replay(path, plugin_class).events == 20
        assert len(kept) >= 10
        assert max(commands for commands, _ in kept) <= 2
        assert max(records for _, records in kept) <= 4


def test_what_comes_before_any_state_keeps_its_moment(path: Path) -> None:
    write(path, {"at": 7, "circusd": "back"}, {"at": 20, "end": True})
    result = replay(path, Watchful)
    assert (result.seconds, result.plugin.connects) == (20.0, 2)


def test_a_watcher_known_by_events_only_and_one_that_is_removed(path: Path) -> None:
    class Names(CircusPlugin):
        def handle_init(self) -> None:
            self.lists: list[Any] = []

        def handle_recv(self, data: tuple[bytes, bytes]) -> None:
            self.lists.append(self.call("status")["statuses"])

    write(
        path,
        event(1, "big_one", "start"),
        {"at": 2, "options": {"Big One": {}}},
        event(3, "big_one", "stop"),
        event(4, "big_one", "remove"),
    )
    result = replay(path, Names)
    assert result.plugin.lists == [{"big_one": "active"}, {"Big One": "stopped"}, {}]


def test_a_plugin_that_fails_ends_the_replay(path: Path) -> None:
    class Failing(CircusPlugin):
        def handle_init(self) -> None:
            raise RuntimeError("no")

        def handle_recv(self, data: tuple[bytes, bytes]) -> None:
            pass

    write(path, reap(1))
    result = replay(path, Failing)
    assert [deed.text for deed in result.errors] == [
        "RuntimeError: no",
        "the plugin is failed: RuntimeError: no",
    ]
    with pytest.raises(SpecError, match="no option 'x'"):
        replay(path, Flapping, x=1).errors[0]


def test_the_real_clock_is_found_if_that_is_wanted(path: Path) -> None:
    class Reading(CircusPlugin):
        def handle_recv(self, data: tuple[bytes, bytes]) -> None:
            time.time()
            time.monotonic()

    write(path, reap(1), reap(2))
    assert replay(path, Reading).of("clock") == []
    first, second = replay(path, Reading, strict=True).of("clock")
    assert first.at == 1.0
    assert first.text.startswith(f"{__file__}:")
    assert first.text.endswith("calls time(), which is of the real clock; use self.now()")
    assert "self.loop.time()" in second.text
    assert replay(path, Watchful, strict=True).of("clock") == []


def test_a_replay_can_keep_the_time(path: Path) -> None:
    at: list[tuple[float, float]] = []
    write(path, reap(0.1), reap(0.3), {"at": 0.4, "end": True})

    class Timed(CircusPlugin):
        def handle_recv(self, data: tuple[bytes, bytes]) -> None:
            at.append((self.loop.time(), time.monotonic()))

    begun = time.monotonic()
    replay(path, Timed, speed=2)
    assert [one for one, _ in at] == [0.1, 0.3]
    assert all(real - begun >= moment / 2 for moment, real in at)
    with pytest.raises(ValueError, match="more than 0"):
        replay(path, Timed, speed=0)


# Comparing


def test_the_same_commands_are_the_same(path: Path, tmp_path: Path) -> None:
    write(path, reap(1), reap(50), {"at": 70, "end": True})
    golden = tmp_path / "golden.jsonl"
    result = replay(path, Watchful)
    result.save(golden)
    replay(path, Watchful).assert_same_commands(golden)
    replay(path, Watchful).assert_same_commands(result)
    write(path, reap(1), reap(51, "db"), {"at": 70, "end": True})
    with pytest.raises(AssertionError) as caught:
        replay(path, Watchful).assert_same_commands(golden)
    assert str(caught.value).splitlines()[-3:] == [
        '       11.000 start name="web"',
        '-      60.000 start name="web"',
        '+      61.000 start name="db"',
    ]


def test_a_golden_file_that_is_none(path: Path, tmp_path: Path) -> None:
    result = replay(write(path), Watchful)
    with pytest.raises(AssertionError, match="make it with 'circusplug replay --json"):
        result.assert_same_commands(tmp_path / "none")
    wrong = tmp_path / "wrong"
    wrong.write_text("{}\n")
    with pytest.raises(AssertionError, match="wrong: line 1: is not of a replay"):
        result.assert_same_commands(wrong)


def test_deeds_can_be_taken_as_they_come_and_secrets_are_masked(path: Path) -> None:
    class Adding(CircusPlugin):
        def handle_recv(self, data: tuple[bytes, bytes]) -> None:
            self.cast("add", name="x", cmd="x", options={"env": {"PASSWORD": "hunter2"}})

    write(path, reap(1), reap(2))
    deeds: list[Any] = []
    assert replay(path, Adding, on_deed=deeds.append).deeds == []
    assert [deed.at for deed in deeds] == [1.0, 2.0]
    assert "hunter2" not in deeds[0].to_json() + str(deeds[0])


def test_what_a_golden_file_says_oddly_is_told_with_its_line(path: Path, tmp_path: Path) -> None:
    result = replay(write(path), Watchful)
    with pytest.raises(AssertionError, match="Is a directory; make it with"):
        result.assert_same_commands(tmp_path)
    command = '{"kind": "command", "command": "incr", '
    for line in (
        "[]",
        "7",
        command + '"at": null, "properties": {}}',
        command + '"at": 1, "properties": []}',
        command + '"at": 1}',
        "no json",
    ):
        path.write_text(f'{{"kind": "log"}}\n{line}\n')
        with pytest.raises(AssertionError, match="line 2: is not of a replay"):
            result.assert_same_commands(path)


def test_deeds_are_compared_and_told_as_far_as_a_clock_goes(tmp_path: Path) -> None:
    properties = {"name": "web", "nb": 2}
    one = Replayed([command_deed(1 / 3, "incr", properties, cast=False)])
    other = Replayed(
        [
            command_deed(1 / 3 + 1e-9, "incr", dict(reversed(properties.items())), cast=False),
            Deed(2.0, "log", "a line"),
        ]
    )
    one.assert_same_commands(other)
    assert '"at": 0.333333,' in one.deeds[0].to_json()
    one.save(tmp_path / "golden")
    other.assert_same_commands(tmp_path / "golden")


def test_with_a_speed_a_deed_is_told_when_it_is_done(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds + 1e-6

    clock = types.SimpleNamespace(monotonic=lambda: now[0], sleep=sleep)
    monkeypatch.setattr("circusplug.testing._replay.time", clock)
    told: list[tuple[float, float]] = []
    write(path, reap(1), {"at": 60, "end": True})
    replay(path, Watchful, speed=10, on_deed=lambda deed: told.append((deed.at, now[0])))
    (done, at), _ = told  # and a line at the stop
    assert done == 11.0
    assert 101.0 <= at < 101.5
    assert now[0] == pytest.approx(106.0)
