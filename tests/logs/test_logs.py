# Which plugin speaks, how much is logged, and where the log goes.

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import re
import socket
import threading
import warnings
from pathlib import Path

import pytest

from circusplug import ConfigError
from circusplug._logs import (
    PluginFilter,
    configure,
    parse_level,
    reopen,
    set_plugin_level,
    speaking,
)


def record(name: str) -> logging.LogRecord:
    return logging.LogRecord(name, logging.INFO, "", 0, "hello", None, None)


def plugin_of(each: logging.LogRecord) -> str:
    assert PluginFilter().filter(each)
    return str(each.plugin)  # type: ignore[attr-defined]  # what the filter has added


@pytest.mark.parametrize(
    ("logger", "speaker", "plugin"),
    [
        ("circusplug.plugin.logger", None, "logger"),
        ("circusplug.plugin.my.app", "other", "my.app"),
        ("somebody.library", "logger", "logger"),
        ("somebody.library", None, "somebody.library"),
        ("circusplug", None, "circusplug"),
    ],
)
def test_a_record_belongs_to_the_plugin_whose_logger_or_thread_it_is_of(
    logger: str, speaker: str | None, plugin: str
) -> None:
    with speaking(speaker):
        assert plugin_of(record(logger)) == plugin


def test_a_record_that_knows_its_plugin_keeps_it() -> None:
    each = record("circusplug.plugin.one")
    each.plugin = "another"
    assert plugin_of(each) == "another"


def test_each_thread_has_a_speaker_of_its_own_and_the_one_before_comes_back() -> None:
    heard: list[str] = []
    thread = threading.Thread(target=lambda: heard.append(plugin_of(record("library"))))
    with speaking("outer"):
        with contextlib.suppress(ZeroDivisionError), speaking("inner"):
            assert plugin_of(record("library")) == "inner"
            raise ZeroDivisionError
        assert plugin_of(record("library")) == "outer"
        thread.start()
        thread.join()
    assert heard == ["library"]
    assert plugin_of(record("library")) == "library"


@pytest.mark.parametrize(
    ("name", "number"),
    [("debug", 10), (" Info ", 20), ("WARNING", 30), ("error", 40), ("critical", 50)],
)
def test_a_level_goes_by_its_name_in_any_case(name: str, number: int) -> None:
    assert parse_level(name) == number


@pytest.mark.parametrize("name", ["", "loud", "20", "notset"])
def test_another_level_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(ConfigError, match="is none of debug, info, warning, error, critical"):
        configure(name)


_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d logger\[\d+\] \[INFO\] hello\n")


@pytest.mark.parametrize(("output", "stream"), [("-", "err"), ("", "err"), ("stdout", "out")])
def test_the_log_goes_to_a_standard_stream(
    output: str, stream: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("info", output)
    logging.getLogger("circusplug.plugin.logger").info("hello")
    logging.getLogger("circusplug.plugin.logger").debug("not this")
    captured = capsys.readouterr()
    assert _LINE.fullmatch(getattr(captured, stream))
    assert captured.out + captured.err == getattr(captured, stream)


def test_the_log_goes_to_a_file_and_a_second_configuration_replaces_the_first(
    tmp_path: Path,
) -> None:
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    configure("info", str(first))
    configure("debug", str(second))
    logging.getLogger("circusplug.plugin.logger").info("hello")
    assert first.read_text() == ""
    assert _LINE.fullmatch(second.read_text())
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, logging.handlers.WatchedFileHandler)  # for log rotation


def test_the_home_directory_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    configure("info", "~/host.log")
    assert (tmp_path / "host.log").exists()


def test_warnings_are_logged(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        configure("info", str(tmp_path / "host.log"))
        warnings.warn("careful", UserWarning, stacklevel=1)
        logging.captureWarnings(False)
    assert "careful" in (tmp_path / "host.log").read_text()


def test_the_log_goes_to_syslog_with_its_facility(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "log"))
        configure("info", f"syslog://{tmp_path}/log?daemon")
        logging.getLogger("circusplug.plugin.logger").info("hello")
        message = receiver.recv(1000)
    daemon, info = 3, 6
    assert message.startswith(f"<{8 * daemon + info}>".encode())
    assert message.endswith(b"[INFO] hello\x00")


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("syslog://127.0.0.1:5140", "127.0.0.1", 5140),
        ("syslog://127.0.0.1?user", "127.0.0.1", 514),
        ("syslog://:5140", "localhost", 5140),
    ],
)
def test_syslog_may_be_another_machines(url: str, host: str, port: int) -> None:
    configure("info", url)
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, logging.handlers.SysLogHandler)
    assert handler.address == (host, port)
    assert handler.facility == handler.LOG_USER


