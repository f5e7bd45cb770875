# One plugin's way from state to state: how it starts and fails, with lives and a clock of the
# test's own. (test_managed_plugin_stops.py has how it stops.)

from __future__ import annotations

import itertools
import logging

import pytest
from plugin_bench import SINCE_1970, Bench

from circusplug._host.managed_plugin import READY_WAIT
from circusplug._runners.runner import Kind


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_its_status_has_what_is_known_of_its_life(bench: Bench) -> None:
    plugin = bench.make()
    plugin.last_error = "of the life before"
    plugin.start()
    waiting = plugin.status(lambda _: True)
    assert (waiting.state, waiting.last_error) == ("starting", "of the life before")
    assert (waiting.started, waiting.pid, waiting.connected) == (None, None, False)
    life = bench.launch()
    life.pid, life.thread, life.connected = 7, object(), True
    status = plugin.status(lambda _: True)
    assert (status.state, status.last_error) == ("starting", "of the life before")
    assert (status.name, status.use, status.isolated) == ("a", "m.A", False)
    assert (status.pid, status.thread, status.connected) == (7, life.thread, True)
    assert status.started == 1000.0 + SINCE_1970
    bench.tell(life, Kind.RUNNING)
    life.last_error = "its own"
    status = plugin.status(lambda runner: runner is life)
    assert (status.state, status.last_error) == ("stalled", "its own")
    assert plugin.status(lambda _: False).state == "running"
    plugin.stop()
    plugin.finish_stop()
    status = plugin.status(lambda _: True)
    assert (status.state, status.last_error, status.started) == ("stopped", "its own", None)


def test_the_counters_go_on_from_life_to_life(bench: Bench) -> None:
    plugin, first = bench.run()
    first.counters.received = 3
    plugin.restart()
    bench.tell(first, Kind.PARKED)
    second = bench.launch()
    assert second.counters.received == 3
    assert plugin.counters.restarts == 0


def test_it_has_settled_when_it_runs_or_its_start_takes_long(bench: Bench) -> None:
    plugin = bench.make()
    plugin.start()
    far = bench.now + 1e6
    assert not plugin.settled(far)
    assert plugin.settles_by() is None
    life = bench.launch()
    due = bench.now + READY_WAIT
    assert plugin.settles_by() == due
    assert [plugin.settled(at) for at in (bench.now, due - 0.1, due)] == [False, False, True]
    # One whose constructor has not begun has had no chance to subscribe.
    assert plugin.settles_by(imported=True) is None
    assert not plugin.settled(far, imported=True)
    bench.tell(life, Kind.BEGUN)
    assert plugin.settles_by(imported=True) == due
    assert plugin.settled(due, imported=True)
    bench.tell(life, Kind.RUNNING)
    assert plugin.settled(bench.now)
    plugin.restart()
    assert not plugin.settled(far)
    assert plugin.settles_by() is None


def test_it_is_alive_until_it_is_to_stop_and_over_when_nothing_more_happens(bench: Bench) -> None:
    plugin = bench.make()
    seen = [(plugin.is_alive, plugin.is_over)]
    plugin.start()
    seen.append((plugin.is_alive, plugin.is_over))
    life = bench.come_up()
    seen.append((plugin.is_alive, plugin.is_over))
    bench.tell(life, Kind.ENDED, "it died")
    seen.append((plugin.is_alive, plugin.is_over))
    bench.pass_time(1e6)
    bench.come_up()
    plugin.stop()
    seen.append((plugin.is_alive, plugin.is_over))
    plugin.finish_stop()
    seen.append((plugin.is_alive, plugin.is_over))
    alive, stopping, over = (True, False), (False, False), (False, True)
    assert seen == [over, alive, alive, alive, stopping, over]


def test_what_cannot_be_started_is_tried_again(bench: Bench) -> None:
    plugin = bench.make(restart_delay=8.0, start_timeout=5.0)
    bench.broken = OSError("no descriptors left")
    plugin.start()
    plugin_again = bench.queue.pop()
    plugin_again.launch()
    assert plugin.last_error == "cannot be started: OSError: no descriptors left"
    assert (plugin.state, bench.timer) == ("backoff", bench.now + 8.0)


