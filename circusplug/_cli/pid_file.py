# `--pidfile`: a file that holds this process's number for as long as it runs.
#
# Owner: the main thread.

from __future__ import annotations

import argparse
import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator

from .._errors import HostError

#: No process number is longer, in bytes; so much of a file is read.
_LONGEST = 32


def add_option(parser: argparse.ArgumentParser) -> None:
    """Let a command take ``--pidfile``."""
    parser.add_argument(
        "--pidfile", metavar="FILE", help="write the process number there while it runs"
    )


@contextlib.contextmanager
def pid_file(path: str | None) -> Iterator[None]:
    """Hold this process's number in a file for a ``with`` block; None: in none.

    It is written in one go. A file that a process has left behind is replaced, and what somebody
    else has put there meanwhile is not removed.

    Raises:
        HostError: The file is of a process that runs, or is something else, or cannot be written.
    """
    if path is None:
        yield
        return
    path = os.path.realpath(path)
    try:
        owner = _owner(path)
        if owner is not None and owner != os.getpid() and _runs(owner):
            raise HostError(
                f"--pidfile: {path} is of process {owner}, which runs; stop that one first, or "
                "remove the file if it is another program"
            )
        _write(path)
    except OSError as error:
        raise HostError(f"--pidfile: cannot write {path}: {error.strerror}") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError, HostError):
            if _owner(path) == os.getpid():
                os.unlink(path)


def _owner(path: str) -> int | None:
    """The process that a file is of; None if there is no file, or an empty one."""
    try:
        if stat.S_ISREG(os.stat(path).st_mode):
            with open(path, "rb") as file:
                text = file.read(_LONGEST).strip()
            if not text or (text.isdigit() and int(text)):
                return int(text) if text else None
    except FileNotFoundError:
        return None
    raise HostError(f"--pidfile: {path} holds no process number, so it is left as it is")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _write(path: str) -> None:
    directory, name = os.path.split(path)
    fd, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=directory)
    try:
        with open(fd, "w") as file:
            os.fchmod(fd, 0o644)
            file.write(f"{os.getpid()}\n")
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
