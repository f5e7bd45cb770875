# What a reload touches, as far as two configurations tell.

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from circusplug._config.specs import HostConfig, PluginSpec
from circusplug._host.config_difference import difference

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
