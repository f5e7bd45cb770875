# What a host and an isolated plugin's process say to each other: all of it gets across, and nothing
# that a process could say does the host any harm.

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circusplug._config.host_options import HostOptions
from circusplug._isolated import messages
from circusplug._isolated.child_process import ChildProcess
from circusplug._isolated.messages import (
    ENTRIES,
    ERROR_LIMIT,
    LINE_LIMIT,
    ORDERS,
    REPORTS,
    decode,
    encode,
)
from circusplug._isolated.pipes import Pipes
from circusplug._plugin.status import Counters

ALL = (*ORDERS, *REPORTS, *ENTRIES)

STATE = messages.State(1, 2, 3, 4, 5, 6, 7, 8, 9, 0.5, 2.5, (1,) * 9, 7.5, True, False, "an error")
SAID = [
    messages.Stop(1.5),
    messages.AskState(),
    messages.AskStack(),
    messages.LogLevel(10),
    messages.Begun(),
    messages.Running(),
    messages.Waiting(),
    messages.TooManyErrors("é"),
    messages.Stalled("one\n  two"),
    messages.Parked(),
    STATE,
    dataclasses.replace(STATE, last_error=None),
    messages.Stack(""),
    messages.Saved("[1]"),
    messages.Ended(None, permanent=False, retry=True),
    messages.LogEntry("a.b", 40, 1.0, "text\nmore", "trace\nback"),
]

#: Values that a process could put anywhere.
TRICKS = [
    "1" + "0" * 400,
    "-1",
    "1.5",
    "1e999",
    "NaN",
    "-Infinity",
    "true",
    "null",
    '"text"',
    '"\\ud800\\u0000\\u001b[2J\\r"',
    "[]",
    "[" * 20_000,
    '{"kind": "Ended"}',
]


def test_each_message_has_an_example() -> None:
    assert {type(message) for message in SAID} == set(ALL)


@pytest.mark.parametrize("message", SAID, ids=lambda message: type(message).__name__)
def test_a_message_gets_across(message: Any) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode(line, ALL) == message


@pytest.mark.parametrize("message", SAID, ids=lambda message: type(message).__name__)
def test_whatever_stands_in_a_field_is_as_it_was_declared_or_makes_no_sense(message: Any) -> None:
    said = json.loads(encode(message))
    for name in said:
        for trick in TRICKS:
            line = json.dumps({**said, name: "TRICK"}).replace('"TRICK"', trick).encode()
            found = decode(line, ALL)
            if found is not None:
                assert_is_as_declared(found)
        assert (
            decode(json.dumps({key: said[key] for key in said if key != name}).encode(), ALL)
            is None
        )


def assert_is_as_declared(message: Any) -> None:
    for field in dataclasses.fields(message):
        value = getattr(message, field.name)
        if isinstance(value, str):
            value.encode()
            assert not set(value) & set("\0\x1b\r\x9b\u2028")
            assert field.type == "Text" or "\n" not in value
        elif value is None:
            assert "None" in str(field.type)
        elif isinstance(value, tuple):
            assert field.type == "LagCounts"
            assert [type(count) for count in value] == [int] * len(Counters().lag_counts)
        else:
            assert type(value).__name__ == field.type
            assert 0 <= value < 2**63


def test_reports_are_no_orders_and_the_other_way_round() -> None:
    assert decode(encode(messages.Stop(1.0)), REPORTS) is None
    assert decode(encode(messages.Running()), ORDERS) is None


def test_a_text_of_any_length_is_cut_to_a_line_that_the_host_keeps_together() -> None:
    line = encode(messages.LogEntry("x", 1, 1.0, "begin" + "é" * 1_000_000 + "end", ""))
    entry: Any = decode(line, ENTRIES)
    assert len(line) <= LINE_LIMIT
    assert entry.text.startswith("begin")
    assert entry.text.endswith("end")


def test_an_error_is_one_line_of_limited_length() -> None:
    report: Any = decode(encode(messages.TooManyErrors("two\nlines" + "x" * 10_000)), REPORTS)
    assert report.error.startswith("two lines")
    assert report.error.endswith("... (10009 characters)")
    assert len(report.error) <= ERROR_LIMIT


class Nobody:
    """Listens to a process, and does nothing."""

    def heard(self, report: Any) -> None:
        assert_is_as_declared(report)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("kind"), inner),
    max_leaves=20,
)
said_by_anybody = st.lists(
    st.binary()
    | st.sampled_from([encode(message) for message in SAID])
    | st.builds(
        lambda message, changed: (
            json.dumps({**json.loads(encode(message)), **changed}).encode() + b"\n"
        ),
        st.sampled_from(SAID),
        st.dictionaries(st.sampled_from(["kind", "error", "lag", "text", "level"]), json_like),
    )
    | st.sampled_from([trick.encode() + b"\n" for trick in TRICKS])
)


@given(said_by_anybody)
def test_no_bytes_whatsoever_make_the_reading_thread_raise(said: list[bytes]) -> None:
    process = ChildProcess("one", Pipes(), Nobody())  # type: ignore[arg-type]
    output = process._output
    for take in (process._hear, output.log_lines, output.print_lines):
        feed, end = output.lines_of(take)
        for data in said:
            feed(data)
        end()


def test_the_first_message_gets_across_in_pieces_of_any_size() -> None:
    launch = messages.Launch(
        HostOptions(), 1.0, ["path"], ["argv"], None, {"A": "b"}, 10, {}, b"x" * 1_000_000
    )
    sent = bytearray()
    messages.send_launch(sent.extend, launch)

    def receive(size: int) -> bytes:
        data = bytes(sent[: min(size, 1000)])
        del sent[: len(data)]
        return data

    assert messages.receive_launch(receive) == launch
    with pytest.raises(EOFError):
        messages.receive_launch(receive)


@pytest.mark.parametrize("counts", [[1] * 8, [1] * 10, [1] * 8 + [-1], [1] * 8 + [0.5], {}])
def test_lags_are_one_count_for_each_length(counts: Any) -> None:
    said = {**json.loads(encode(STATE)), "lag_counts": counts}
    assert decode(json.dumps(said).encode(), REPORTS) is None


def test_every_counter_that_a_process_keeps_is_told_to_its_host() -> None:
    hosts_own = {"restarts", "stalls"}
    counters = {field.name for field in dataclasses.fields(Counters)}
    assert {*messages.COUNTED, "lag", "lag_sum", "lag_counts"} == counters - hosts_own


def test_the_largest_state_that_can_be_handed_over_gets_across_whole() -> None:
    state = '"' * ((messages.STATE_LIMIT - 2) // 2)  # of which JSON makes twice as much, twice
    line = messages.encode_state(state)
    assert len(line) <= LINE_LIMIT
    saved: Any = decode(line, REPORTS)
    assert json.loads(saved.state) == state
    with pytest.raises(ValueError, match=f"{messages.STATE_LIMIT} are the limit"):
        messages.encode_state(state + "xx")
