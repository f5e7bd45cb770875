# Where the commands find plugins that are not installed.

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from circusplug._plugin.plugin_path import find_plugins_beside, find_plugins_here


def test_what_is_installed_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a file beside a circus.ini would take the place of any module that is imported."""
    before = [*sys.path]
    monkeypatch.setattr(sys, "path", [*before])
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    find_plugins_here()
    for _ in range(2):  # a file that is read again adds nothing
        find_plugins_beside(str(tmp_path / "circus.ini"), ["/more"])
    assert sys.path == [*before, str(tmp_path / "here"), str(tmp_path), "/more"]
