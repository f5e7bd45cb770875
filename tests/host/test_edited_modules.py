# Which modules count as edited, and who waits while one is imported anew.

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest
from edited_files import Files, plugin
from members import in_thread

from circusplug import PluginSpec
from circusplug._plugin import edited_code, load
from circusplug._plugin.edited_code import find_edited, importing_anew, wait_until_imported


def test_a_script_s_own_classes_are_never_loaded_anew() -> None:
    assert find_edited(["__main__"], ["__main__"]) == set()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, ZeroDivisionError])
def test_whatever_ends_an_import_the_old_module_is_back_and_nobody_waits_any_more(
    error: type[BaseException], files: Files
) -> None:
    files.write("edited_pack/__init__.py", "")
    files.write("edited_pack/one.py", "")
    files.write("edited_pack/new.py", "")
    old = importlib.import_module("edited_pack.one")
    names = {"edited_pack.one"}

    def fail() -> None:
        importlib.import_module("edited_pack.new")
        raise error

    with pytest.raises(error), importing_anew(names):
        fail()
    assert sys.modules["edited_pack.one"] is sys.modules["edited_pack"].one is old
    assert "edited_pack.new" not in sys.modules
    assert not hasattr(sys.modules["edited_pack"], "new")
    in_thread(lambda: wait_until_imported("edited_pack.one"))
    with importing_anew(names):  # and the next one need not wait
        pass


def test_one_imports_anew_at_a_time(files: Files) -> None:
    files.write("edited_one.py", "")
    importlib.import_module("edited_one")
    with importing_anew({"edited_one"}):
        assert edited_code._one_at_a_time.locked()
        importlib.import_module("edited_one")
    with importing_anew(()):
        assert not edited_code._one_at_a_time.locked()


def test_a_file_that_was_removed_counts_as_edited(files: Files) -> None:
    files.write("edited_one.py", "import edited_two")
    files.write("edited_two.py", "")
    importlib.import_module("edited_one")
    edited_code.remember("edited_one")
    assert find_edited(["edited_one"], []) == set()
    (files.directory / "edited_two.py").unlink()
    assert find_edited(["edited_one"], []) == {"edited_one", "edited_two"}


@pytest.mark.parametrize(
    "text", ["\0", "(" * 10_000 + "1", "from ... import what", "from .what import it", "import ("]
)
def test_what_cannot_be_understood_imports_nothing(text: str, files: Files) -> None:
    files.write("edited_one.py", "")
    importlib.import_module("edited_one")
    edited_code.remember("edited_one")
    files.write("edited_one.py", text)
    assert find_edited(["edited_one"], []) == {"edited_one"}


def test_modules_that_are_none_are_passed_over(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd: Any = {"edited_odd": object(), "edited_none": None, "edited_list": [1]}
    for name, module in odd.items():
        monkeypatch.setitem(sys.modules, name, module)
    files.write("edited_one.py", "import edited_odd, edited_list")
    importlib.import_module("edited_one")
    edited_code.remember("edited_one")
    assert find_edited(["edited_one"], []) == set()


@pytest.mark.parametrize("library", ["site-packages", "dist-packages"])
def test_what_a_system_has_installed_is_nobody_s_to_edit(
    library: str, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(files.directory / library)
    files.write(f"{library}/edited_system.py", "")
    files.write("edited_one.py", "import edited_system")
    importlib.import_module("edited_one")
    edited_code.remember("edited_one")
    files.write(f"{library}/edited_system.py", "1")
    assert find_edited(["edited_one"], []) == set()


def test_where_nothing_is_imported_anew_nothing_is_remembered(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write("edited_once.py", "")
    module = importlib.import_module("edited_once")
    monkeypatch.setattr(edited_code, "_is_on", True)
    edited_code.turn_off()
    edited_code.remember("edited_once")
    assert module not in edited_code._hashes


def test_whoever_loads_a_plugin_waits_for_its_module_first(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[tuple[str, bool]] = []
    monkeypatch.setattr(
        load, "wait_until_imported", lambda name: waited.append((name, name in sys.modules))
    )
    files.write("edited_first.py", plugin("1") + "    handle_recv = print\n")
    load.load_checked(PluginSpec("a", "edited_first.Plugin"))
    assert waited == [("edited_first", False)]
