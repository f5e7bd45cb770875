# What is remembered of watchers' own options, and when it is forgotten; a plugin of the test's own
# stands for circusd's answers.

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import pytest

from circusplug import CallError
from circusplug._config.declared import Declared
from circusplug._errors import COMMAND_ERROR, MESSAGE_ERROR
from circusplug._plugin.watcher_options import WatcherOptions
from circusplug.options import declare, option


@dataclass(frozen=True)
class LimitOptions:
    most: int = option(3, meaning="how many", per_watcher=True)


class Plugin:
    """What is asked of a plugin."""

    name = "limit"
    logger = logging.getLogger("circusplug.plugin.limit")

    def __init__(self, given: Any = None, error: CallError | None = None) -> None:
        self.given = given
        self.error = error
        self.asked: list[str] = []

    def _watch_topics(self) -> None:
        pass

    def _subscription(self) -> tuple[list[bytes], bool]:
        return [b"watcher."], False

    def watcher_name(self, watcher: str) -> str:
        return watcher

    def call(self, command: str, name: str) -> dict[str, Any]:
        self.asked.append(name)
        if self.error is not None:
            raise self.error
        return {command: self.given}


@dataclass(frozen=True)
class PlainOptions:
    most: int = option(3, meaning="how many")


def made(plugin: Plugin, of: type = LimitOptions) -> WatcherOptions:
    declared: Any = declare(of)
    assert isinstance(declared, Declared)
    return WatcherOptions(plugin, declared, of())


def test_circusd_is_not_asked_for_what_no_watcher_can_have() -> None:
    plugin = Plugin({"limit.most": "5"})
    assert made(plugin, PlainOptions).of("web") == PlainOptions()
    assert plugin.asked == []


@pytest.mark.parametrize(
    ("topic", "asked"),
    [
        *((f"watcher.web.{action}", ["db", "web", "web"])
          for action in ("updated", "add", "start", "stop", "remove")),
        *((f"watcher.web.{action}", ["db", "web"]) for action in ("spawn", "reap", "kill")),
        ("", ["db", "web", "db", "web"]),
    ],
)  # fmt: skip
def test_what_may_have_changed_is_asked_for_again_and_nothing_else(
    topic: str, asked: list[str]
) -> None:
    plugin = Plugin({"limit.most": "5"})
    options = made(plugin)
    for _ in range(2):
        assert [options.of(name).most for name in ("db", "Web")] == [5, 5]
    options.observe(topic.encode())
    assert [options.of(name).most for name in ("db", "WEB")] == [5, 5]
    assert plugin.asked == asked


@pytest.mark.parametrize("given", [None, 7, ["limit.most"], "limit.most"])
def test_an_answer_that_is_none_leaves_the_plugin_s_own(given: Any) -> None:
    assert made(Plugin(given)).of("web") == LimitOptions()


@pytest.mark.parametrize(("errno", "told"), [(MESSAGE_ERROR, 0), (COMMAND_ERROR, 1)])
def test_a_watcher_that_circusd_does_not_know_is_nothing_to_tell_of(
    errno: int, told: int, caplog: pytest.LogCaptureFixture
) -> None:
    error = CallError("options", {}, "program web not found", errno=errno)
    assert made(Plugin(error=error)).of("web") == LimitOptions()
    assert caplog.text.count("the options of web are not known") == told


def test_each_watcher_s_mistake_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    options = made(Plugin({"limit.most": "few"}))
    for name in ("web", "db"):
        assert options.of(name) == LimitOptions()
        assert f"watcher {name}: 'limit.most': 'few' is not a whole number" in caplog.text