def test_syslog_without_a_place_is_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def look(path: str) -> None:
        looked.append(path)
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("circusplug._logging.handlers._look_for_syslog", look)
    with pytest.raises(ConfigError, match="cannot log to 'syslog://': No such file"):
        configure("info", "syslog://")
    assert looked == ["/dev/log"]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            "/no/such/directory/host.log",
            "cannot log to '/no/such/directory/host.log': No such file",
        ),
        ("/", "cannot log to '/': Is a directory"),
        ("syslog:///dev/log?nonsense", "no syslog facility 'nonsense'"),
        ("syslog://127.0.0.1:port", "cannot log to 'syslog://127.0.0.1:port'"),
        ("syslog:///dev/nosuch", "cannot log to 'syslog:///dev/nosuch': No such file"),
        ("syslog:///dev/null", "cannot log to 'syslog:///dev/null': Connection refused"),
    ],
)
def test_an_output_that_cannot_be_is_refused_and_the_log_stays_where_it_is(
    output: str, message: str, tmp_path: Path
) -> None:
    configure("info", str(tmp_path / "host.log"))
    before = logging.getLogger().handlers[:]
    with pytest.raises(ConfigError, match="'logoutput'") as caught:
        configure("info", output)
    assert message in str(caught.value)
    assert logging.getLogger().handlers == before


def test_a_log_file_that_cannot_be_opened_again_does_not_concern_those_who_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "logs" / "host.log"
    file.parent.mkdir()
    configure("info", str(file))
    file.unlink()
    file.parent.rmdir()
    logging.getLogger("circusplug").info("meanwhile")
    said = capfd.readouterr().err
    assert "meanwhile" in said
    assert f"(cannot log to {file}: No such file or directory)" in said
    file.parent.mkdir()
    logging.getLogger("circusplug").info("again")
    assert "again" in file.read_text()


def test_an_unknown_format_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="'log_format': 'xml' is none of text, json"):
        configure("info", "-", "xml")


def test_a_plugin_may_have_a_level_of_its_own_and_lose_it_again(tmp_path: Path) -> None:
    configure("info", str(tmp_path / "host.log"))
    chatty, quiet = (logging.getLogger(f"circusplug.plugin.{name}") for name in ("chatty", "quiet"))
    set_plugin_level("chatty", "debug")
    set_plugin_level("quiet", "Error")
    for logger in (chatty, quiet):
        logger.debug("debug")
        logger.warning("warning")
    set_plugin_level("chatty", None)
    set_plugin_level("quiet", None)
    chatty.debug("no more")
    logging.getLogger().setLevel(logging.WARNING)
    chatty.info("no more than the whole log")
    logging.getLogger().setLevel(logging.INFO)
    quiet.info("info")
    said = [line.split()[2:] for line in (tmp_path / "host.log").read_text().splitlines()]
    assert [(name.partition("[")[0], text) for name, _, text in said] == [
        ("chatty", "debug"),
        ("chatty", "warning"),
        ("quiet", "info"),
    ]
    with pytest.raises(ConfigError, match="'loud' is none of"):
        set_plugin_level("chatty", "loud")


def test_a_level_that_somebody_else_has_set_stays() -> None:
    logger = logging.getLogger("circusplug.plugin.theirs")
    set_plugin_level("theirs", "debug")
    set_plugin_level("theirs", None)
    logger.setLevel(logging.ERROR)
    set_plugin_level("theirs", None)
    assert logger.level == logging.ERROR


def test_the_log_file_is_opened_anew_at_once_when_that_is_asked_for(tmp_path: Path) -> None:
    log = tmp_path / "host.log"
    configure("info", str(log))
    logging.getLogger("circusplug").info("before")
    log.rename(tmp_path / "host.log.1")
    reopen()
    assert log.read_text() == ""
    logging.getLogger("circusplug").info("after")
    assert "before" in (tmp_path / "host.log.1").read_text()
    assert "after" in log.read_text()


def test_a_log_file_that_cannot_be_opened_anew_is_tried_again_with_the_next_record(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "logs" / "host.log"
    log.parent.mkdir()
    configure("info", str(log))
    log.parent.rename(tmp_path / "elsewhere")
    reopen()
    log.parent.mkdir()
    logging.getLogger("circusplug").info("after")
    assert "after" in log.read_text()
    assert capfd.readouterr().err == ""
