# What has to be right before anything else is imported, so the root module imports this first: the
# operating system, and where `python -m circusplug` looks for modules.

import sys

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
