# What the tests of migrations share: files to migrate, in a directory of their own.

from __future__ import annotations

from pathlib import Path

import pytest
from fixture_types import Write
from migrations import MIXED


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)

    def write_file(content: str | bytes = MIXED, name: str = "circus.ini") -> Path:
        path = Path(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file
