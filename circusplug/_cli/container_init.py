# What process 1 does where a command is started as that: in a container without an init.
#
# Orphans become children of process 1, which has to reap them. The host must not: it cannot tell
# them from children that a plugin's subprocess or multiprocessing waits for. So process 1 forks,
# the command goes on in the child, and what stays does nothing but pass on signals and reap.
#
# Owner: the only thread that there is.

from __future__ import annotations

import os
import signal
from typing import NoReturn

#: What a command takes, as docs/operating.md says.
_FORWARDED = frozenset(
    (
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGUSR1,
        signal.SIGUSR2,
    )
)


def leave_init_behind() -> None:
    """If this is process 1, go on in a child of it; to be called before there are threads."""
    if os.getpid() != 1:
        return
    waited_for = {*_FORWARDED, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    pid = os.fork()
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    else:
        _be_init(pid, waited_for)


def _be_init(command: int, waited_for: set[signal.Signals]) -> NoReturn:
    """Live as long as the command does; when process 1 ends, the kernel kills all that is left."""
    while True:
        found = signal.sigwaitinfo(waited_for)
        if found.si_signo == signal.SIGCHLD:
            _reap(command)
        elif found.si_code <= 0:  # from a process; the terminal's come to the command as well
            os.kill(command, found.si_signo)


def _reap(command: int) -> None:
    """Reap whatever has ended; if that is the command, end as it did."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        if pid == command:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
