# What a host under a stock circusd makes of its file and of what circusd has told it.
# (real_circusd/test_host_plugin.py runs it.)

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from circusplug import ConfigError, Host, HostConfig, HostError
from circusplug._host import host_plugin

ENDS = "tcp://127.0.0.1:7001", "tcp://127.0.0.1:7002"


class Told:
    """What is set up by a host, which goes on in this process."""

    def __init__(self) -> None:
        self.log: list[tuple[str, ...]] = []
        self.watched: list[tuple[Any, ...]] = []


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    told = Told()
    monkeypatch.setattr(host_plugin._logs, "configure", lambda *what: told.log.append(what))
    monkeypatch.setattr(sys, "argv", ["circus-plugin", "--log-output", "circus.log", "some.Class"])
    monkeypatch.setattr(sys, "path", sys.path[:])

    def watch(*what: Any) -> Any:
        told.watched.append(what)
        return contextlib.nullcontext("watched")

    monkeypatch.setattr(host_plugin, "watching_circusd", watch)
    return told


@contextlib.contextmanager
def hosting(path: object, ssh_server: str | None = None, **config: Any) -> Iterator[Host]:
    host = Host(*ENDS, 2.5, ssh_server, **{"config": str(path), "name": "plugin:cp", **config})
    try:
        yield host
    finally:
        host.loop.close()


def read(path: Path, text: str, ssh_server: str | None = None) -> HostConfig:
    path.write_text(text + "[plugin:one]\nuse = some.Class\n")
    with hosting(path, ssh_server) as host:
        return host._read()


def test_it_hosts_what_the_file_says_on_the_circusd_that_has_started_it(
    tmp_path: Path, told: Told
) -> None:
    circus = "[circus]\nendpoint = tcp://127.0.0.1:1\npubsub_endpoint = tcp://127.0.0.1:2\n"
    config = read(tmp_path / "a.ini", circus, "me@there")
    assert [spec.name for spec in config.plugins] == ["one"]
    assert (config.endpoint, config.pubsub_endpoint, config.ssh_server) == (*ENDS, "me@there")
    assert (config.check_delay, config.control) == (2.5, "auto")
    said = "[circus]\ncheck_delay = 7\nssh_server = other\n[circusplug]\ncontrol = off\n"
    config = read(tmp_path / "b.ini", said)
    assert (config.check_delay, config.control, config.ssh_server) == (7.0, "off", None)


@pytest.mark.parametrize(
    ("flags", "said", "log"),
    [
        ([], "", ("info", "circus.log", "text")),
        (["--log-level", "DEBUG"], "", ("DEBUG", "circus.log", "text")),
        (
            ["--log-level=error"],
            "[circus]\nloglevel = warning\n",
            ("warning", "circus.log", "text"),
        ),
        (["--log-level", "odd"], "", ("info", "circus.log", "text")),
        ([], "[circus]\nlogoutput = own.log\n", ("info", "own.log", "text")),
        ([], "[circusplug]\nlog_format = json\n", ("info", "circus.log", "json")),
    ],
)
def test_its_log_goes_where_its_file_says_or_else_where_circusd_s_goes(
    flags: list[str], said: str, log: tuple[str, ...], tmp_path: Path, told: Told
) -> None:
    sys.argv += flags
    read(tmp_path / "a.ini", said)
    assert told.log == [log]


def test_without_a_word_of_circusd_s_its_log_goes_to_its_standard_error(
    tmp_path: Path, told: Told
) -> None:
    sys.argv[1:] = []
    read(tmp_path / "a.ini", "")
    assert told.log == [("info", "-", "text")]


def test_its_file_may_be_in_the_home_directory(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.ini").write_text("[plugin:one]\nuse = some.Class\n")
    with hosting("~/a.ini") as host:
        assert len(host._read().plugins) == 1


def test_what_is_missing_is_said_of_the_section_that_it_is_missing_in(told: Told) -> None:
    with hosting("") as host, pytest.raises(ConfigError, match=r"^\[plugin:cp\]: 'config' is miss"):
        host._read()


class Arbiter:
    """Stands for the host's; how it goes is said by its class."""

    fails: Exception | None = None

    def __init__(self) -> None:
        self.stopped = 0
        self.failed: list[str] = []

    @classmethod
    def from_config(cls, config: HostConfig, **options: Any) -> Arbiter:
        assert options["reload"]() == config
        return cls()

    def start(self) -> None:
        if self.fails is not None:
            raise self.fails

    def stop(self) -> None:
        self.stopped += 1

    def fail(self, reason: str) -> None:
        self.failed.append(reason)


@pytest.mark.parametrize(
    ("name", "ssh_server", "watched"),
    [
        ("plugin:cp", None, [(ENDS[0], "plugin:cp")]),
        ("plugin:cp", "me@there", [(None, "plugin:cp")]),
        ("cp", None, []),
    ],
)
def test_it_watches_the_circusd_that_has_started_it(
    name: str,
    ssh_server: str | None,
    watched: list[tuple[Any, ...]],
    tmp_path: Path,
    told: Told,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host_plugin, "Arbiter", Arbiter)
    path = tmp_path / "a.ini"
    path.write_text("[plugin:one]\nuse = some.Class\n")
    with hosting(path, ssh_server, name=name) as host:
        host.stop()  # before it has begun
        host.start()
        assert host.loop.is_closed()
        assert [what[:2] for what in told.watched] == watched
        arbiter: Any = host._arbiter
        for *_, on_gone in told.watched:
            on_gone("circusd has ended")
            assert arbiter.failed == ["circusd has ended"]
        host.stop()
        host.stop()
        assert arbiter.stopped == 2


def test_its_failure_is_told_a_line_each_and_ends_it(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(host_plugin, "Arbiter", Arbiter)
    monkeypatch.setattr(Arbiter, "fails", HostError("first\nsecond"))
    path = tmp_path / "a.ini"
    path.write_text("[plugin:one]\nuse = some.Class\n")
    with hosting(path) as host:
        with pytest.raises(SystemExit) as ended:
            host.start()
        assert host.loop.is_closed()  # as its plugins have loops of their own
    assert ended.value.code == 1
    assert caplog.messages == ["first", "second"]
