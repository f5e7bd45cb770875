# What becomes of a process that a plugin forks: it is a copy of the host with one thread, and no
# part of the host may go on in it. It ends when the plugin's code has returned, with the status
# that Python would end with: 0, that of `sys.exit`, or 1 for an exception.
#
# Owner: the thread that forked, which is the only one in the new process.

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import weakref
from typing import Protocol


class Halting(Protocol):
    """What works off several items in a row, and must not go on in a forked process."""

    def halt(self) -> None:
        """Take no further item."""


_halting: weakref.WeakSet[Halting] = weakref.WeakSet()


def halt_if_forked(item: Halting) -> None:
    """Have something halted in each process that is forked from this one from now on."""
    _halting.add(item)


def leave_if_forked(pid: int, error: BaseException | None = None) -> None:
    """End this process if it was forked: the plugin's code has returned, or failed.

    Args:
        pid: The number of the process that hosts the plugin.
        error: What the plugin's code has raised.
    """
    if os.getpid() == pid:
        return
    status = 0 if error is None else 1
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if not isinstance(error.code, int | None):
            sys.stderr.write(f"{error.code}\n")
    elif error is not None:
        traceback.print_exception(error)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(status & 0xFF)


def _halt_all() -> None:
    for item in list(_halting):
        item.halt()


os.register_at_fork(after_in_child=_halt_all)
