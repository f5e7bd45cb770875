# What is typed at `circusplug dev`.
#
# Owner: the main thread.

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Any


class Keys:
    """What is typed: single keys at a terminal, lines from elsewhere.

    Args:
        fd: Where from.
        terminal: Whether that is a terminal, in a mode where each key comes at once.
    """

    def __init__(self, fd: int, terminal: list[Any] | None) -> None:
        self._fd: int | None = fd
        self._terminal = terminal
        self._read = b""

    def read(self, seconds: float) -> Iterator[str]:
        """What was typed, after so many seconds at most."""
        fds = [] if self._fd is None else [self._fd]
        if not select.select(fds, [], [], seconds)[0] or self._fd is None:
            return
        data = os.read(self._fd, 4096)
        if not data:
            self._fd = None
        elif self._terminal is not None:
            yield from data.decode(errors="replace")
        else:
            *lines, self._read = (self._read + data).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)

    def ask(self, prompt: str) -> str:
        """Read a line."""
        if self._terminal is None or self._fd is None:
            return ""
        typed = termios.tcgetattr(self._fd)
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._terminal)
        try:
            return input(prompt)
        except EOFError:
            return ""
        finally:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, typed)


@contextlib.contextmanager
def typed_keys() -> Iterator[Keys]:
    fd = sys.stdin.fileno()
    if not os.isatty(fd):
        yield Keys(fd, None)
        return
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    try:
        yield Keys(fd, before)
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
