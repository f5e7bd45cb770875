# Migrating a file: what goes in, what comes out, and what is told if it cannot be done.

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from circusplug._errors import ConfigError
from circusplug._migrate.plan import Migration, apply, plan

BACKUP = "circus.ini.before-circusplug"

MIXED = """\
# main
[circus]
endpoint = tcp://127.0.0.1:5555
check_delay = 2

# ---- plugins ----

# the logger
; and more
[plugin:logger]
use = a.Logger
filename = "$(circus.env.LOGS)/a b"

# this one too
level = x
  y
# still the logger's

# about watchers

[watcher:x]
cmd = sleep 1

[circusplug]
stop_timeout = 3

[plugin:scorer]
use = a.Scorer

# environment
[env]
logs = /var/log
# last
[plugin:aaa]
use = a.A
"""


def files() -> set[str]:
    return {str(path) for path in Path().rglob("*") if path.is_file()}


def problems(act: Callable[[], object]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        act()
    return caught.value.problems


def migrate(path: Path) -> Migration:
    migration = plan(path)
    apply(migration)
    return migration
