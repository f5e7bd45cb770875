# The files that a migration writes: their mode and owner, links that stay links, and that a file is
# whole before it is put in place.

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from fixture_types import Write
from migrations import BACKUP, MIXED, migrate

from circusplug._migrate import ini_edit
from circusplug._migrate.undo import undo

# Circus warns of a fruitless include by a logger method that is deprecated itself.
pytestmark = pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated")


def test_the_new_files_have_the_mode_of_the_old(write: Write) -> None:
    path = write()
    path.chmod(0o640)
    migrate(path)
    for name in ("circus.ini", "plugins.ini", BACKUP):
        assert stat.S_IMODE(Path(name).stat().st_mode) == 0o640


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a file away")
def test_the_new_files_belong_to_the_owner_of_the_old(write: Write) -> None:
    path = write()
    os.chown(path, 65534, 1)
    migrate(path)
    for name in ("circus.ini", "plugins.ini", BACKUP):
        status = Path(name).stat()
        assert (status.st_uid, status.st_gid) == (65534, 1)


def test_a_link_stays_a_link(write: Write) -> None:
    write(name="real.ini")
    path = Path("circus.ini")
    path.symlink_to("real.ini")
    migrate(path)
    assert path.is_symlink()
    assert "circusplug.Host" in Path("real.ini").read_text()
    undo(path)
    assert path.is_symlink()
    assert Path("real.ini").read_bytes() == MIXED.encode()


def test_a_file_is_whole_on_the_disk_before_it_is_put_in_place(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write()
    seen: list[object] = []
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: seen.append(os.fstat(fd).st_size))
    monkeypatch.setattr(os, "replace", lambda *what: (seen.append("put"), replace(*what)))
    ini_edit.write(str(path), b"12345", like=str(path))
    assert seen == [5, "put"]
    assert path.read_bytes() == b"12345"


def test_who_may_not_give_a_file_away_keeps_it(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    path = write()
    path.chmod(0o640)
    migrate(path)
    assert stat.S_IMODE(Path("plugins.ini").stat().st_mode) == 0o640
