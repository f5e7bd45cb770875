# What a host's plugins are as watchers: each field, and what each command asks of the host, which
# does nothing here.

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from typing import Any

import pytest
from still_host import StillHost, status

from circusplug._control.language import answer
from circusplug._control.plugin_watchers import COMMANDS, PluginWatchers, details, status_word
from circusplug._plugin.status import Counters


def ask(host: StillHost, command: str, **properties: Any) -> Any:
    watchers = PluginWatchers(host, "ipc:///here", "ipc:///told")
    return answer(COMMANDS, watchers, command, properties)


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ("running", "active"),
        ("stalled", "active"),
        ("starting", "starting"),
        ("waiting", "starting"),
        ("backoff", "starting"),
        ("stopping", "stopping"),
        ("stopped", "stopped"),
        ("inactive", "stopped"),
        ("failed", "stopped"),
        ("abandoned", "stopped"),
    ],
)
def test_each_state_is_one_of_circusds_words(state: str, word: str) -> None:
    assert status_word(state) == word


def test_details_tell_each_figure_under_its_own_name() -> None:
    counters = Counters()
    for number, field in enumerate(dataclasses.fields(counters), 1):
        if field.name != "lag_counts":
            setattr(counters, field.name, number)
    counters.lag_counts = (1, 2, 0, 0, 0, 0, 0, 0, 4)
    told = details(
        status(
            counters=counters,
            isolated=True,
            connected=True,
            last_error="it broke",
            started=time.time() - 1000,
        )
    )
    assert 1000 <= told.pop("uptime") < 1000 + 86400
    buckets = told.pop("lag_buckets")
    assert (buckets["0.001"], buckets["0.005"], buckets["+Inf"]) == (1, 3, 7)
    expected = dataclasses.asdict(counters)
    del expected["lag_counts"]
    assert told == {
        **expected,
        "use": "m.C",
        "state": "running",
        "isolated": True,
        "connected": True,
        "last_error": "it broke",
    }


def test_a_clock_that_was_set_back_makes_no_negative_uptime() -> None:
    assert details(status(started=time.time() + 1000))["uptime"] == 0
    told = details(status())
    assert (told["uptime"], told["connected"], told["isolated"]) == (None, False, False)


def test_a_process_is_told_with_its_number_its_start_and_its_class() -> None:
    host = StillHost(status(pid=os.getpid(), started=12.5))
    (info,) = ask(host, "stats", name="plugin:a")["info"].values()
    assert (info["pid"], info["wid"], info["started"]) == (os.getpid(), 1, 12.5)
    assert (info["cmdline"], info["use"]) == ("m.C", "m.C")


def test_the_figures_of_a_plugin_on_a_thread_are_that_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[object, ...]] = []
    watchers = PluginWatchers(StillHost(), "", "")
    monkeypatch.setattr(watchers.figures, "of", lambda *what: asked.append(what) or {})
    watchers.info(status(pid=7, thread=threading.current_thread()))
    watchers.info(status(pid=8))
    assert asked == [(7, threading.get_native_id(), "m.C"), (8, None, "m.C")]


@pytest.mark.parametrize(
    ("command", "fresh"),
    [
        ("stats", True),
        ("details", True),
        ("status", False),
        ("list", False),
        ("numprocesses", False),
    ],
)
def test_only_who_wants_figures_makes_isolated_plugins_tell_them(command: str, fresh: bool) -> None:
    host = StillHost(status(pid=os.getpid()))
    ask(host, command)
    ask(host, command, name="plugin:a")
    assert set(host.asked) == {fresh}


def test_globaloptions_tell_of_both_ends() -> None:
    assert ask(StillHost(), "globaloptions")["options"] == {
        "endpoint": "ipc:///here",
        "pubsub_endpoint": "ipc:///told",
        "check_delay": 7.0,
        "circusd_endpoint": "ipc:///commands",
        "circusd_pubsub_endpoint": "ipc:///events",
        "config": "x.ini",
        "multicast_endpoint": "",
        "pid": os.getpid(),
        "stats_endpoint": "",
    }


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        ("start", ("start", "a")),
        ("stop", ("stop", "a")),
        ("restart", ("restart", "a")),
        ("reload", ("restart", "a")),
        ("reloadconfig", "reload"),
        ("quit", "quit"),
    ],
)
def test_a_change_is_asked_of_the_host_and_answered_when_it_is_done_if_somebody_waits(
    command: str, asked: object
) -> None:
    host = StillHost(status("a"), status("b"))
    names = {"name": "plugin:a"} if isinstance(asked, tuple) else {}
    assert ask(host, command, **names) == {"status": "ok"}
    waiting = ask(host, command, waiting=True, **names)
    assert host.asked == [asked] * 2
    assert not waiting.done()
    host.done.set_result(None)
    assert waiting.result(0) == {"status": "ok"}


# Signals.


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *what: sent.append(what))
    return sent


@pytest.mark.parametrize(
    ("command", "properties", "number"),
    [
        ("kill", {}, signal.SIGTERM),
        ("kill", {"signum": "int"}, signal.SIGINT),
        ("signal", {"signum": 10, "pid": 7}, 10),
        ("signal", {"signum": "hup", "pid": "7"}, signal.SIGHUP),
    ],
)
def test_a_signal_goes_to_the_process(
    command: str, properties: dict[str, Any], number: int, killed: list[tuple[int, int]]
) -> None:
    host = StillHost(status(pid=7, isolated=True))
    assert ask(host, command, name="plugin:a", **properties) == {"status": "ok"}
    assert killed == [(7, number)]


def test_a_process_that_does_not_run_gets_none(killed: list[tuple[int, int]]) -> None:
    host = StillHost(status(state="stopped", isolated=True))
    reply = ask(host, "kill", name="plugin:a")
    assert (reply["errno"], reply["reason"]) == (3, "process None not found in 'plugin:a'")
    assert killed == []


def test_a_process_that_has_just_ended_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise ProcessLookupError(3, "No such process")

    monkeypatch.setattr(os, "kill", gone)
    reply = ask(StillHost(status(pid=7, isolated=True)), "kill", name="plugin:a")
    assert (reply["errno"], reply["reason"]) == (5, "command: No such process")
