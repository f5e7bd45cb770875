# Starting processes from multiprocessing's forkserver: a single-threaded process that has
# imported what every isolated plugin needs, and forks when asked.
#
# `multiprocessing.Process.start` is left out: it keeps a table of children that its other
# users clear, and with it the exit status of ours; and it makes every child import the host's
# main script, which costs time and memory and starts a second host if it has no guard.
# Nothing here has an owner: any thread may start a child.

from __future__ import annotations

import contextlib
import io
import multiprocessing
import multiprocessing.forkserver
import os
import select
import signal
import struct
from collections.abc import Callable
from multiprocessing import popen_forkserver, reduction, resource_tracker, spawn, util
from multiprocessing.context import ForkServerProcess, set_spawning_popen
from typing import Any

#: The exit status of a child whose import of the main script would start a second host.
NO_GUARD = 78

#: How long a forkserver that takes no connection may take to be gone, in seconds.
_DEATH_WAIT = 1.0

_STATUS = struct.Struct("q")


def start_forkserver() -> None:
    """Start the process that children are forked from, unless it runs.

    Best done before the host has threads or has opened files.

    Raises:
        OSError: It cannot be started.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(
        ["circusplug._isolated.preload"]
    )
    # It ignores a Ctrl-C only once it has been set up. (The tracker first: its start unblocks.)
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Child(popen_forkserver.Popen):
    """A process forked from the forkserver.

    Args:
        name: Its name for multiprocessing.
        target: What it runs; must be importable.
        args: For `target`. Sockets and multiprocessing's connections in it reach the child.
        with_main: Whether it imports the main script of this process first, because `args`
            need it.

    Attributes:
        pid: Its process id.
        sentinel: A descriptor: the forkserver writes the exit status there, see
            `read_status`. It ends without one if the forkserver dies.

    Raises:
        OSError, EOFError: The forkserver cannot be started, or died just now.
    """

    def __init__(
        self, name: str, target: Callable[..., object], args: tuple[Any, ...], with_main: bool
    ) -> None:
        self._with_main = with_main
        start_forkserver()
        super().__init__(ForkServerProcess(target=target, args=args, name=name))

    def _launch(self, process: ForkServerProcess) -> None:
        # As the base class does it, but for the main script.
        preparation = spawn.get_preparation_data(process.name)
        if not self._with_main:
            preparation.pop("init_main_from_path", None)
            preparation.pop("init_main_from_name", None)
        buffer = io.BytesIO()
        set_spawning_popen(self)
        try:
            reduction.dump(preparation, buffer)
            reduction.dump(process, buffer)
        finally:
            set_spawning_popen(None)
        try:
            self._ask_forkserver(buffer.getvalue())
        except ConnectionError:  # then nobody has got it
            self.close()
            _await_end_of_forkserver()
            start_forkserver()
            self._ask_forkserver(buffer.getvalue())
        self.pid = multiprocessing.forkserver.read_signed(self.sentinel)

    def _ask_forkserver(self, data: bytes) -> None:
        fds = self._fds  # type: ignore[attr-defined]
        self.sentinel, write = multiprocessing.forkserver.connect_to_new_process(fds)
        with open(write, "wb") as pipe:
            # By the end of this pipe multiprocessing knows in the child that its parent is gone.
            ends = (os.dup(write), self.sentinel)
            self.finalizer = util.Finalize(self, util.close_fds, ends)  # type: ignore[attr-defined]
            pipe.write(data)


def _await_end_of_forkserver() -> None:
    """Wait for a forkserver that refused a connection to exit, so that a new one can start."""
    pid = multiprocessing.forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    if pid is None or not hasattr(os, "pidfd_open"):
        return
    with contextlib.suppress(OSError):  # it is gone already, or the system has no such thing
        descriptor = os.pidfd_open(pid)
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(_DEATH_WAIT * 1000)
        finally:
            os.close(descriptor)


def leave_family() -> None:
    """Close what a child has got of the host's forkserver and resource tracker.

    A plugin could end them for everybody by these, and multiprocessing starts others where
    it is used.
    """
    server: Any = multiprocessing.forkserver._forkserver
    tracker: Any = resource_tracker._resource_tracker
    for owner, name in ((server, "_forkserver_alive_fd"), (tracker, "_fd")):
        os.close(getattr(owner, name))
        setattr(owner, name, None)
    server._inherited_fds = None
    server._forkserver_address = None


def read_status(data: bytes) -> int:
    """Decode what came from a sentinel: an exit status, negative for a signal."""
    return int(_STATUS.unpack_from(data.ljust(_STATUS.size, b"\0"))[0])


def describe_status(status: int) -> str:
    """Say how a child ended that did not say so itself."""
    if status < 0:
        known = {int(item): item.name for item in signal.Signals}
        return f"its process was killed by {known.get(-status, f'signal {-status}')}"
    if status == NO_GUARD:
        return (
            "its process imports the script that started the host, and that starts a host again; "
            "put the start below  if __name__ == '__main__':"
        )
    return f"its process ended without a word, exit status {status}"
