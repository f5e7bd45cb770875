# What becomes of a process that a plugin forks (os.fork) while its code runs. It goes on in
# that code, and ends where that gives control back. It hosts nothing: the loop, the sockets and
# the neighbours are its parent's.
#
# Owner: the thread that forks, which in the forked process is the only one.

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import NoReturn, TypeVar

from .._logging.stacks import from_plugin_on

T = TypeVar("T")


class _Thread(threading.local):
    disown: Callable[[], object] | None = None


_thread = _Thread()


def on_fork(disown: Callable[[], object] | None) -> None:
    """Call `disown` in each process that this thread forks, at once; None: nothing."""
    _thread.disown = disown


@contextlib.contextmanager
def end_of_forked() -> Iterator[None]:
    """Let the end of a ``with`` block be the end of each process that was forked in it."""
    pid = os.getpid()
    try:
        yield
    except BaseException as error:
        if os.getpid() != pid:
            end(error)
        raise
    if os.getpid() != pid:
        end(None)


async def awaited(awaitable: Awaitable[T]) -> T:
    """Await; the end of that is the end of each process that was forked in it."""
    with end_of_forked():
        return await awaitable


def end(error: BaseException | None) -> NoReturn:
    """End this process as Python ends one, but without what its parent has left to be done."""
    status = 0 if error is None else 1
    try:
        if not isinstance(error, SystemExit):
            if error is not None:
                trace = from_plugin_on(error, error.__traceback__)
                traceback.print_exception(type(error), error, trace)
        elif error.code is None or isinstance(error.code, int):
            status = error.code or 0
        else:
            sys.stderr.write(f"{error.code}\n")
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:  # whatever state those streams are in
        os._exit(status & 0xFF)


def _forked() -> None:
    if _thread.disown is not None:
        _thread.disown()


os.register_at_fork(after_in_child=_forked)
