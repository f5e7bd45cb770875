# Short names for `use`, which installed packages register.

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from circusplug import PluginLoadError, PluginSpec
from circusplug._plugin import short_names
from circusplug._plugin.load import load_plugin_class, module_of

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a distribution that registers names, and the module that they lead to."""
    (tmp_path / "short_named.py").write_text(
        "from circusplug import CircusPlugin\n"
        "class Probe(CircusPlugin):\n"
        "    def handle_recv(self, data): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(short_names, "_found", {})

    def install(package: str, **names: str) -> None:
        info = tmp_path / f"{package}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
        lines = [f"{name.replace('_', '-')} = {value}" for name, value in names.items()]
        text = "\n".join(["[circusplug.plugins]", *lines])
        (info / "entry_points.txt").write_text(text + "\n")

    yield install
    sys.modules.pop("short_named", None)


def test_a_registered_name_leads_to_its_class(install: Install) -> None:
    install("one", my_probe="short_named:Probe [extra]")
    assert load_plugin_class(" my-probe ").__name__ == "Probe"
    assert module_of(PluginSpec("a", "my-probe")) == "short_named"


def test_a_name_that_leads_nowhere_is_told(install: Install) -> None:
    install("one", probe="short_named:Prob")
    with pytest.raises(PluginLoadError) as caught:
        load_plugin_class("probe")
    assert str(caught.value) == (
        "'use' names probe, but module short_named has no 'Prob' (did you mean 'Probe'?)"
    )


def test_a_name_that_two_packages_have_is_refused(install: Install) -> None:
    install("one", probe="short_named:Probe")
    install("two", probe="other:Probe")
    with pytest.raises(PluginLoadError, match=r"several packages have it .*; write one of these"):
        load_plugin_class("probe")
    assert module_of(PluginSpec("a", "probe")) == ""


def test_a_name_that_nobody_has_is_no_dotted_name(install: Install) -> None:
    with pytest.raises(PluginLoadError, match="'use' names 'probe', which is no dotted name"):
        load_plugin_class("probe")
