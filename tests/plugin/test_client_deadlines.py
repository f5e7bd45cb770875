# Deadlines of a client's calls.

from __future__ import annotations

import pytest
from client_bench import SOON, Bench, Way, ask_in_vain

from circusplug import CallTimeout, CircusPlugError
from circusplug.testing import FakeCircusd

pytestmark = pytest.mark.usefixtures("the_owner_may_be_late", "clock_as_before")


def test_a_call_without_a_reply_fails_at_its_deadline(way: Way, fake_circusd: FakeCircusd) -> None:
    fake_circusd.silence("list")
    error = ask_in_vain(lambda timeout: way("list", timeout, name="web"))
    assert (error.command, error.retryable) == ("list", True)
    assert str(error) == f"list name='web': no reply within {error.timeout:g} s"
    assert isinstance(error, TimeoutError)
    assert isinstance(error, CircusPlugError)


def test_replies_to_others_do_not_move_a_deadline(
    way: Way, bench: Bench, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.garbage("list", count=None)
    for _ in range(3):
        with pytest.raises(CallTimeout):
            way("list", SOON)


@pytest.mark.parametrize("timeout", [0, -1.0])
def test_a_deadline_that_is_over_at_once_fails_the_call(
    timeout: float, way: Way, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.silence("list")
    with pytest.raises(CallTimeout):
        way("list", timeout)


@pytest.mark.parametrize("timeout", [float("inf"), 1e12])
def test_a_deadline_may_be_as_far_away_as_one_likes(
    timeout: float, way: Way, fake_circusd: FakeCircusd
) -> None:
    assert way("list", timeout)["watchers"] == []


def test_the_default_deadline_is_longer_for_a_command_that_waits_for_the_work(
    way: Way, fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug._plugin.calls.CALL_TIMEOUT", SOON)
    monkeypatch.setattr("circusplug._plugin.calls.WAITING_TIMEOUT", 2 * SOON)
    fake_circusd.silence()
    for properties, timeout in (({}, SOON), ({"waiting": False}, SOON), ({"waiting": True}, 0.1)):
        with pytest.raises(CallTimeout) as caught:
            way("incr", None, name="web", **properties)
        assert caught.value.timeout == timeout
