# Reading recordings: what is in them, and what is wrong with them.

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from recordings import HEAD, STARTED, event, figures, reap, write

from circusplug.testing import RecordingError
from circusplug.testing._recording import Back, End, Event, Figures, Options, Record, Recording


def read(path: Path) -> tuple[list[Record], list[str]]:
    warnings: list[str] = []
    with Recording(path, warnings.append) as recording:
        return list(recording), [one.removeprefix(f"{path}: ") for one in warnings]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_all_kinds_of_records(tmp_path: Path, name: str) -> None:
    odd = [base64.b64encode(part).decode() for part in (b"watcher.\xff.x", b"no json")]
    path = write(
        tmp_path / name,
        {"at": 0, "options": {"web": {"cmd": "x"}}, "globaloptions": {"check_delay": 1}},
        figures(0.5, web={"12": {"cpu": 1.0}}),
        event(1.25, "web", "spawn", process_pid=12),
        {"at": 2, "frames": odd},
        {"at": 3, "circusd": "back"},
        {"at": 3.5, "of a later": "program"},
        {"at": 4, "end": True},
    )
    records, warnings = read(path)
    payload = json.dumps({"time": STARTED + 1.25, "process_pid": 12}).encode()
    assert records == [
        Options(0.0, {"web": {"cmd": "x"}}, {"check_delay": 1}),
        Figures(0.5, {"web": "active"}, {"web": {"12": {"cpu": 1.0}}}, {}),
        Event(1.25, b"watcher.web.spawn", payload),
        Event(2.0, b"watcher.\xff.x", b"no json"),
        Back(3.0),
        End(4.0),
    ]
    assert warnings == []
    with Recording(path, warnings.append) as recording:
        assert (recording.started, recording.check_delay) == (STARTED, 1.0)


def test_an_event_is_the_same_however_its_line_is_laid_out(path: Path) -> None:
    line = json.dumps(event(1, "web", "reap", exit_code=1), separators=(",", ":"))
    write(path, event(1, "web", "reap", exit_code=1), line)
    (one, other), _ = read(path)
    assert one == other


def test_a_torn_last_line_is_read_over(path: Path) -> None:
    write(path, reap(1), reap(2))
    path.write_bytes(path.read_bytes()[:-20])
    records, warnings = read(path)
    assert [one.at for one in records] == [1.0]
    assert warnings == ["line 3: is torn, as by a crash"]


def test_a_torn_compressed_file_is_used_as_far_as_it_goes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gz", *(reap(at, pid=at) for at in range(2000)))
    path.write_bytes(path.read_bytes()[:-1000])
    records, (warning,) = read(path)
    assert 100 < len(records) < 2000
    assert f"line {len(records) + 2}: torn or damaged from here on" in warning


def test_what_is_no_record_is_left_out_and_counted(path: Path) -> None:
    wrong = [
        "",
        "[]",
        '{"at": 1}x',
        '{"event": 5, "at": 1}',
        '{"at": "x"}',
        '{"at": NaN, "end": 1}',
        '{"at": -1, "end": 1}',
        '{"at": 1e12, "end": 1}',
        '{"at": 1, "frames": ["?", "?"]}',
        '{"at": 1, "frames": ["AA==", 7]}',
        '{"at": 1, "frames": ["AA==", "A"]}',
        '{"at": 1, "options": {"web": 7}}',
        '{"at": 1, "status": []}',
        '{"at": 1, "event": "watcher.web.reap", "payload": {}x}',
        "[" * 100_000,
    ]
    write(path, reap(1), *wrong, reap(2))
    records, warnings = read(path)
    assert [one.at for one in records] == [1.0, 2.0]
    assert warnings == ["line 3: is no record; left out", f"{len(wrong)} lines cannot be read"]


def test_one_line_that_is_no_record_is_told_of_once(path: Path) -> None:
    assert read(write(path, "x"))[1] == ["line 2: is no record; left out"]
    assert len(read(write(path, reap(5), reap(3)))[1]) == 1


def test_a_file_that_was_continued_by_a_later_program_is_none(path: Path) -> None:
    write(path, reap(1), json.dumps({**HEAD, "version": 2}), reap(2))
    with pytest.raises(RecordingError, match="version 2"):
        read(path)


def test_a_clock_that_goes_back_stands(path: Path) -> None:
    write(path, reap(5), reap(3), reap(4), reap(6))
    records, warnings = read(path)
    assert [one.at for one in records] == [5.0, 5.0, 5.0, 6.0]
    assert warnings == [
        "line 3: the time goes back by 2 s; read as no time",
        "2 lines went back in time",
    ]


def test_a_file_that_was_continued_goes_on(path: Path) -> None:
    write(path, reap(1), json.dumps({**HEAD, "started": STARTED + 100}), reap(2))
    records, warnings = read(path)
    assert ([one.at for one in records], warnings) == ([1.0, 102.0], [])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is no recording"),
        (b"[circus]\n", "is no recording"),
        (b'{"recording": "other"}\n', "is no recording"),
        (b"\x1f\x8bnot gzip", "cannot be read"),
        (b'{"recording": "circusplug", "version": 2, "program": "circusplug 9"}\n', "version 2"),
        (b'{"recording": "circusplug", "version": 1, "started": "x"}\n', "'started' is no number"),
        (b'{"recording": "circusplug", "version": 1, "started": 1}\n', "'started' is no number"),
    ],
)
def test_what_is_no_recording_of_this_version_is_one_line(
    path: Path, content: bytes, says: str
) -> None:
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=says) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there(path: Path) -> None:
    with pytest.raises(RecordingError) as caught:
        read(path)
    assert str(caught.value) == f"{path}: No such file or directory"


def test_a_line_of_more_than_the_longest_is_no_record(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug.testing._recording._LONGEST", 2000)
    write(path, "x" * 5000, reap(2))
    records, warnings = read(path)
    assert [one.at for one in records] == [2.0]
    assert warnings[-1] == "3 lines cannot be read"
