# The table that `circusplug status` prints, and its exit status.

from __future__ import annotations

import contextlib
from typing import Any, cast

import pytest
import zmq

from circusplug._cli import status_table, steer
from circusplug._control.client import ControlClient, NotRunningError


def test_the_table_shortens_what_is_long() -> None:
    counters = {"handled": 1_234_567, "errors": 3, "restarts": 1, "lag": 0.0123}
    row = {"state": "running", "isolated": False, "pid": 1, "cpu": 12.34, **counters}
    plugins = {
        "a": {**row, "uptime": 59.9, "last_error": "first\nsecond " + "x" * 100},
        "b": {**row, "uptime": 3600.0, "last_error": None, "cpu": "N/A"},
        "c": {**row, "uptime": 90_000.0, "last_error": ""},
        "d": {**row, "uptime": None, "pid": None, "last_error": ""},
        "e": {**row, "uptime": 61.0, "last_error": ""},
    }
    lines = status_table.table(plugins).splitlines()
    assert "59s  1,234,567" in lines[1]
    assert lines[1].endswith("...")
    assert "first second" in lines[1]
    assert " 12 ms " in lines[1]
    assert "1h 00m" in lines[2]
    assert "-" in lines[2].split()
    assert "1d 1h" in lines[3]
    assert "12.3 %" in lines[3]
    assert "1m 01s" in lines[5]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (0.9, "0s"),
        (59.9, "59s"),
        (60, "1m 00s"),
        (3599, "59m 59s"),
        (3600, "1h 00m"),
        (86_399, "23h 59m"),
        (86_400, "1d 0h"),
        (10 * 86_400 + 7200, "10d 2h"),
    ],
)
def test_a_time_has_two_units(seconds: float | None, shown: str) -> None:
    assert status_table._duration(seconds) == shown


class Answers:
    """A host that answers what it is given."""

    def __init__(self, *states: str) -> None:
        self.plugins = {str(number): {"state": state} for number, state in enumerate(states)}

    def ask(self, command: str) -> dict[str, Any]:
        return {"plugins": self.plugins, "options": {}}


@pytest.mark.parametrize("state", ["failed", "abandoned", "stalled", "backoff"])
def test_the_exit_status_is_1_if_somebody_should_look_at_a_plugin(state: str) -> None:
    host = cast(ControlClient, Answers("running", state))
    assert steer._status(host, as_json=True, watch=False) == 1


def test_the_exit_status_is_0_if_all_is_as_it_was_asked_for() -> None:
    states = "inactive", "starting", "waiting", "running", "stopping", "stopped"
    host = cast(ControlClient, Answers(*states))
    assert steer._status(host, as_json=True, watch=False) == 0


def test_a_host_that_has_ended_is_no_refusal_of_a_plugin() -> None:
    class Ended:
        """A host that ends when it is asked."""

        def ask(self, command: str, **properties: Any) -> None:
            raise NotRunningError("it has ended")

    with pytest.raises(NotRunningError):
        steer._refusal(cast(ControlClient, Ended()), "stop", "a")


def test_what_has_come_before_the_end_of_the_host_is_shown() -> None:
    with zmq.Context() as context, contextlib.ExitStack() as stack:
        here, there, gone, last = (stack.enter_context(context.socket(zmq.PAIR)) for _ in range(4))
        for ours, theirs, place in ((here, there, "inproc://a"), (gone, last, "inproc://b")):
            ours.bind(place)
            theirs.connect(place)
        for number in (b"1", b"2"):
            there.send_multipart([b"topic", number])
        last.send(b"gone")
        assert list(steer._received(here, gone)) == [(b"topic", b"1"), (b"topic", b"2")]