def test_a_restart_comes_when_its_delay_is_over_and_is_counted(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    plugin, life = bench.run(restart_delay=8.0)
    bench.tell(life, Kind.ENDED, "it died")
    assert "a has failed: it died; it starts again in 8.0 s" in caplog.text
    assert bench.timer == bench.now + 8.0
    bench.pass_time(7.9)
    assert (plugin.state, plugin.counters.restarts, bench.queue) == ("backoff", 0, [])
    bench.pass_time(0.1)
    assert (plugin.state, plugin.counters.restarts, bench.queue) == ("starting", 1, [plugin])
    assert bench.timer is None
    bench.pass_time(100.0)
    assert bench.queue == [plugin]


def test_no_start_of_one_that_has_come_up_is_overdue(bench: Bench) -> None:
    for kind in (Kind.RUNNING, Kind.WAITING):
        plugin = bench.make(start_timeout=5.0)
        plugin.start()
        life = bench.launch()
        assert bench.timer == bench.now + 5.0
        bench.tell(life, kind)
        assert bench.timer is None
        assert plugin.begun
        bench.pass_time(100.0)
        assert plugin.state == kind.value


def test_a_start_that_takes_too_long_is_given_up_with_its_stack(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = bench.make(start_timeout=5.0, restart="never")
    plugin.start()
    life = bench.launch()
    bench.pass_time(4.9)
    assert plugin.state == "starting"
    bench.pass_time(0.1)
    assert "a is not initialised after 5 s; it is at\n  its stack" in caplog.text
    assert life.asked == ["start", "abandon"]
    assert bench.left_behind == [life]
    assert (plugin.state, plugin.last_error) == ("failed", "not initialised after 5 s")
    assert bench.timer is None


def test_a_start_that_has_come_through_unheard_is_not_given_up(bench: Bench) -> None:
    plugin = bench.make(start_timeout=5.0)
    plugin.start()
    life = bench.launch()
    life.running = True
    bench.pass_time(5.0)
    assert (plugin.state, bench.timer, life.asked) == ("starting", None, ["start"])


def test_a_start_that_misses_circusd_alone_has_its_time_again_and_again(bench: Bench) -> None:
    plugin = bench.make(start_timeout=5.0)
    plugin.start()
    life = bench.launch()
    life.awaits_circusd = True
    for _ in range(3):
        bench.pass_time(5.0)
        assert (plugin.state, bench.timer) == ("waiting", bench.now + 5.0)
    life.awaits_circusd = False
    bench.pass_time(5.0)
    assert plugin.state == "backoff"


def test_a_process_is_asked_before_its_start_is_given_up_each_time(bench: Bench) -> None:
    plugin = bench.make(isolate=True, start_timeout=5.0, restart="never")
    plugin.start()
    life = bench.launch()
    bench.pass_time(5.0)
    assert life.asked == ["start", "refresh"]
    assert bench.timer == bench.now + 1.0
    life.awaits_circusd = True
    bench.pass_time(1.0)
    assert (plugin.state, bench.timer) == ("waiting", bench.now + 5.0)
    bench.pass_time(5.0)
    assert life.asked == ["start", "refresh", "refresh"]
    life.awaits_circusd = False
    bench.pass_time(1.0)
    assert (plugin.state, life.asked[-1]) == ("failed", "abandon")


def test_a_new_life_has_all_the_time_to_start(bench: Bench) -> None:
    plugin = bench.make(isolate=True, start_timeout=5.0, restart_delay=0.0)
    plugin.start()
    first = bench.launch()
    bench.tell(first, Kind.BEGUN)
    bench.pass_time(5.0)
    bench.pass_time(1.0)  # given up
    bench.pass_time(0.0)
    second = bench.launch()
    assert not plugin.begun
    assert bench.timer == bench.now + 5.0
    bench.pass_time(5.0)
    assert second.asked == ["start", "refresh"]


def test_a_stall_in_its_process_is_counted_even_while_it_stops(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    plugin, life = bench.run(isolate=True, stall_timeout=2.5, on_stall="restart")
    plugin.stop()
    bench.tell(life, Kind.STALLED, "  where it hangs")
    assert (plugin.state, plugin.counters.stalls) == ("stopping", 1)
    assert life.asked == ["start", "begin_stop"]
    assert plugin.last_error == "stalled: a callback runs for more than 2.5 s"
    assert "a has been busy with one callback for 2.5 s; it is at\n  where it hangs" in caplog.text


@pytest.mark.parametrize("on_stall", ["report", "restart"])
def test_a_stall_in_its_process_ends_it_if_that_was_asked_for(bench: Bench, on_stall: str) -> None:
    plugin, life = bench.run(isolate=True, stall_timeout=2.5, on_stall=on_stall)
    bench.tell(life, Kind.STALLED)
    ended = on_stall == "restart"
    assert plugin.state == ("backoff" if ended else "running")
    assert life.asked == ["start", *(["abandon"] if ended else [])]
    assert plugin.last_error == "stalled: a callback runs for more than 2.5 s"
    assert bench.stalls_told == 1


@pytest.mark.parametrize(
    ("on_error", "state", "error"),
    [
        ("stop", "failed", "handle_recv: no good (host.on_error = stop)"),
        ("restart", "backoff", "handle_recv: no good"),
    ],
)
def test_too_many_errors_stop_it_first(bench: Bench, on_error: str, state: str, error: str) -> None:
    plugin, life = bench.run(on_error=on_error)
    bench.tell(life, Kind.TOO_MANY_ERRORS, "handle_recv: no good")
    assert (plugin.state, life.hands_over) == ("stopping", False)
    bench.tell(life, Kind.PARKED)
    assert (plugin.state, plugin.last_error) == (state, error)
    assert bench.gave_up == ([error] if state == "failed" else [])


@pytest.mark.parametrize("failure", [None, "left by sys.exit(3)"])
def test_one_that_stops_itself_has_failed_only_if_its_life_has(
    bench: Bench, failure: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        plugin, life = bench.run()
        bench.tell(life, Kind.STOP_ASKED)
        life.failure = failure  # which shows when it has ended
        bench.tell(life, Kind.PARKED)
    assert "a stops of its own accord" in caplog.text
    assert (plugin.state, plugin.last_error) == ("backoff" if failure else "stopped", failure)


def test_a_clean_end_that_is_followed_by_a_start_is_no_error(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    plugin, life = bench.run(restart="always", restart_delay=8.0)
    with caplog.at_level(logging.INFO):
        bench.tell(life, Kind.ENDED)
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        ("INFO", "a has ended; it starts again in 8.0 s")
    ]
    assert (plugin.state, plugin.last_error) == ("backoff", None)


def test_a_life_that_ends_by_itself_may_clean_up(bench: Bench) -> None:
    plugin, life = bench.run()
    bench.tell(life, Kind.ENDED, "it died")
    assert life.asked == ["start", "run_handle_stop"]
    assert plugin.runner is None


def test_what_would_fail_again_is_not_tried_again(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = bench.make(start_timeout=5.0)
    plugin.start()
    bench.tell(bench.launch(), Kind.ENDED, "'watcher' is missing", permanent=True)
    assert (plugin.state, plugin.is_over, bench.timer) == ("failed", True, None)
    assert bench.gave_up == ["'watcher' is missing"]
    assert "a has failed for good: 'watcher' is missing" in caplog.text


def test_how_often_it_has_failed_is_told_when_it_is_given_up(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = bench.make(max_restarts=2, restart_delay=0.0)
    plugin.start()
    for _ in itertools.takewhile(lambda _: plugin.state != "failed", range(9)):
        bench.tell(bench.launch(), Kind.ENDED, "it died")
        bench.pass_time(0.0)
    assert "a has failed for good after 3 failures: it died" in caplog.text
    assert bench.gave_up == ["it died"]


def test_of_one_failure_no_number_is_told(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    _, life = bench.run(max_restarts=0)
    bench.tell(life, Kind.ENDED, "it died")
    assert caplog.messages == ["a has failed for good: it died"]


def test_the_next_timer_is_the_first_that_is_due(bench: Bench) -> None:
    plugin, _ = bench.run()
    assert plugin.next_timer() is None
    plugin._restart_at, plugin._start_deadline, plugin._stop_due = 5.0, 3.0, 4.0
    assert plugin.next_timer() == 3.0
