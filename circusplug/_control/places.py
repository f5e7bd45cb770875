# Where a host's control endpoint is: by default a socket in a directory that only its user may
# enter, named after the configuration file, so that whoever knows the file finds the host.
#
# Owner: none, it holds nothing.

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import stat
import zlib
from collections.abc import Iterator

from .._errors import HostError

#: Ends the name of a control socket, and of those for events and of circusd beside it.
_SUFFIX, _EVENTS_SUFFIX, _CIRCUSD_SUFFIX = ".sock", ".events.sock", ".circusd.sock"
#: Where they are without a runtime directory; the user's number is added.
_WITHOUT_RUNTIME = "/tmp/circusplug"
#: The longest runtime directory, in bytes: a socket's path may have 107.
_LONGEST_RUNTIME = 107 - len("/circusplug/") - 40 - len("-01234567.circusd.sock")


def directories() -> list[str]:
    """Where control sockets may be, the first one where they are made."""
    own = f"{_WITHOUT_RUNTIME}-{os.geteuid()}"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return [os.path.join(runtime, "circusplug"), own] if _is_usable(runtime) else [own]


def _is_usable(runtime: str) -> bool:
    """Whether a runtime directory is this user's; `su` leaves the one of who has called it."""
    if not os.path.isabs(runtime) or len(os.fsencode(runtime)) > _LONGEST_RUNTIME:
        return False
    try:
        return os.stat(runtime).st_uid == os.geteuid()
    except OSError:
        return False


def endpoint_of(file: str) -> str:
    """The control endpoint of the host for a configuration file, if it does not name one."""
    return f"ipc://{_path_of(directories()[0], file)}"


def events_endpoint_of(endpoint: str) -> str:
    """Where a host publishes its events, beside its control endpoint; nothing beside a port."""
    if not endpoint.startswith("ipc://"):
        return ""
    return endpoint.removesuffix(_SUFFIX) + _EVENTS_SUFFIX


def circusd_endpoint_of(file: str) -> str:
    """Where the circusd of a host takes commands that has the endpoint of the file itself.

    Raises:
        HostError: There is no place for it.
    """
    make_private(directories()[0])
    return endpoint_of(file).removesuffix(_SUFFIX) + _CIRCUSD_SUFFIX


def endpoints_of(file: str) -> list[str]:
    """Where the host for a file may be found, whatever environment it was started in."""
    return [f"ipc://{_path_of(directory, file)}" for directory in directories()]


def running() -> list[str]:
    """The control endpoints of this user's hosts that answer."""
    found = []
    for directory in directories():
        with contextlib.suppress(OSError):
            names = sorted(os.listdir(directory))
            paths = [os.path.join(directory, name) for name in names if name.endswith(_SUFFIX)]
            others = _EVENTS_SUFFIX, _CIRCUSD_SUFFIX
            found += [path for path in paths if not path.endswith(others)]
    return [f"ipc://{path}" for path in found if is_alive(path)]


def _path_of(directory: str, file: str) -> str:
    whole = os.path.realpath(file)
    mark = f"{zlib.crc32(os.fsencode(whole)):08x}"
    stem = os.path.splitext(os.path.basename(whole))[0]
    short = re.sub(r"[^A-Za-z0-9_.-]", "_", stem)[:40]
    return os.path.join(directory, f"{short}-{mark}{_SUFFIX}")


def is_alive(path: str) -> bool:
    """Whether anybody listens on a socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True  # its queue is full, or it is another user's
    return True


def make_private(directory: str) -> None:
    """Make a directory that only this user may enter, or look that it is one.

    Raises:
        HostError: It is not, or cannot be made.
    """
    try:
        with contextlib.suppress(FileExistsError):
            os.makedirs(directory, mode=0o700)
        status = os.lstat(directory)
    except OSError as error:
        raise HostError(f"control: cannot make {directory}: {error.strerror}") from None
    if not stat.S_ISDIR(status.st_mode):
        raise HostError(f"control: {directory} is no directory; remove it, or set 'control'")
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise HostError(
            f"control: {directory} belongs to another user, or others may enter it; remove it, "
            "chmod it to 0700, or set 'control'"
        )


@contextlib.contextmanager
def claimed(path: str) -> Iterator[None]:
    """Have a path for oneself while a socket is bound there; a dead host's is removed.

    Raises:
        HostError: A host listens there, or it cannot be claimed.
    """
    directory = os.path.dirname(path)
    if directory in directories():
        make_private(directory)
    try:
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise HostError(f"control: cannot use {directory}: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two hosts may start at the same time
        if is_alive(path):
            raise HostError(
                f"control: a host listens on ipc://{path}, for the same file; stop it first "
                "('circusplug quit'), or give this one its own 'control'"
            )
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            pass
        else:
            if not stat.S_ISSOCK(status.st_mode):
                raise HostError(f"control: {path} is there and is no socket; remove it")
        yield
    finally:
        os.close(lock)
