# A circus.ini in the current directory, and what its one plugin gets of it.

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from fixture_types import Write

from circusplug._config.ini_file import load
from circusplug._config.specs import PluginSpec


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write files into the current directory, so that messages name them as a user would."""
    monkeypatch.chdir(tmp_path)

    def write_file(text: str, name: str = "circus.ini") -> Path:
        path = Path(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8", newline="")
        return path

    return write_file


@pytest.fixture
def plugin(write: Write) -> Callable[..., PluginSpec]:
    """Read the one plugin of a file from the lines of its section."""

    def read(lines: str, rest: str = "", environ: Mapping[str, str] | None = None) -> PluginSpec:
        path = write("[plugin:p]\nuse = a.B\n" + textwrap.dedent(lines) + "\n" + rest)
        return load(path, environ or {}).plugins[0]

    return read


@pytest.fixture
def config(plugin: Callable[..., PluginSpec]) -> Callable[..., dict[str, Any]]:
    """The same, and return what the plugin gets, without its name."""

    def read(*args: Any, **kwargs: Any) -> dict[str, Any]:
        found = dict(plugin(*args, **kwargs).config)
        assert found.pop("name") == "plugin:p"
        return found

    return read
