# The types of declared options: what each reads, refuses, and how it is written.

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circusplug._config import option_types
from circusplug._config.option_types import bounded, kind_of
from circusplug.options import (
    Amount,
    Bytes,
    Command,
    Endpoint,
    Names,
    Percent,
    Regex,
    Seconds,
    Secret,
    Signal,
)

many = settings(max_examples=int(os.environ.get("CIRCUSPLUG_EXAMPLES", "50")))

KINDS: dict[str, Any] = {
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "Path": Path,
    "Amount": Amount,
    "Seconds": Seconds,
    "Bytes": Bytes,
    "Percent": Percent,
    "Names": Names,
    "Command": Command,
    "Regex": Regex,
    "Endpoint": Endpoint,
    "Signal": Signal,
    "method": Literal["GET", "head"],
    "codes": tuple[int, ...],
    "none or int": int | None,
}


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        ("bool", "Yes", True),
        ("bool", False, False),
        ("int", " 12 ", 12),
        ("int", -3, -3),
        ("float", "1e3", 1000.0),
        ("str", " a b ", "a b"),
        ("str", 7, "7"),
        ("str", Path("/a"), "/a"),
        ("Path", "/a/b", Path("/a/b")),
        ("Path", "~", Path.home()),
        ("Amount", "250M", Amount(bytes=250 * 1024**2)),
        ("Amount", "7B", Amount(bytes=7)),
        ("Amount", "90", Amount(percent=90.0)),
        ("Amount", "20 %", Amount(percent=20.0)),
        ("Amount", 0.5, Amount(percent=0.5)),
        ("Amount", Amount(bytes=1), Amount(bytes=1)),
        ("Seconds", "90", 90.0),
        ("Seconds", "1.5 min", 90.0),
        ("Seconds", "2h", 7200.0),
        ("Seconds", "250 ms", 0.25),
        *(("Seconds", f"2 {unit}", 2.0) for unit in ("s", "sec", "second", "seconds")),
        *(("Seconds", f"2{unit}", 120.0) for unit in ("m", "min", "minute", "Minutes")),
        *(("Seconds", f"2 {unit}", 7200.0) for unit in ("h", "hour", "hours")),
        *(("Seconds", f"3 {unit}", 3 * 86400.0) for unit in ("d", "day", "Days")),
        ("Seconds", 0.5, 0.5),
        ("Bytes", "16k", 16384),
        ("Bytes", 5, 5),
        ("Percent", "20 %", 20.0),
        ("Percent", 150, 150.0),
        ("Names", "a, b\nc,,", ("a", "b", "c")),
        ("Names", ["a b", "c"], ("a b", "c")),
        ("Names", "", ()),
        ("Command", "say 'a b' c", ("say", "a b", "c")),
        ("Command", ["say", 1], ("say", "1")),
        ("Regex", "a+", re.compile("a+")),
        ("Regex", re.compile("b", re.IGNORECASE), re.compile("b", re.IGNORECASE)),
        ("Endpoint", "ipc:///run/x", "ipc:///run/x"),
        ("Signal", "hup", signal.SIGHUP),
        ("Signal", 15, signal.SIGTERM),
        ("method", "get", "GET"),
        ("method", "HEAD", "head"),
        ("codes", "0, 2", (0, 2)),
        ("codes", (1, "3"), (1, 3)),
        ("none or int", "4", 4),
    ],
)
def test_text_and_typed_values_become_one_value(kind: str, given: Any, value: Any) -> None:
    assert kind_of(KINDS[kind]).read(given) == value


