# Where the commands find plugins that are not installed: in the current directory, as Circus does,
# beside the configuration file, and in `[circusplug] python_path`. All of that stands behind what
# is installed: in front of it, any file there that is named as somebody's module would be run.

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable


def find_plugins_here() -> None:
    """Let plugins be in the current directory."""
    with contextlib.suppress(FileNotFoundError):  # it may have been removed
        _append(os.getcwd())


def find_plugins_beside(path: str, more: Iterable[str]) -> None:
    """Let plugins be in the directory of a configuration file, and in more directories."""
    for directory in (os.path.dirname(os.path.abspath(path)), *more):
        _append(directory)


def _append(directory: str) -> None:
    if directory not in sys.path:
        sys.path.append(directory)
