# Flapping: when a watcher is stopped, started again, and given up, by events whose times the test
# chooses.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from bundled import Journal
from fixture_types import Run
from patience import PATIENCE

from circusplug.plugins import Flapping
from circusplug.testing import FakeCircusd, RunningPlugin


@pytest.fixture
def play(run_plugin: Run, fake_circusd: FakeCircusd) -> Callable[..., RunningPlugin]:
    """Runs a Flapping beside a watcher "Web"."""

    def run(watcher_options: dict[str, str] | None = None, **options: Any) -> RunningPlugin:
        fake_circusd.add_watcher("Web", **(watcher_options or {}))
        return run_plugin(Flapping, **{"retry_in": 0.01, "max_retry": 2, **options})

    return run


def die(plugin: RunningPlugin, *moments: float, exit_code: int = 1) -> None:
    for moment in moments:
        plugin.publish("web", "reap", process_pid=7, exit_code=exit_code, time=moment)


def sent(plugin: RunningPlugin, handled: int) -> list[str]:
    """The orders that have been given when so many events are handled, and a moment later."""
    plugin.wait_handled(handled, PATIENCE)
    plugin.plugin.call("numwatchers")  # what the loop was to do by then is done
    return [one.command for one in plugin.circusd.commands if one.command in ("stop", "start")]


def test_a_watcher_that_dies_too_often_is_stopped_and_started_again(
    play: Callable[..., RunningPlugin], fake_circusd: FakeCircusd, journal: Journal
) -> None:
    die(play(), 100.0, 101.0)
    journal.wait("Web: 2 processes died within 1 s")
    assert fake_circusd.wait_command("stop", name="Web").properties["match"] == "simple"
    journal.wait("Web is started again")
    assert fake_circusd.wait_command("start", name="Web").properties["match"] == "simple"


def test_after_so_many_tries_in_a_row_it_stays_stopped(
    play: Callable[..., RunningPlugin], journal: Journal
) -> None:
    plugin = play()
    for number in (1, 2):
        die(plugin, 100.0 * number, 100.0 * number + 1)
        journal.wait(f"try {number} in 0.01 s")
        journal.wait("Web is started again")
    die(plugin, 300.0, 301.0)
    assert journal.wait("given up after 2 tries").levelname == "ERROR"
    journal.wait("Web is stopped, and stays so")
    plugin.stop()
    assert plugin.circusd.status("Web") == "stopped"


def test_one_that_was_well_meanwhile_has_all_its_tries_again(
    play: Callable[..., RunningPlugin], journal: Journal
) -> None:
    plugin = play()
    for number in range(1, 5):
        die(plugin, 1000.0 * number, 1000.0 * number + 1)
        journal.wait("try 1 in 0.01 s")
        journal.wait("Web is started again")
        die(plugin, 1000.0 * number + 100, 1000.0 * number + 200)  # now and then, that is all


def test_with_any_number_of_tries_it_is_never_given_up(
    play: Callable[..., RunningPlugin], journal: Journal
) -> None:
    plugin = play(max_retry=-1)
    for number in range(1, 8):
        die(plugin, 100.0, 101.0)
        journal.wait(f"try {number} in 0.01 s")
        journal.wait("Web is started again")


def test_what_is_no_crash_does_not_count(play: Callable[..., RunningPlugin]) -> None:
    plugin = play(exit_codes="0, 3")
    die(plugin, 100.0, exit_code=0)
    die(plugin, 100.1, exit_code=3)
    for moment in (101.0, 101.5):
        plugin.publish("web", "kill", process_pid=7, time=moment)
        die(plugin, moment + 0.1, exit_code=-15)
    die(plugin, 102.0)
    assert sent(plugin, 7) == []


def test_deaths_far_from_each_other_are_let_pass(play: Callable[..., RunningPlugin]) -> None:
    plugin = play(window=10, retry_in=1000)
    die(plugin, 100.0, 115.1, 130.2)  # circusd's check_delay is 5
    assert sent(plugin, 3) == []
    die(plugin, 145.2)
    assert plugin.circusd.wait_command("stop", timeout=PATIENCE).properties["name"] == "Web"


def test_how_far_depends_on_circusds_check_delay(play: Callable[..., RunningPlugin]) -> None:
    plugin = play(window=10, retry_in=1000)
    plugin.plugin.check_delay = 1.0
    die(plugin, 100.0, 112.0)
    assert sent(plugin, 2) == []


@pytest.mark.parametrize(
    ("options", "orders"),
    [({"flapping.active": "no"}, []), ({"flapping.attempts": "4"}, []), ({}, ["stop"])],
)
def test_a_watcher_s_own_options_count(
    options: dict[str, str], orders: list[str], play: Callable[..., RunningPlugin]
) -> None:
    plugin = play(options, retry_in=1000)
    die(plugin, 100.0, 101.0)
    if orders:
        plugin.circusd.wait_command("stop", timeout=PATIENCE)
    assert sent(plugin, 2) == orders


