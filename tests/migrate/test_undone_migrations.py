# The way back: every byte as it was, after a migration that was interrupted as well, and what is
# told if that cannot be.

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fixture_types import Write
from migrations import BACKUP, MIXED, files, migrate, problems

from circusplug._migrate import ini_edit
from circusplug._migrate.plan import apply, plan
from circusplug._migrate.undo import undo

# Circus warns of a fruitless include by a logger method that is deprecated itself.
pytestmark = pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated")


@pytest.mark.parametrize(
    "content",
    [
        MIXED.encode(),
        MIXED.replace("\n", "\r\n").encode(),
        MIXED.replace("\n", "\r").encode(),
        MIXED.rstrip().encode(),
        b"# caf\xe9\r\n\r\n\n[plugin:p]\ruse = a.B\n\n\n# x\xff",
    ],
)
def test_undoing_gives_back_every_byte(write: Write, content: bytes) -> None:
    path = write(content)
    path.chmod(0o604)
    migrate(path)
    assert path.read_bytes() != content
    undone = undo(path)
    assert path.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    assert files() == {"circus.ini"}
    assert [os.path.basename(file) for file in undone] == ["plugins.ini", BACKUP]


def test_after_undoing_it_can_be_migrated_again(write: Write) -> None:
    path = write()
    first = migrate(path)
    undo(path)
    assert plan(path) == first


def test_without_a_backup_there_is_nothing_to_undo(write: Write) -> None:
    path = write()
    assert problems(lambda: undo(path)) == (f"circus.ini: nothing to undo: there is no {BACKUP}",)


def test_edited_files_are_named_and_nothing_is_undone(write: Write, tmp_path: Path) -> None:
    path = write()
    migrate(path)
    before = files()
    for file in (path, Path("plugins.ini")):
        file.write_text(file.read_text() + "# mine\n")
    assert problems(lambda: undo(path)) == (
        *(
            f"{file}: was edited since the migration, so it is not undone; put it back by hand, "
            f"the original is {BACKUP}"
            for file in ("circus.ini", f"{tmp_path}/plugins.ini")
        ),
    )
    assert files() == before


@pytest.mark.parametrize("step", range(6))
def test_a_migration_that_is_interrupted_can_be_done_again_or_undone(
    step: int, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write()
    content = path.read_bytes()
    real, calls = ini_edit.write, iter(range(10))

    def interrupted(file: str, content: bytes, like: str) -> None:
        """Ctrl-C just before, or just after, the file is written."""
        number = next(calls)
        if number == step // 2 and step % 2 == 0:
            raise KeyboardInterrupt
        real(file, content, like)
        if number == step // 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(ini_edit, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        apply(plan(path))
    monkeypatch.setattr(ini_edit, "write", real)
    if Path(BACKUP).exists():
        undo(path)
    assert files() == {"circus.ini"}
    assert path.read_bytes() == content
    apply(plan(path))
    undo(path)
    assert files() == {"circus.ini"}


def interrupted_at(step: int, act: Callable[[], object]) -> bool:
    """Do something with a Ctrl-C just before or after a change of files; whether it came to it."""
    changes = 0

    def interrupting(real: Callable[..., Any]) -> Callable[..., Any]:
        def change(*args: Any, **kwargs: Any) -> None:
            nonlocal changes
            changes += 2
            if changes - 1 == step:
                raise KeyboardInterrupt
            real(*args, **kwargs)
            if changes == step:
                raise KeyboardInterrupt

        return change

    with pytest.MonkeyPatch.context() as patch:
        for name in ("chmod", "fsync", "replace", "unlink"):
            patch.setattr(os, name, interrupting(getattr(os, name)))
        try:
            act()
        except KeyboardInterrupt:
            return True
    return False


@pytest.mark.parametrize("undone", [False, True])
def test_ctrl_c_at_any_change_leaves_what_can_be_undone_or_done_again(
    write: Write, undone: bool
) -> None:
    step = 0
    while True:
        step += 1
        path = write()
        migration = plan(path)
        if undone:
            apply(migration)
        act = partial(undo, path) if undone else partial(apply, migration)
        if not interrupted_at(step, act):
            break
        if Path(BACKUP).exists():
            undo(path)
        assert files() == {"circus.ini"}, step
        assert path.read_bytes() == MIXED.encode(), step
        apply(plan(path))
        undo(path)
        assert files() == {"circus.ini"}, step
    assert step > (10 if undone else 18)


def test_a_migration_that_got_no_further_than_the_backup_is_undone(write: Write) -> None:
    path = write()
    write(name=BACKUP)
    undo(path)
    assert files() == {"circus.ini"}


@pytest.mark.parametrize("edited", [False, True])
def test_a_file_that_is_gone_comes_back(write: Write, edited: bool) -> None:
    path = write()
    migrate(path)
    path.unlink()
    if edited:
        with open("plugins.ini", "a") as plugins:
            plugins.write("# mine\n")
    undo(path)
    assert path.read_bytes() == MIXED.encode()
    assert files() == {"circus.ini", *(["plugins.ini"] if edited else [])}


def test_a_file_whose_stamp_is_gone_is_not_undone(write: Write, tmp_path: Path) -> None:
    path = write()
    migrate(path)
    plugins = Path("plugins.ini")
    plugins.write_text("".join(plugins.read_text().splitlines(keepends=True)[3:]))
    assert [problem.partition(": ")[0] for problem in problems(lambda: undo(path))] == [
        "circus.ini",
        f"{tmp_path}/plugins.ini",
    ]
    assert files() == {"circus.ini", BACKUP, "plugins.ini"}


def test_without_the_file_of_the_plugins_nothing_is_undone(write: Write) -> None:
    path = write()
    migrate(path)
    os.unlink("plugins.ini")
    (problem,) = problems(lambda: undo(path))
    assert problem == (
        f"circus.ini: not undone, as {os.path.abspath('plugins.ini')}, which has its plugins, is "
        f"not there; put that back, or copy the original, {BACKUP}, over circus.ini"
    )
    assert files() == {"circus.ini", BACKUP}


def test_a_file_that_cannot_be_put_back_is_told_and_all_stays(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write()
    migrate(path)

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "replace", refuse)
    assert problems(lambda: undo(path)) == (
        "circus.ini: it, or a file beside it, cannot be written: Read-only file system",
    )
    assert files() == {"circus.ini", BACKUP, "plugins.ini"}
