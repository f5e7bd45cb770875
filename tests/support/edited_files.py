# Modules with plugins, on disk, for tests that edit them.

from __future__ import annotations

import os
from pathlib import Path

PLUGIN = """\
from members import Member
{imports}
class Plugin(Member):
    def handle_init(self):
        {lazily}
        self.note("init", str({version}))
    def note(self, *what):
        super().note(" ".join(what))
"""


def plugin(version: str, imports: str = "", lazily: str = "pass") -> str:
    return PLUGIN.format(version=version, imports=imports, lazily=lazily)


class Files:
    """Modules on disk that can be imported."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, name: str, text: str) -> None:
        """Write or edit one; neither its time nor, with a text as long, its size tells of it."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (10**9, 10**9))
