# How many deaths of a watcher's processes are too many.

from __future__ import annotations

from typing import Any

import pytest

from circusplug import Event
from circusplug.plugins._deaths import DeathWatch, Flap


def reap(moment: float, pid: int = 7, watcher: str = "web") -> Event:
    return Event(watcher, "reap", {"process_pid": pid, "exit_code": 1}, moment)


def kill(moment: float, pid: int = 7) -> Event:
    return Event("web", "kill", {"process_pid": pid}, moment)


class TestDeathWatch:
    def observe(self, *events: Event, attempts: int = 2) -> list[Flap]:
        watch = DeathWatch(kill_grace=60.0)
        crashes = [event for event in events if watch.is_crash(event)]
        return [flap for event in crashes if (flap := watch.count(event, attempts, 10.0))]

    def test_so_many_deaths_within_the_window_are_too_many(self) -> None:
        (flap,) = self.observe(reap(1), reap(5), reap(11), attempts=3)
        assert (flap.watcher, flap.deaths, flap.seconds) == ("web", 3, 10)

    def test_deaths_further_apart_are_not(self) -> None:
        assert not self.observe(reap(1), reap(5), reap(11.1), reap(15.1), attempts=3)

    def test_each_watcher_has_its_own_count(self) -> None:
        assert not self.observe(reap(1), reap(2, watcher="other"))

    def test_the_count_begins_anew_after_that(self) -> None:
        assert len(self.observe(reap(1), reap(2), reap(3))) == 1
        assert len(self.observe(reap(1), reap(2), reap(3), reap(4))) == 2

    def test_a_process_that_circusd_killed_did_not_die_by_itself(self) -> None:
        assert not self.observe(kill(1), reap(2), kill(3, 8), reap(4, 8), reap(5, 9))

    def test_only_the_killed_process_is_excused_and_only_once(self) -> None:
        assert self.observe(kill(1, 8), reap(2), reap(3))
        assert self.observe(kill(1), reap(2), reap(3), reap(4))

    def test_a_signal_that_a_process_survived_does_not_excuse_its_crash_later(self) -> None:
        assert self.observe(kill(1), kill(1, 8), reap(62), reap(62, 8))

    def test_a_new_process_with_an_old_number_is_not_excused(self) -> None:
        spawn = Event("web", "spawn", {"process_pid": 7}, 2)
        assert self.observe(kill(1), spawn, reap(3), reap(4, 8))

    def test_old_kills_are_forgotten(self) -> None:
        watch = DeathWatch(60.0)
        for moment in range(1000):
            watch.is_crash(kill(moment, pid=moment))
        assert len(watch._killed) == 61

    def test_a_clock_that_is_set_back_makes_no_alarm_and_does_not_stop_the_count(self) -> None:
        assert not self.observe(reap(100), reap(1))
        assert self.observe(reap(100), reap(1), reap(2))

    @pytest.mark.parametrize(
        ("code", "words"),
        [
            (3, "with exit code 3"),
            (-9, "of SIGKILL"),
            (-99, "of signal 99"),
            (None, "in a way that circusd did not see"),
        ],
    )
    def test_the_description_tells_how_the_last_one_died(self, code: Any, words: str) -> None:
        last = Event("my_app", "reap", {"process_pid": 7, "exit_code": code}, 5)
        text = Flap("my_app", 3, 4.0, last).describe("My App")
        assert text == f"My App: 3 processes died within 4 s, the last one (pid 7) {words}"
