# What Alert takes for trouble, by events alone, and when it is told, by a clock that is a number.

from __future__ import annotations

from typing import Any

import pytest

from circusplug import Event
from circusplug.plugins._alert_options import AlertOptions
from circusplug.plugins._digest import Digest
from circusplug.plugins._troubles import Trouble, Troubles


def troubles(
    *events: tuple[str, float] | tuple[str, float, dict[str, Any]],
    watcher: str = "web",
    started: dict[str, str] | None = None,
    **options: Any,
) -> list[str]:
    """The kinds that some events tell of; a `status` of circusd's was there at time 0.5."""
    limits = AlertOptions(**{"exit_codes": (0,), "window": 10.0, **options})
    judge = Troubles(60.0, lambda _: limits)
    judge.begin({"web": "active"} if started is None else started, 0.5)
    found = []
    for action, moment, *payload in events:
        known = {"process_pid": 7} if action in ("reap", "kill", "spawn") else {}
        known |= {"exit_code": 1} if action == "reap" else {}
        event = Event(watcher, action, {**known, **(payload[0] if payload else {})}, moment)
        found += judge.take(event)
    return [trouble.kind for trouble in found]


class TestTroubles:
    def test_a_process_that_dies_by_itself_is_a_crash(self) -> None:
        assert troubles(("reap", 1)) == ["crash"]

    def test_one_that_circusd_has_signalled_is_none(self) -> None:
        assert troubles(("kill", 1), ("reap", 2)) == []

    def test_an_expected_exit_code_is_no_crash_and_counts_for_nothing(self) -> None:
        ends = [("reap", n, {"exit_code": 3}) for n in range(1, 9)]
        assert troubles(*ends, ("stop", 9), exit_codes=(0, 3)) == []

    def test_so_many_crashes_within_the_window_are_flapping(self) -> None:
        assert troubles(("reap", 1), ("reap", 2), ("reap", 30), attempts=3) == ["crash"] * 3
        kinds = troubles(("reap", 1), ("reap", 2), ("reap", 3), attempts=3)
        assert kinds == ["crash", "crash", "crash", "flapping"]

    def test_a_stop_right_after_a_crash_means_given_up(self) -> None:
        assert troubles(("reap", 1), ("stop", 11)) == ["crash", "gave_up"]

    def test_one_that_was_given_up_is_not_given_up_again_by_a_later_stop(self) -> None:
        lives = (("reap", 1), ("stop", 2), ("start", 3), ("stop", 4))
        assert troubles(*lives) == ["crash", "gave_up"]

    def test_a_crash_from_before_a_removal_says_nothing_of_a_stop(self) -> None:
        lives = (("reap", 1), ("remove", 2), ("add", 3), ("start", 4), ("stop", 5))
        assert troubles(*lives) == ["crash"]

    def test_it_is_said_whether_a_watcher_is_stopped_by_it(self) -> None:
        judge = Troubles(60.0, lambda _: AlertOptions(exit_codes=(0,), attempts=1, window=10.0))
        judge.begin({"web": "active"}, 0.5)
        reap = {"process_pid": 7, "exit_code": 1}
        crash, flapping = judge.take(Event("web", "reap", reap, 1))
        assert (flapping.facts["deaths"], flapping.facts["seconds"]) == (1, 0)
        (hook,) = judge.take(Event("web", "hook_failure", {}, 2))
        (gave_up,) = judge.take(Event("web", "stop", {}, 3))
        (late,) = judge.take(Event("web", "hook_failure", {}, 4))
        (failed,) = judge.take(Event("plugin:x", "failed", {}, 5))
        (died,) = judge.take(Event("plugin:x", "reap", {**reap, "process_pid": 8}, 6))
        assert not any(one.stopped for one in (crash, flapping, hook, died))
        assert all(one.stopped for one in (gave_up, late, failed))

    def test_a_stop_long_after_a_crash_means_nothing(self) -> None:
        assert troubles(("reap", 1), ("stop", 12)) == ["crash"]

    def test_a_stop_after_what_may_have_been_missed_means_nothing(self) -> None:
        judge = Troubles(60.0, lambda _: AlertOptions(exit_codes=(0,), window=10.0))
        judge.begin({"web": "active"}, 0.5)
        died = Event("web", "reap", {"process_pid": 7, "exit_code": 1}, 1)
        assert [trouble.kind for trouble in judge.take(died)] == ["crash"]
        judge.begin({"web": "active"}, 2)
        assert judge.take(Event("web", "stop", {}, 3)) == []

    def test_a_stop_of_what_has_not_started_is_a_start_that_failed(self) -> None:
        assert troubles(("stop", 1), ("stop", 2)) == ["start_failed"]
        assert troubles(("add", 1), ("stop", 2), started={}) == ["start_failed"]
        assert troubles(("stop", 1), started={"web": "stopped"}) == ["start_failed"]
        assert troubles(("stop", 1), ("start", 2), ("stop", 3)) == []

    def test_where_it_is_not_known_whether_it_has_started_nothing_is_said(self) -> None:
        assert troubles(("stop", 1), started={}) == []
        assert troubles(("stop", 1), ("remove", 2), ("stop", 3)) == []

    def test_a_stop_that_the_status_knew_of_already_is_no_start_that_failed(self) -> None:
        assert troubles(("stop", 0.4), started={"web": "stopped"}) == []
        assert troubles(("stop", 0.4), ("stop", 2), started={"web": "stopped"}) == ["start_failed"]

    def test_a_hook_that_fails_is_told_with_its_error(self) -> None:
        judge = Troubles(60.0, lambda _: AlertOptions())
        payload = {"name": "before_start", "error": "no\n disk" + "!" * 1000}
        (trouble,) = judge.take(Event("web", "hook_failure", payload, 1))
        assert trouble.what.startswith("its hook before_start failed: no disk!!!")
        assert len(trouble.what) < 600
        assert trouble.facts["hook"] == "before_start"

    @pytest.mark.parametrize(
        ("events", "kinds"),
        [
            ([("reap", 1)], ["plugin_failed"]),
            ([("reap", 1, {"exit_code": 0}), ("stop", 2)], []),
            ([("kill", 1), ("reap", 2, {"exit_code": -15}), ("stop", 2), ("stop", 3)], []),
            ([("failed", 1, {"error": "ValueError: x"})], ["plugin_failed"]),
            ([("stalled", 1), ("conflict", 1)], []),
        ],
    )
    def test_plugins_are_judged_by_themselves(self, events: Any, kinds: list[str]) -> None:
        assert troubles(*events, watcher="plugin:x", exit_codes=()) == kinds

    def test_strange_payloads_do_no_harm(self) -> None:
        strange = [None, "x", [], {}, 1e300, True]
        assert troubles(*[("reap", 1, {"exit_code": value}) for value in strange], attempts=99) == (
            ["crash"] * 6
        )
        assert troubles(*[("hook_failure", 1, {"name": value}) for value in strange]) == (
            ["hook_failed"] * 6
        )


