# A plugin's word from under a real circusd: a Recorder (circus_like_plugins.py) writes what it sees
# into a named pipe, so that a test can wait for it.

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from circusd_real import RealCircusd
from patience import PATIENCE

from circusplug.testing import FakeCircusd

#: For the tests in which circusd starts a plugin as it starts its own.
by_circusd = pytest.mark.skipif(
    " " in sys.executable, reason="circusd starts no plugin if Python's own path holds a space"
)

USE = "circusplug.Host"


class Record:
    """What a Recorder writes, read as it comes; a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rest = b""

    def __enter__(self) -> Record:
        os.mkfifo(self.path)
        self._fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        # A writer that stays, so that the pipe does not count as ended between two others.
        self._writer = os.open(self.path, os.O_WRONLY)
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._fd)
        os.close(self._writer)

    def next(self, timeout: float = PATIENCE) -> list[object] | None:
        """Return the next line; None if none comes."""
        while b"\n" not in self._rest:
            if not select.select([self._fd], [], [], timeout)[0]:
                return None
            self._rest += os.read(self._fd, 65536)
        line, _, self._rest = self._rest.partition(b"\n")
        words: list[object] = json.loads(line)
        return words

    def until(self, *words: object) -> list[list[object]]:
        """Return the lines that come before this one."""
        lines = []
        while (line := self.next()) != [*words]:
            assert line is not None, f"{words} did not come, but {lines}"
            lines.append(line)
        return lines


def host_ini(record: Record, module: str, more: str = "") -> Path:
    """A host's file with a Recorder in it."""
    path = record.path.with_name("plugins.ini")
    path.write_text(
        f"[plugin:recorder]\nuse = {module}.Recorder\n"
        f"filename = {record.path}\nwatchers = web\n{more}"
    )
    return path


def see_event(circusd: RealCircusd, record: Record) -> None:
    """Have web publish `updated` until the plugin receives it."""
    while True:
        circusd.call("set", name="web", options={"max_retry": 5}, waiting=True)
        line = record.next(0.1)
        while line is not None:
            if line == ["web", "updated"]:
                return
            line = record.next(0.1)


def host_command(circusd: FakeCircusd, config: object) -> list[str]:
    """The command line that circusd makes of a plugin section."""
    return [
        *(sys.executable, "-c", "from circus import plugins;plugins.main()"),
        *("--endpoint", circusd.endpoint, "--pubsub", circusd.pubsub_endpoint),
        *("--config", f"config:{config}:::name:plugin:circusplug", USE),
    ]


@contextlib.contextmanager
def started(circusd: FakeCircusd, config: object) -> Iterator[subprocess.Popen[str]]:
    """A host, started by hand as circusd would."""
    command = host_command(circusd, config)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()
