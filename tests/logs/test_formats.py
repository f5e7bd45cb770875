# What a record looks like: a plugin's traceback, one that cannot be shown, JSON, and lines for
# systemd's journal.

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from circusplug._errors import DESCRIPTION_LIMIT, describe
from circusplug._logging.formats import JournalFormatter, JsonFormatter
from circusplug._logs import Formatter, configure, plugin_stack, speaking


class Mute(Exception):
    """Cannot be shown in any way."""

    def __str__(self) -> str:
        raise SystemExit("no text")

    __repr__ = __str__


class Nameless(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise ZeroDivisionError


class Odd(Exception, metaclass=Nameless):
    pass


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("wrong"), "ValueError: wrong"),
        (ValueError(), "ValueError"),
        (ValueError("two\nlines\r\n\tand \u2028 more"), "ValueError: two lines and more"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (Mute(), "Mute (its text cannot be shown: SystemExit)"),
        (Odd("wrong"), "exception (its text cannot be shown: ZeroDivisionError)"),
        (None, "NoneType: None"),
    ],
)
def test_an_exception_is_described_in_one_line_whatever_it_is(error: object, text: str) -> None:
    assert describe(error) == text


def test_a_huge_text_is_cut() -> None:
    text = describe(ValueError("x" * 10_000_000))
    assert len(text) == DESCRIPTION_LIMIT
    assert text.startswith("ValueError: xxx")
    assert text.endswith("...")
    assert len(describe(type("Long" * 1000, (Exception,), {})())) == DESCRIPTION_LIMIT


def test_a_plugins_traceback_starts_in_the_plugin() -> None:
    from circusplug._loop.plugin_loop import PluginLoop

    def fail() -> None:
        raise ZeroDivisionError

    loop = PluginLoop()
    try:
        loop.run_sync(fail)
    except ZeroDivisionError:
        text = Formatter().formatException(sys.exc_info())
    finally:
        loop.close()
    assert "in fail" in text
    assert "ZeroDivisionError" in text


def test_the_hosts_own_calls_are_left_out_of_a_plugins_traceback() -> None:
    # A frame of the host's above one of a plugin's, made by compiling under their names.
    import circusplug

    ours = str(Path(circusplug.__file__).with_name("_worker.py"))
    place: dict[str, object] = {}
    exec(compile("def host(call):\n    call()\n", ours, "exec"), place)
    exec(compile("def plugin():\n    1 / 0\n", "/srv/plugins/mine.py", "exec"), place)
    own = {"__file__": ours}
    exec(compile("def bug():\n    1 / 0\n", ours, "exec"), own)
    formatter = Formatter()
    for callee, shown, hidden in (("plugin", "mine.py", "_worker.py"), ("bug", "_worker.py", "?")):
        try:
            place["host"](own[callee] if callee in own else place[callee])  # type: ignore[operator]
        except ZeroDivisionError as error:
            trace = error.__traceback__
            assert trace is not None
            # This test's own frame is a plugin's as much as any: leave it out.
            text = formatter.formatException((type(error), error, trace.tb_next))
        assert shown in text
        assert hidden not in text


def record(
    message: object, *arguments: object, error: BaseException | None = None
) -> logging.LogRecord:
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord(
        "circusplug", logging.ERROR, "/srv/mine.py", 7, message, arguments, exc_info
    )


@pytest.mark.parametrize("formatter", [Formatter(), JournalFormatter(Formatter()), JsonFormatter()])
@pytest.mark.parametrize(
    ("message", "arguments"), [("%s", (Mute(),)), ("%d", ("x",)), (Mute(), ()), ("%s", (1, 2))]
)
def test_what_cannot_be_shown_is_logged_as_that_and_where(
    formatter: logging.Formatter, message: object, arguments: tuple[object, ...]
) -> None:
    text = formatter.format(record(message, *arguments))
    assert "/srv/mine.py:7 logs what cannot be shown: " in text


@pytest.mark.parametrize("formatter", [Formatter(), JournalFormatter(Formatter()), JsonFormatter()])
def test_an_exception_that_cannot_be_shown_is_logged_with_its_traceback(
    formatter: logging.Formatter,
) -> None:
    try:
        raise Mute
    except Mute as error:
        text = formatter.format(record("it failed", error=error))
    assert "it failed" in text
    assert "Traceback" in text
    assert "raise Mute" in text


