# How this package is imported. What has to be right before all else, so the root module imports
# this first: the operating system, and where `python -m circusplug` looks for modules. And names
# that are imported with their first use only.

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

if sys.platform == "win32":
    raise ImportError("circusplug needs Linux; on Windows it runs in WSL or in a container")


def _runs_as_module() -> bool:
    """Whether Python was told to run this package with -m."""
    if sys.argv[:1] != ["-m"]:  # what stands there while Python looks for the module
        return False
    name = sys.orig_argv[-len(sys.argv)].removeprefix("-m")
    return name.partition(".")[0] == "circusplug"


if _runs_as_module() and not getattr(sys.flags, "safe_path", False):
    # The current directory: a file there that is named as a module of ours would be run.
    del sys.path[0]


def lazy(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make a package's ``__getattr__`` and ``__dir__``, for names that few users need all of.

    Args:
        package: Its ``__name__``.
        homes: The names that each of its modules defines, by the module.
    """
    namespace = vars(sys.modules[package])
    home_of = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f".{home_of[name]}", package)
        namespace[name] = value = getattr(module, name)
        return value

    return get, lambda: sorted({*namespace, *home_of})
