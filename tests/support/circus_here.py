# Circus's own parser, asked by `circusplug check` in this process: to import Circus in a process of
# its own takes longer than all the rest of a check.

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from circusplug._cli import check_circusd


@contextlib.contextmanager
def circus_is_asked_here() -> Iterator[None]:
    """Have what `check` runs in a process of its own, to ask Circus, run in this one."""
    here = SimpleNamespace(**{**vars(subprocess), "run": _ask})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check_circusd, "subprocess", here)
        yield


def _ask(*_: object, **options: Any) -> SimpleNamespace:
    from circus import config

    answer = io.StringIO()
    with (
        _standard_input(options["input"]),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(answer),
        pytest.MonkeyPatch.context() as patch,
    ):
        # It puts one of its own there, which is this process's then.
        patch.setattr(config, "DefaultConfigParser", config.DefaultConfigParser)
        check_circusd.main()
    return SimpleNamespace(stdout=answer.getvalue())


@contextlib.contextmanager
def _standard_input(data: bytes) -> Iterator[None]:
    """Have /dev/stdin hold *data*."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        before = os.dup(0)
        try:
            os.dup2(file.fileno(), 0)
            yield
        finally:
            os.dup2(before, 0)
            os.close(before)
