# `circusplug run` against a fake circusd.

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from command import COMMAND, Running, write_ini

from circusplug.testing import FakeCircusd


@contextlib.contextmanager
def hosted(
    directory: Path,
    circusd: FakeCircusd,
    *sections: str,
    arguments: tuple[str, ...] = (),
    program: list[str] = COMMAND,
) -> Iterator[Running]:
    """`circusplug run` with a circus.ini of the given sections against a fake circusd."""
    path = write_ini(directory, circusd.endpoint, circusd.pubsub_endpoint, *sections)
    with Running(directory, "run", path, *arguments, program=program) as command:
        yield command
