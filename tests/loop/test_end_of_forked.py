# How a process ends that a plugin has forked: with a status as of Python, and all that it printed.

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from circusplug._loop import forks


class Ended(BaseException):
    """Instead of the end of this process; its argument is the status."""


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (None, 0, ""),
        (SystemExit(), 0, ""),
        (SystemExit(3), 3, ""),
        (SystemExit(256 + 5), 5, ""),
        (SystemExit("no more"), 1, "no more\n"),
        (ValueError("wrong"), 1, "ValueError: wrong\n"),
    ],
)
def test_it_ends_as_python_does_and_nothing_that_it_has_printed_is_lost(
    error: BaseException | None, status: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    done: list[Any] = []
    for name in ("stdout", "stderr"):
        stream = SimpleNamespace(write=said.append, flush=lambda name=name: done.append(name))
        monkeypatch.setattr(sys, name, stream)

    def leave(status: int) -> None:
        done.append(status)
        raise Ended

    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(Ended):
        forks.end(error)
    assert done[-3:] == ["stdout", "stderr", status]
    assert "".join(said).endswith(told)
    assert bool(said) == bool(told)
