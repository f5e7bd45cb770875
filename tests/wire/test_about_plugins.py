# Which commands are about plugins, too.

from __future__ import annotations

from typing import Any

import pytest

from circusplug._control.door import _MERGERS
from circusplug._wire.about_plugins import FOR_SEVERAL, is_about_plugins

MERGED = [*_MERGERS, *sorted(FOR_SEVERAL), "globaloptions", "quit", "reloadconfig"]


@pytest.mark.parametrize("command", MERGED)
def test_what_the_door_does_for_all_is_about_plugins_too(command: str) -> None:
    assert is_about_plugins(command, {})
    assert is_about_plugins(command.upper(), {"waiting": True})


@pytest.mark.parametrize("command", [*MERGED, "incr", "kill", "options", "absent"])
@pytest.mark.parametrize("name", ["plugin:one", "PLUGIN:One", "plugin:*"])
def test_what_names_a_plugin_is(command: str, name: str) -> None:
    assert is_about_plugins(command, {"name": name})


@pytest.mark.parametrize("command", sorted(FOR_SEVERAL))
@pytest.mark.parametrize(
    "properties",
    [{"name": "*"}, {"name": "p?ugin"}, {"name": "[a-z]"}, {"name": ".", "match": "regex"}],
)
def test_a_pattern_may_be(command: str, properties: dict[str, Any]) -> None:
    assert is_about_plugins(command, properties)


@pytest.mark.parametrize(
    ("command", "properties"),
    [
        *((command, {"name": "web"}) for command in MERGED),
        *((command, {"name": "web", "nb": 2}) for command in ("incr", "decr", "set", "kill")),
        ("options", {"name": "web*"}),  # a name there, whatever it holds
        ("add", {"name": "web", "cmd": "x"}),
        ("listsockets", {}),
        ("status", {"name": 5}),
        ("restart", {"name": ["plugin:one"]}),
    ],
)
def test_all_else_is_circusds_alone(command: str, properties: dict[str, Any]) -> None:
    assert not is_about_plugins(command, properties)
