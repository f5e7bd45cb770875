# How the fixtures that return a function are called.

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from circusplug.testing import RunningPlugin

#: `run_plugin`, and what runs one of the bundled plugins by it.
Run = Callable[..., RunningPlugin]
#: `main`: a command in the test's process; returns its exit status, output and errors.
Main = Callable[..., tuple[int, str, str]]
#: `write`: writes a file, and returns its path.
Write = Callable[..., Path]