def crash(watcher: str = "web", **more: Any) -> Trouble:
    return Trouble("crash", watcher, "died", 1.0, **more)


def told(digest: Digest, now: float) -> list[str]:
    return [f"{one.watcher} {one.kind} {one.count}" for one in digest.take_due(now)]


class TestDigest:
    def test_what_comes_within_the_batch_is_told_together(self) -> None:
        digest = Digest(batch=5, quiet=0, well_again=0)
        digest.take(crash("a"), 100)
        digest.take(crash("b"), 104)
        digest.take(crash("a"), 104.5)
        assert digest.next_due() == 105
        assert told(digest, 104.9) == []
        assert told(digest, 105) == ["a crash 2", "b crash 1"]
        assert digest.next_due() == float("inf")

    def test_the_same_again_within_the_quiet_time_is_told_once_at_its_end(self) -> None:
        digest = Digest(batch=0, quiet=60, well_again=0)
        digest.take(crash(), 100)
        assert told(digest, 100) == ["web crash 1"]
        for moment in (101, 110, 159):
            digest.take(crash(), moment)
            assert told(digest, moment) == []
        assert digest.next_due() == 160
        assert told(digest, 160) == ["web crash 3"]
        digest.take(crash(), 161)  # and it is quiet again
        assert told(digest, 219) == []
        assert told(digest, 220) == ["web crash 1"]
        digest.take(crash(), 281)
        assert told(digest, 281) == ["web crash 1"]

    def test_other_kinds_and_watchers_are_not_held_back(self) -> None:
        digest = Digest(batch=0, quiet=60, well_again=0)
        digest.take(crash(), 100)
        told(digest, 100)
        digest.take(crash(), 101)
        digest.take(crash("other"), 101)
        digest.take(Trouble("flapping", "web", "flaps"), 101)
        assert told(digest, 101) == ["other crash 1", "web flapping 1"]

    def test_given_up_is_told_only_if_no_start_comes(self) -> None:
        digest = Digest(batch=0, quiet=0, well_again=0)
        gave_up = Trouble("gave_up", "web", "was stopped", stopped=True)
        digest.take(gave_up, 100, wait=60)
        digest.note("web", "start", 107)
        assert digest.next_due() == float("inf")
        digest.take(gave_up, 200, wait=60)
        digest.take(crash("other"), 201)
        assert told(digest, 201) == ["other crash 1"]
        assert told(digest, 260) == ["web gave_up 1"]

    def test_what_is_held_back_does_not_wait_for_a_batch_as_well(self) -> None:
        digest = Digest(batch=5, quiet=60, well_again=0)
        digest.take(crash(), 100)
        assert told(digest, 105) == ["web crash 1"]
        digest.take(crash(), 106)
        assert digest.next_due() == 165

    def test_given_up_is_not_told_of_what_was_removed(self) -> None:
        digest = Digest(batch=0, quiet=0, well_again=0)
        digest.take(Trouble("gave_up", "web", "was stopped", stopped=True), 100, wait=60)
        digest.note("web", "stop", 101)
        assert digest.next_due() == 160
        digest.note("web", "remove", 102)
        assert digest.next_due() == float("inf")

    def test_what_waits_for_a_batch_goes_with_what_is_well(self) -> None:
        digest = Digest(batch=5, quiet=0, well_again=60)
        digest.take(crash("a"), 100)
        told(digest, 105)
        digest.take(crash("b"), 159)
        assert told(digest, 160) == ["b crash 1", "a well_again 1"]

    def test_what_is_well_is_told_once_and_not_of_what_nobody_heard_of(self) -> None:
        digest = Digest(batch=0, quiet=0, well_again=60)
        digest.take(crash(), 100)
        told(digest, 100)
        assert told(digest, 160) == ["web well_again 1"]
        digest.take(Trouble("gave_up", "web", "was stopped", stopped=True), 200, wait=60)
        digest.note("web", "start", 210)
        assert told(digest, 1000) == []

    def test_well_again_comes_so_long_after_the_last_trouble_and_once(self) -> None:
        digest = Digest(batch=0, quiet=1000, well_again=60)
        digest.take(crash(), 100)
        told(digest, 100)
        digest.take(crash(), 130)
        assert told(digest, 189) == []
        assert told(digest, 190) == ["web crash 1", "web well_again 1"]
        assert told(digest, 5000) == []

    def test_a_watcher_that_is_stopped_is_not_well_until_it_was_started(self) -> None:
        digest = Digest(batch=0, quiet=0, well_again=60)
        digest.take(crash(), 100)
        told(digest, 100)
        digest.note("web", "stop", 101)
        assert digest.next_due() == float("inf")
        digest.note("web", "start", 500)
        assert told(digest, 560) == ["web well_again 1"]

    def test_one_that_could_not_be_started_is_not_well_until_it_was(self) -> None:
        digest = Digest(batch=0, quiet=0, well_again=60)
        digest.take(Trouble("start_failed", "web", "did not start", stopped=True), 100)
        assert told(digest, 100) == ["web start_failed 1"]
        assert digest.next_due() == float("inf")
        digest.note("web", "start", 500)
        assert told(digest, 560) == ["web well_again 1"]

    def test_one_whose_trouble_nobody_was_told_of_is_not_well_again(self) -> None:
        digest = Digest(batch=0, quiet=0, well_again=60)
        digest.take(Trouble("gave_up", "web", "was stopped", stopped=True), 100, wait=60)
        digest.note("web", "start", 110)
        assert told(digest, 170) == []

    def test_a_watcher_that_is_removed_leaves_nothing(self) -> None:
        digest = Digest(batch=0, quiet=60, well_again=60)
        digest.take(crash(), 100)
        told(digest, 100)
        digest.note("web", "remove", 110)
        assert told(digest, 1000) == []
        left = digest._held, digest._quiet_until, digest._well_at, digest._told_of
        assert not any(left)

    def test_memory_does_not_grow_with_the_number_of_troubles(self) -> None:
        digest = Digest(batch=10, quiet=60, well_again=60)
        for number in range(10_000):
            digest.take(crash(), number / 1000)
        assert len(digest._held) == 1
        assert told(digest, 10) == ["web crash 10000"]

    def test_what_is_left_at_a_stop_is_what_is_sure(self) -> None:
        digest = Digest(batch=10, quiet=0, well_again=0)
        digest.take(crash(), 1)
        digest.take(Trouble("gave_up", "web", "was stopped"), 1, wait=60)
        assert digest.rest() == [crash()]
