# `circusplug migrate`: shows what `_migrate` would do, asks, and does it.

from __future__ import annotations

import sys

from .._migrate.plan import apply, plan
from .._migrate.undo import undo as put_back


def migrate(path: str, target: str, *, undo: bool, yes: bool) -> int:
    """Move a file's plugins to a file of their own, or back; returns the exit status.

    Raises:
        CircusPlugError: It cannot be done; nothing was changed.
    """
    if undo:
        removed = put_back(path)
        print(f"{path} is as it was before; removed {', '.join(removed)}")
        return 0
    migration = plan(path, target)
    print(migration.diff, end="")
    for warning in migration.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if not yes and not _confirmed():
        print("nothing was changed")
        return 1
    apply(migration)
    kept = f"the original is kept in {migration.backup}"
    print(f"done; {kept}, 'circusplug migrate --undo {path}' undoes")
    return 0


def _confirmed() -> bool:
    if sys.stdin is None or not sys.stdin.isatty():
        print("not a terminal: add --yes to do it", file=sys.stderr)
        return False
    try:
        return input("Do it? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
