# Migrations that are refused, or cannot be carried out: what is told, and that nothing is changed.

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from circus.config import get_config
from fixture_types import Write
from migrations import BACKUP, MIXED, files, migrate, problems

from circusplug._errors import ConfigError
from circusplug._migrate import ini_edit
from circusplug._migrate import plan as plan_module
from circusplug._migrate.plan import apply, plan

# Circus warns of a fruitless include by a logger method that is deprecated itself.
pytestmark = pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated")


def test_a_migrated_file_is_not_migrated_again(write: Write) -> None:
    path = write()
    migrate(path)
    assert problems(lambda: plan(path)) == (
        f"{BACKUP}: exists already; undo that migration first, or move the file away",
        "plugins.ini: exists already; choose another file for the plugins",
        "circus.ini:8: [plugin:circusplug]: runs circusplug.Host: this file is migrated already",
    )


def test_a_file_without_plugins_is_not_migrated(write: Write) -> None:
    path = write("[watcher:x]\ncmd = y\n[plugin:empty]\n")
    assert problems(lambda: plan(path)) == (
        "circus.ini: has no plugin section; there is nothing to migrate",
    )


def test_a_wrong_file_is_not_migrated(write: Write) -> None:
    path = write("[plugin:p]\nhost.restrat = x\n")
    assert [problem[:12] for problem in problems(lambda: plan(path))] == [
        "circus.ini:1",
        "circus.ini:2",
    ]


def test_plugins_in_included_files_are_named_and_refused(write: Write) -> None:
    write("[plugin:q]\nuse = a.B\n[plugin:r]\nuse = a.B\n", "d/q.ini")
    path = write("[circus]\ninclude_dir = d\n[plugin:p]\nuse = a.B\n")
    assert problems(lambda: plan(path)) == (
        "d/q.ini:1: [plugin:q]: an included file, and migrate edits only circus.ini; "
        "move the section there first",
        "d/q.ini:3: [plugin:r]: an included file, and migrate edits only circus.ini; "
        "move the section there first",
    )


@pytest.mark.parametrize("include", ["include = *.ini", "include_dir = .", "include = p*.i?i"])
def test_a_target_that_circusd_would_include_is_refused(write: Write, include: str) -> None:
    path = write(f"[circus]\n{include}\n[plugin:p]\nuse = a.B\n")
    (problem,) = problems(lambda: plan(path))
    assert problem.startswith("plugins.ini: circusd would read it, as circus.ini includes ")
    apply(plan(path, "plugins.conf"))
    assert [plugin["name"] for plugin in get_config(str(path))["plugins"]] == ["plugin:circusplug"]


def test_a_target_that_circusd_would_include_by_another_name_is_refused(
    write: Write, tmp_path: Path
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to("d")
    path = write("[circus]\ninclude_dir = d\n[plugin:p]\nuse = a.B\n")
    (problem,) = problems(lambda: plan(path, "link/p.ini"))
    assert problem.startswith("link/p.ini: circusd would read it, as circus.ini includes ")


@pytest.mark.parametrize("name", ["plugins.ini", BACKUP])
def test_a_link_that_leads_nowhere_is_not_written_through(write: Write, name: str) -> None:
    path = write()
    os.symlink("elsewhere", name)
    (problem,) = problems(lambda: plan(path))
    assert problem.startswith(f"{name}: exists already; ")
    assert files() == {"circus.ini"}
    os.unlink(name)
    migration = plan(path)
    os.symlink("elsewhere", name)  # meanwhile
    assert problems(lambda: apply(migration)) == (
        f"{name}: exists already; plan the migration again",
    )
    assert os.readlink(name) == "elsewhere"
    assert files() == {"circus.ini"}


def test_a_file_that_is_a_link_to_nowhere_is_no_file(write: Write) -> None:
    os.symlink("elsewhere", "circus.ini")
    assert problems(lambda: plan("circus.ini")) == ("circus.ini: no such file",)
    assert not os.path.exists("elsewhere")


def test_an_include_of_something_else_is_no_obstacle(write: Write) -> None:
    path = write("[circus]\ninclude = p*/*.ini *.conf\n[plugin:p]\nuse = a.B\n")
    assert plan(path).target == "plugins.ini"


def test_a_target_in_no_directory_is_refused(write: Write) -> None:
    path = write()
    assert problems(lambda: plan(path, "none/p.ini")) == ("none/p.ini: there is no directory none",)


def test_the_file_itself_is_no_target(write: Write) -> None:
    path = write()
    assert problems(lambda: plan(path, "circus.ini")) == (
        "circus.ini: exists already; choose another file for the plugins",
    )


def test_a_plan_for_an_older_file_is_not_carried_out(write: Write) -> None:
    path = write()
    migration = plan(path)
    write(MIXED + "\n")
    assert problems(lambda: apply(migration)) == (
        "circus.ini: was edited meanwhile; plan its migration again",
    )
    assert files() == {"circus.ini"}


def test_what_cannot_be_carried_out_leaves_nothing_behind(write: Write) -> None:
    path = write()
    migration = plan(path)
    write("mine", "plugins.ini")
    assert problems(lambda: apply(migration)) == (
        "plugins.ini: exists already; plan the migration again",
    )
    assert files() == {"circus.ini", "plugins.ini"}
    assert Path("plugins.ini").read_text() == "mine"
    assert path.read_bytes() == MIXED.encode()


def test_a_directory_that_is_gone_is_said_in_one_line(write: Write, tmp_path: Path) -> None:
    path = write()
    (tmp_path / "d").mkdir()
    migration = plan(path, "d/plugins.ini")
    (tmp_path / "d").rmdir()
    assert problems(lambda: apply(migration)) == (
        "circus.ini: it, or a file beside it, cannot be written: No such file or directory",
    )
    assert files() == {"circus.ini"}


def test_a_path_that_is_not_utf_8_is_refused(write: Write) -> None:
    path = write()
    os.mkdir(b"caf\xe9")
    with pytest.raises(ConfigError, match="this path is not UTF-8"):
        plan(path, os.fsdecode(b"caf\xe9/plugins.ini"))


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("_target_text", "[plugin:p]\nuse = a.B\n", "plugins.ini would not give the same plugins"),
        ("_target_text", MIXED.replace("= 2", "= 3"), "would not give the same plugins"),
        ("_target_text", MIXED.replace("= 3", "= 4"), "would not give the same plugins"),
    ],
)
def test_a_plan_that_would_change_the_plugins_is_refused(
    write: Write, monkeypatch: pytest.MonkeyPatch, name: str, text: str, told: str
) -> None:
    path = write()
    monkeypatch.setattr(plan_module, name, lambda *_: text)
    (problem,) = problems(lambda: plan(path))
    assert told in problem
    assert problem.endswith("nothing was done")


def test_a_plan_that_would_change_other_sections_is_refused(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write()
    cut = ini_edit.cut

    def torn(*arguments: Any) -> tuple[list[str], str]:
        moved, rest = cut(*arguments)
        return moved, rest.replace("sleep 1", "sleep 2")

    monkeypatch.setattr(ini_edit, "cut", torn)
    assert problems(lambda: plan(path)) == (
        "circus.ini: its other sections would not stay; nothing was done",
    )
