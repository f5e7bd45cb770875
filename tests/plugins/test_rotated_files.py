# When a file of lines is begun anew by time, and that it goes on where that cannot be done.

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path

import pytest

from circusplug.plugins._linefile import Every, RotatedFile, open_file

LOGGER = logging.getLogger("circusplug.test")


pytestmark = pytest.mark.usefixtures("utc")


@pytest.mark.parametrize(("every", "seconds"), [("hour", 3600), ("day", 86400), ("week", 604800)])
def test_it_is_due_after_an_hour_or_at_midnight_or_as_a_monday_begins(
    every: Every, seconds: int, tmp_path: Path
) -> None:
    file = open_file(str(tmp_path / "log"), 1, None, every, LOGGER)
    assert isinstance(file, RotatedFile)
    due = file._handler.rolloverAt  # type: ignore[union-attr]
    assert 0 < due - time.time() <= seconds
    if every == "hour":
        assert due - time.time() > 3000
    else:
        assert time.gmtime(due)[3:6] == (0, 0, 0)
    if every == "week":
        assert time.gmtime(due).tm_wday == 0
    file.close()


def test_each_time_that_it_cannot_be_begun_anew_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = RotatedFile(str(tmp_path / "log"), 1, 1, "never", LOGGER)
    for _ in range(2):
        (tmp_path / "log.1" / "in the way").mkdir(parents=True)
        file.write(b"a")
        file.write(b"b")
        file.write(b"c")
        shutil.rmtree(tmp_path / "log.1")
        file.write(b"d")
        (tmp_path / "log.1").unlink()
    file.close()
    assert caplog.text.count("cannot begin a new file, the old one grows") == 2
    assert (tmp_path / "log").read_text() == "d\n"


def test_a_file_may_be_given_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = RotatedFile("~/log", 1, 1, "never", LOGGER)
    file.write(b"a")
    file.write(b"b")
    file.close()
    assert [(tmp_path / name).read_text() for name in ("log", "log.1")] == ["b\n", "a\n"]
