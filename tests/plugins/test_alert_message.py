# What people and programs read: the messages of Alert, their templates, and the last output.

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from circusplug import SpecError
from circusplug.plugins import Alert
from circusplug.plugins._message import make_alert, make_message
from circusplug.plugins._output import last_output
from circusplug.plugins._troubles import Trouble

CRASH = Trouble("crash", "web", "died", 1e9, {"pid": 7, "exit_code": -9, "deaths": None}, count=3)


def alert(name: str = "My App", trouble: Trouble = CRASH, output: list[str] | None = None) -> Any:
    return make_alert(trouble, name, "box", output or [])


def test_a_message_has_all_alerts_in_words_and_as_facts() -> None:
    alerts = [alert(), alert("db", Trouble("well_again", "db", "is well again"))]
    message = make_message(alerts, "{host}: {summary} ({count})", "{watcher}: {what}, {exit_code}")
    assert message.subject == "box: My App crashed, db is well again (2)"
    assert message.text == "My App: died (the last of 3), -9\ndb: is well again,"
    first, _ = json.loads(message.as_json())["alerts"]
    assert (first["watcher"], first["kind"], first["pid"], first["count"]) == (
        "My App", "crash", 7, 3
    )  # fmt: skip
    assert "deaths" not in first
    assert re.fullmatch(r"2001-09-0\d \d\d:\d6:40[+-]\d\d:\d\d", first["time"])
    assert not message.is_good


def test_a_subject_names_a_few_watchers_and_stays_one_line() -> None:
    message = make_message([alert(f"a\n{n}") for n in range(6)], "{summary}", "")
    assert message.subject == "a 0 crashed, a 1 crashed, a 2 crashed and 3 more"
    twice = make_message([alert(), alert(), alert("b")], "{watchers}: {kinds}", "")
    assert twice.subject == "My App, b: crash"


def test_the_output_is_set_off_in_the_text() -> None:
    message = make_message([alert(output=["one", "two\x1b[0m"])], "", r"{what}\n{output}")
    assert message.text == "died (the last of 3)\n    | one\n    | two?[0m"


def test_an_environment_takes_any_text_and_is_not_too_long_for_a_process() -> None:
    strange = Trouble("hook_failed", "w", "no \0 \ud800", 1e300, {"error": "\U0001f600" * 50_000})
    environment = make_message([alert("w\0", strange)], "{watchers}", "{error}").as_environment()
    assert environment["CIRCUSPLUG_WATCHER"] == "w?"
    assert environment["CIRCUSPLUG_WHAT"] == "no ? ?"
    assert environment["CIRCUSPLUG_ALERTS"] == "1"
    assert "CIRCUSPLUG_OUTPUT" not in environment
    assert max(len(value.encode()) for value in environment.values()) < 128 * 1024


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"subject": "{nme}"}, "'subject': there is no {nme}; there are {host}, {summary}, "),
        ({"text": "{what.__class__}"}, "'text': there is no {what.__class__}; there are {host}, "),
        ({"text": "{}"}, "'text': there is no {}; there are "),
        ({"text": "{what"}, "'text': '{what' cannot be filled in: expected '}' before end of "),
        ({"text": "{what:{x}}"}, "'text': '{what:{x}}' cannot be filled in: 'x'; write {{ for a "),
        ({"text": "{count:d}"}, "'text': '{count:d}' cannot be filled in: Unknown format code 'd'"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(options: dict[str, str], told: str) -> None:
    with pytest.raises(SpecError) as caught:
        Alert.check_config(options)
    assert str(caught.value).startswith(told)


# The last output


def stream(path: object) -> dict[str, Any]:
    return {"stdout_stream_conf": {"filename": path}, "stderr_stream_conf": None}


def test_the_last_lines_of_both_streams_are_read(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("".join(f"out {n}\n" for n in range(100_000)))
    (tmp_path / "err").write_bytes(b"oops \xff")
    options = {
        "stdout_stream_conf": {"filename": str(tmp_path / "out")},
        "stderr_stream_conf": {"filename": str(tmp_path / "err")},
    }
    assert last_output(options, 2) == ["out 99998", "out 99999", "oops �"]
    options["stderr_stream_conf"] = options["stdout_stream_conf"]
    assert last_output(options, 1) == ["out 99999"]


def test_only_so_much_of_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"x" * 1_000_000)
    (line,) = last_output(stream(str(tmp_path / "out")), 10)
    assert len(line) == 16 * 1024


def test_what_is_no_file_is_let_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # circusd may be anywhere else
    (tmp_path / "out.log").write_text("no\n")
    os.mkfifo(tmp_path / "fifo")  # to open it would wait for a writer
    for path in (tmp_path / "fifo", tmp_path, tmp_path / "none", "out.log", "/a\0b", "/dev/zero"):
        assert last_output(stream(str(path)), 10) == []
    for strange in (None, 5, [], {}):
        assert last_output(stream(strange), 10) == []
        assert last_output({"stdout_stream_conf": strange}, 10) == []
