# What a reload touches, as far as two configurations tell.

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from circusplug._config.specs import HostConfig, PluginSpec
from circusplug._host.config_difference import difference, where_circusd_is

OLD = HostConfig((PluginSpec("a", "m.A"), PluginSpec("b", "m.B")))


@pytest.mark.parametrize(
    "said",
    [
        {"endpoint": "tcp://127.0.0.1:7001"},
        {"pubsub_endpoint": "tcp://127.0.0.1:7002"},
        {"check_delay": 1.0},
        {"ssh_server": "somewhere"},
    ],
    ids=str,
)
def test_what_every_plugin_is_told_concerns_them_all(said: dict[str, Any]) -> None:
    new = replace(OLD, **said)
    assert difference(OLD, new, (), ()).changed == new.plugins


def test_what_is_the_hosts_alone_concerns_no_plugin() -> None:
    new = replace(OLD, stop_timeout=1.0, loglevel="debug", exit_when_done=True)
    assert difference(OLD, new, (), ()).lines == []


@pytest.mark.parametrize(
    ("said", "elsewhere"),
    [
        ({"endpoint": "tcp://127.0.0.1:7001"}, True),
        ({"pubsub_endpoint": "tcp://127.0.0.1:7002"}, True),
        ({"ssh_server": "somewhere"}, True),
        ({"check_delay": 1.0, "stop_timeout": 1.0}, False),
    ],
    ids=str,
)
def test_where_circusd_is_depends_on_the_way_there(said: dict[str, Any], elsewhere: bool) -> None:
    assert (where_circusd_is(replace(OLD, **said)) != where_circusd_is(OLD)) is elsewhere


def test_of_what_concerns_a_plugin_the_most_is_done() -> None:
    a, b = OLD.plugins
    changed, new = replace(b, use="m.C"), PluginSpec("c", "m.C")
    todo = difference(OLD, HostConfig((new, changed)), ["b"], ["a", "b"])
    assert todo.lines == ["removed a", "changed b", "added c"]
    todo = difference(OLD, HostConfig((b, a, new)), ["a", "c"], ["a", "b", "c"])
    assert todo.lines == ["added c", "tried a again", "restarted b with edited code"]