@pytest.mark.parametrize("action", ["start", "remove"])
def test_what_somebody_has_started_or_removed_is_not_started_by_the_plugin(
    action: str, play: Callable[..., RunningPlugin], journal: Journal
) -> None:
    plugin = play(retry_in=1000)
    die(plugin, 100.0, 101.0)
    journal.wait("Web is stopped for 1000 s")
    plugin.wait(lambda _: plugin.plugin._pauses._paused, PATIENCE)
    plugin.publish("web", action)
    plugin.wait(lambda _: not plugin.plugin._pauses._paused, PATIENCE)
    plugin.stop()
    assert [one.command for one in plugin.circusd.commands if one.command == "start"] == []


def test_what_is_stopped_when_the_plugin_ends_is_started(
    play: Callable[..., RunningPlugin], journal: Journal
) -> None:
    plugin = play(retry_in=1000)
    die(plugin, 100.0, 101.0)
    journal.wait("Web is stopped for 1000 s")
    plugin.wait(lambda _: plugin.plugin._pauses._paused, PATIENCE)
    plugin.stop()
    assert plugin.circusd.status("Web") == "active"


def orders(plugin: RunningPlugin) -> list[str]:
    return [one.command for one in plugin.circusd.commands if one.command in ("stop", "start")]


def test_of_two_pauses_the_later_one_counts(play: Callable[..., RunningPlugin]) -> None:
    plugin = play(retry_in=10, clock="virtual")
    die(plugin, 100.0, 101.0)
    plugin.advance(5)
    die(plugin, 105.0, 106.0)
    plugin.advance(9)
    assert orders(plugin) == ["stop", "stop"]
    plugin.advance(1)
    assert orders(plugin) == ["stop", "stop", "start"]


def test_what_is_given_up_while_it_is_paused_stays_stopped(
    play: Callable[..., RunningPlugin],
) -> None:
    plugin = play(retry_in=10, max_retry=1, clock="virtual")
    die(plugin, 100.0, 101.0)
    plugin.advance(5)
    die(plugin, 105.0, 106.0)
    plugin.advance(100)
    plugin.stop()
    assert orders(plugin) == ["stop", "stop"]


def test_a_pause_that_could_not_be_made_anew_ends_when_it_was_to_end(
    play: Callable[..., RunningPlugin],
) -> None:
    plugin = play(retry_in=10, clock="virtual")
    die(plugin, 100.0, 101.0)
    plugin.advance(5)
    plugin.circusd.reply("stop", {"status": "error", "reason": "no", "errno": 3})
    die(plugin, 105.0, 106.0)
    plugin.advance(5)
    assert orders(plugin) == ["stop", "stop", "start"]


def test_a_start_that_circusd_has_no_time_for_is_sent_again_for_two_minutes_and_at_the_stop(
    play: Callable[..., RunningPlugin],
) -> None:
    plugin = play(retry_in=10, clock="virtual")
    plugin.circusd.reply("start", CONFLICT)
    die(plugin, 100.0, 101.0)
    plugin.advance(10 + 100)
    plugin.circusd.reply("start", {})
    plugin.circusd.clear()
    plugin.stop()
    assert orders(plugin) == ["start"]


def test_a_stop_that_circusd_has_no_time_for_is_sent_again(
    play: Callable[..., RunningPlugin],
) -> None:
    plugin = play(retry_in=1000, clock="virtual")
    plugin.circusd.reply("stop", CONFLICT)
    die(plugin, 100.0, 101.0)
    plugin.advance(100)
    plugin.circusd.clear()
    plugin.advance(10)
    assert "stop" in orders(plugin)


@pytest.mark.parametrize(
    ("reply", "given"),
    [
        ({}, ["stop", "start"]),
        ({"status": "error", "reason": "no", "errno": 3}, ["stop", "start", "start"]),
    ],
)
def test_at_the_stop_it_starts_what_could_not_be_started_and_nothing_else(
    reply: dict[str, Any], given: list[str], play: Callable[..., RunningPlugin]
) -> None:
    plugin = play(retry_in=10, clock="virtual")
    plugin.circusd.reply("start", reply)  # and no event tells of a start
    die(plugin, 100.0, 101.0)
    plugin.advance(10)
    plugin.stop()
    assert orders(plugin) == given


def test_no_pause_at_all_is_not_for_good(play: Callable[..., RunningPlugin]) -> None:
    plugin = play(retry_in=0, clock="virtual")
    die(plugin, 100.0, 101.0)
    plugin.advance(1)
    assert orders(plugin) == ["stop", "start"]


def test_at_the_stop_each_watcher_is_tried_even_if_circusd_is_gone(
    play: Callable[..., RunningPlugin], fake_circusd: FakeCircusd, journal: Journal
) -> None:
    fake_circusd.add_watcher("Other")
    plugin = play(retry_in=1000, clock="virtual")
    die(plugin, 100.0, 101.0)
    for moment in (100.0, 101.0):
        plugin.publish("other", "reap", process_pid=8, exit_code=1, time=moment)
    plugin.advance(1)
    fake_circusd.reply("start", {"status": "error", "reason": "no", "errno": 3}, name="Web")
    plugin.stop()
    journal.wait("Web stays stopped: start name='Web'")
    assert fake_circusd.status("Other") == "active"


