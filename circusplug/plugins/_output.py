# The last lines that a watcher's processes have printed, if circusd writes them to a file here.

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from typing import Any

#: How much is read of a file, in bytes.
_MOST = 16 * 1024


def last_output(options: Mapping[str, Any], count: int) -> list[str]:
    """The last lines of each file that a watcher's streams go to.

    Args:
        options: What circusd's ``options`` says of the watcher.
        count: How many lines of a file are wanted.
    """
    streams = (options.get(f"{name}_stream_conf") for name in ("stdout", "stderr"))
    names = [stream.get("filename") for stream in streams if isinstance(stream, Mapping)]
    paths = dict.fromkeys(name for name in names if isinstance(name, str) and os.path.isabs(name))
    return [line for path in paths for line in _last_lines(path, count)]


def _last_lines(path: str, count: int) -> list[str]:
    """The last lines of a file; none if it is no file, or not for us."""
    with (
        contextlib.suppress(OSError, ValueError),
        # A FIFO that nobody writes to must not keep us waiting.
        open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file,
    ):
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode):
            file.seek(max(status.st_size - _MOST, 0))
            return file.read(_MOST).decode("utf-8", "replace").splitlines()[-count:]
    return []