def test_an_exception_whose_traceback_cannot_be_shown_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = SyntaxError("wrong")
    error.text = 7  # type: ignore[assignment]  # which traceback does not expect
    error.lineno = "x"  # type: ignore[assignment]
    error.filename = "f"
    text = Formatter().formatException((SyntaxError, error, None))
    assert text.startswith("SyntaxError: wrong (")
    assert "(its traceback cannot be shown: " in text


def test_a_stack_starts_in_the_plugin() -> None:
    frames = {}
    reached, leave = threading.Event(), threading.Event()

    def plugin() -> None:
        reached.set()
        leave.wait()

    thread = threading.Thread(target=plugin)
    thread.start()
    reached.wait()
    try:
        frames = sys._current_frames()
        lines = plugin_stack(frames[thread.ident or 0]).splitlines()
    finally:
        del frames
        leave.set()
        thread.join()
    assert lines[0] == f'  File "{__file__}", line {plugin.__code__.co_firstlineno + 2}, in plugin'
    assert lines[-1].strip() in ("waiter.acquire()", "gotit = waiter.acquire()")


def test_a_stack_without_a_plugin_stays_whole_and_none_is_empty() -> None:
    leave = threading.Event()
    timer = threading.Thread(target=leave.wait)
    timer.start()
    try:
        while "in wait" not in (text := plugin_stack(sys._current_frames()[timer.ident or 0])):
            pass
    finally:
        leave.set()
        timer.join()
    assert "in _bootstrap" in text.splitlines()[0]
    assert plugin_stack(None) == ""


@pytest.fixture
def nepal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A place whose time is 5:45 hours ahead."""
    monkeypatch.setenv("TZ", "NPT-5:45")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_record_is_one_object_of_json(tmp_path: Path, nepal: None) -> None:
    configure("info", str(tmp_path / "host.log"), "json")
    logger = logging.getLogger("circusplug.plugin.logger")
    began = datetime.now().astimezone().replace(microsecond=0)
    logger.warning("two\nlines, é and \udcff")
    with speaking("other"):
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError:
            logging.getLogger("library").exception("it failed", stack_info=True)
    first, second = map(json.loads, (tmp_path / "host.log").read_text().splitlines())
    moment = datetime.fromisoformat(first.pop("time"))
    assert began <= moment <= datetime.now().astimezone()
    assert str(moment.tzinfo) == "UTC+05:45"
    message = "two\nlines, é and \udcff"
    pid = logging.getLogRecordFactory()("", 0, "", 0, "", (), None).process
    assert first == {"level": "warning", "plugin": "logger", "pid": pid, "message": message}
    assert (second["plugin"], second["level"]) == ("other", "error")
    assert second["message"] == "it failed"
    assert "ZeroDivisionError" in second["traceback"]
    assert "Stack (most recent call last)" in second["traceback"]


@pytest.mark.parametrize(
    ("level", "priority"), [(10, 7), (15, 7), (20, 6), (30, 4), (40, 3), (50, 2), (70, 2)]
)
def test_lines_for_the_journal_carry_their_priority(level: int, priority: int) -> None:
    each = logging.LogRecord("", level, "", 0, "two\nlines", None, None)
    assert JournalFormatter(Formatter()).format(each) == f"<{priority}>two\n<{priority}>lines"


@pytest.mark.parametrize("same", [True, False])
def test_only_what_the_journal_reads_is_for_the_journal(
    same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(tmp_path / "journal", "w+") as journal:
        status = (tmp_path if not same else Path(journal.name)).stat()
        monkeypatch.setattr(sys, "stderr", journal)
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        configure("info", "-")
        logging.getLogger("circusplug").warning("careful")
        configure("info", "-", "json")
        logging.getLogger("circusplug").warning("careful")
        journal.seek(0)
        text, data = journal.read().splitlines()
    assert text.startswith("<4>circusplug[") == same
    assert data.startswith("<4>") == same
    assert json.loads(data.removeprefix("<4>"))["message"] == "careful"