def test_a_stop_waits_only_a_moment_for_a_circusd_that_says_nothing(
    play: Callable[..., RunningPlugin],
    fake_circusd: FakeCircusd,
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("circusplug.plugins._pause._LAST_TIMEOUT", 0.01)
    plugin = play(retry_in=1000, clock="virtual")
    die(plugin, 100.0, 101.0)
    plugin.advance(1)
    fake_circusd.silence("start")
    plugin.stop()
    journal.wait("Web stays stopped: start name='Web' match='simple': no reply within 0.01 s")


def test_one_whose_real_name_circusd_does_not_tell_is_stopped_by_the_name_in_events(
    play: Callable[..., RunningPlugin], fake_circusd: FakeCircusd
) -> None:
    plugin = play(retry_in=1000, clock="virtual")
    for command in ("list", "status"):
        fake_circusd.reply(command, {"status": "error", "reason": "no", "errno": 3})
    plugin.publish("other", "add")  # so that it has to ask for names again
    die(plugin, 100.0, 101.0)
    plugin.advance(1)
    assert fake_circusd.wait_command("stop").properties["name"] == "web"


def test_a_watcher_that_was_removed_begins_anew(play: Callable[..., RunningPlugin]) -> None:
    plugin = play(retry_in=1, max_retry=1, clock="virtual")
    die(plugin, 100.0, 101.0)
    plugin.advance(1)
    die(plugin, 102.0)
    plugin.publish("web", "remove")
    plugin.advance(0)
    assert plugin.plugin._last_crash == {}
    die(plugin, 103.0)  # the first death, and no tries were used up
    plugin.advance(1)
    assert orders(plugin) == ["stop", "start"]
    die(plugin, 104.0)
    plugin.advance(1)
    assert orders(plugin) == ["stop", "start"] * 2


def test_one_that_was_given_up_has_all_its_tries_again_when_it_is_started(
    play: Callable[..., RunningPlugin],
) -> None:
    plugin = play(retry_in=1, max_retry=1, clock="virtual")
    for moment in (100.0, 102.0, 104.0):
        die(plugin, moment, moment + 1)
        plugin.advance(1)
    assert orders(plugin) == ["stop", "start", "stop", "stop", "start"]


@pytest.mark.parametrize(("kill_grace", "given"), [(2, ["stop"]), (4, [])])
def test_for_how_long_a_signal_excuses_a_death_can_be_said(
    kill_grace: float, given: list[str], play: Callable[..., RunningPlugin]
) -> None:
    plugin = play(retry_in=1000, attempts=1, kill_grace=kill_grace, clock="virtual")
    plugin.publish("web", "kill", process_pid=7, time=100.0)
    die(plugin, 103.0)
    plugin.advance(1)
    assert orders(plugin) == given


def test_a_signal_from_before_circusd_came_back_excuses_no_death(
    play: Callable[..., RunningPlugin], fake_circusd: FakeCircusd
) -> None:
    plugin = play(retry_in=1000, attempts=1, clock="virtual")
    plugin.publish("web", "kill", process_pid=7, time=100.0)
    plugin.advance(1)
    fake_circusd.restart()
    plugin.advance(1)
    die(plugin, 103.0)
    plugin.advance(1)
    assert orders(plugin) == ["stop"]


def test_what_may_have_been_missed_is_not_counted(
    play: Callable[..., RunningPlugin], fake_circusd: FakeCircusd
) -> None:
    plugin = play()
    die(plugin, 100.0)
    plugin.wait_handled(1, PATIENCE)
    fake_circusd.restart()
    fake_circusd.wait_subscribed()
    die(plugin, 100.5)
    assert sent(plugin, 2) == []


CONFLICT = {"status": "error", "reason": "arbiter is already running watcher_stop", "errno": 5}


@pytest.mark.parametrize("command", ["stop", "start"])
def test_a_conflict_is_tried_again(
    command: str,
    play: Callable[..., RunningPlugin],
    fake_circusd: FakeCircusd,
    journal: Journal,
) -> None:
    fake_circusd.reply(command, CONFLICT, count=3)
    die(play(), 100.0, 101.0)
    journal.wait("Web is started again")
    fake_circusd.wait_command(command, count=4)
    assert fake_circusd.status("Web") == "active"


def test_a_conflict_without_end_is_told(
    play: Callable[..., RunningPlugin],
    fake_circusd: FakeCircusd,
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("circusplug.plugins._flapping.PATIENCE", 0)
    fake_circusd.reply("stop", CONFLICT)
    die(play(), 100.0, 101.0)
    journal.wait("Web was not stopped: stop name='Web'")


def test_a_name_that_looks_like_a_pattern_is_a_name(
    play: Callable[..., RunningPlugin], fake_circusd: FakeCircusd, journal: Journal
) -> None:
    fake_circusd.add_watcher("My App*")
    plugin = play()
    for moment in (100.0, 101.0):
        plugin.publish("My App*", "reap", process_pid=7, exit_code=1, time=moment)
    stop = fake_circusd.wait_command("stop", timeout=PATIENCE)
    assert stop.properties == {"name": "My App*", "match": "simple"}
    journal.wait("My App* is started again")