@pytest.mark.parametrize(
    ("kind", "given", "told"),
    [
        ("bool", "maybe", "'maybe' is not yes or no"),
        ("int", "few", "'few' is not a whole number"),
        ("int", 2.5, "2.5 is not a whole number"),
        ("float", "nan", "'nan' is not a number"),
        ("Path", "", "'' is not a path"),
        ("Amount", "much", "'much' is neither a size nor percent; write 250M or 20 %"),
        ("Amount", "-1", "'-1' is neither a size nor percent; write 250M or 20 %"),
        ("Seconds", "2 weeks", "'2 weeks' is not a number of seconds; write 90, 1.5 min or 2h"),
        ("Seconds", "-1", "'-1' is not a number of seconds of 0 or more"),
        ("Bytes", "0", "'0' is not a size of 1 byte or more; write 250K or 16M"),
        ("Percent", "8%0", "'8%0' is not a number of percent"),
        ("Percent", "inf", "'inf' is not a number of percent"),
        ("Percent", "-5 %", "'-5 %' is less than 0"),
        ("Command", "say 'a", '"say \'a" cannot be split into arguments: No closing quotation'),
        ("Regex", "(a", "'(a' is not a regular expression: missing ), unterminated subpattern"),
        ("Endpoint", "5555", "'5555' is no ZMQ endpoint; write tcp://HOST:PORT or ipc://PATH"),
        ("Signal", "SIGFOO", "'SIGFOO' is not a signal"),
        ("method", "gte", "'gte' is none of GET, head (did you mean 'get'?)"),
        ("codes", "0, x", "'x' is not a whole number"),
    ],
)
def test_what_does_not_fit_is_said_in_words(kind: str, given: Any, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        kind_of(KINDS[kind]).read(given)


@pytest.mark.parametrize("annotation", [dict, list[str], int | str, Literal[1, 2], tuple[int, int]])
def test_other_types_are_refused(annotation: Any) -> None:
    with pytest.raises(TypeError, match="an option cannot be"):
        kind_of(annotation)


WORD = st.text("abcXYZ019_.-*? é", min_size=1).map(str.strip).filter(bool)
VALUES = {
    "bool": st.booleans(),
    "int": st.integers(),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "Seconds": st.floats(0, 1e9),
    "Bytes": st.integers(1, 10**15 - 1),
    "Percent": st.floats(0, 1e9),
    "Amount": st.builds(Amount, bytes=st.integers(1, 10**15 - 1))
    | st.builds(Amount, percent=st.floats(0, 1e9)),
    "Names": st.lists(WORD).map(tuple),
    "Command": st.lists(st.text()).map(tuple),
    "Regex": st.sampled_from(["", "a+", r"^(?P<pid>.*);x$"]).map(re.compile),
    "Signal": st.sampled_from(list(signal.Signals)),
    "method": st.sampled_from(["GET", "head"]),
    "codes": st.lists(st.integers()).map(tuple),
}


@many
@given(st.sampled_from(sorted(VALUES)).flatmap(lambda k: st.tuples(st.just(k), VALUES[k])))
def test_a_value_that_is_written_is_read_as_the_same(pair: tuple[str, Any]) -> None:
    name, value = pair
    kind = kind_of(KINDS[name])
    assert kind.read(kind.show(value)) == value


@many
@given(
    st.sampled_from(sorted(KINDS)), st.text() | st.floats() | st.integers() | st.lists(st.text())
)
def test_whatever_is_given_is_read_or_refused_in_the_same_way(name: str, anything: Any) -> None:
    kind = kind_of(KINDS[name])
    try:
        value = kind.read(anything)
    except (TypeError, ValueError):
        return
    assert kind.read(value) == value


def test_bounds_are_told_and_kept() -> None:
    kind = bounded(kind_of(Seconds), None, 60, 0)
    assert kind.fits == "seconds, more than 0, at most 60"
    assert kind.read("1 min") == 60
    with pytest.raises(ValueError, match="'0' must be more than 0"):
        kind.read("0")
    with pytest.raises(ValueError, match="'2 min' is more than 60"):
        kind.read("2 min")
    with pytest.raises(TypeError, match="can have no minimum"):
        bounded(kind_of(str), 1, None, None)
    some = bounded(kind_of(int), 1, 3, None)
    assert [some.read(text) for text in "123"] == [1, 2, 3]
    with pytest.raises(ValueError, match="'0' is less than 1"):
        some.read("0")


class TestSecret:
    read = staticmethod(kind_of(Secret).read)

    def test_it_is_the_text_or_what_an_environment_variable_or_a_file_holds(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PASSWORD", "from env")
        monkeypatch.setenv("EMPTY", "")
        with pytest.raises(ValueError, match="no environment variable EMPTY, or it is empty"):
            self.read("env:EMPTY")
        (tmp_path / "secret").write_text("from file\n")
        found = map(self.read, ("plain", "env:PASSWORD", f"file:{tmp_path / 'secret'}"))
        assert list(found) == ["plain", "from env", "from file"]

    def test_its_file_may_be_at_home_and_not_without_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setattr(option_types, "_LONGEST_SECRET", 6)
        (tmp_path / "secret").write_text("secret")
        assert self.read("file:~/secret") == "secret"
        (tmp_path / "secret").write_text("secrets")
        with pytest.raises(ValueError, match="the file ~/secret is no secret: it has more than"):
            self.read("file:~/secret")
        with pytest.raises(ValueError, match="the file /dev/zero is no secret"):
            self.read("file:/dev/zero")

    def test_it_is_not_shown(self) -> None:
        assert repr(self.read("hush")) == "'****'"
        assert "hush" not in repr({"a": (self.read("hush"),)})
        several = kind_of(tuple[Secret, ...])
        assert several.secret
        assert "hush" not in repr(several.read("hush, more"))
        assert several.show(several.read("hush, more")) == "****, ****"

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ("env:NO_SUCH", "there is no environment variable NO_SUCH, or it is empty"),
            ("file:/no/such", "the file /no/such cannot be read: No such file or directory"),
            ("file:/", "the file / cannot be read: Is a directory"),
            ("file:/dev/null", "the file /dev/null is empty"),
        ],
    )
    def test_a_source_that_is_not_there_is_told(self, given: str, told: str) -> None:
        with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
            self.read(given)
