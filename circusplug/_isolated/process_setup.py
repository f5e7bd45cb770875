# What an isolated plugin's process is given before any code of the plugin runs: where its
# output and its log go, its directory, limits, user and environment.

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import resource
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .. import _logs
from .._config.host_options import HostOptions
from .messages import Launch, LogEntry, encode

_STREAMS = (("stdout", 1), ("stderr", 2))
#: Streams of this process's parent.
_locked: list[Any] = []

#: What a login gives besides what the user's entry says.
_LOGIN_PATH = "/usr/local/bin:/usr/bin:/bin"


def set_up(launch: Launch) -> None:
    """Give the process the environment, directory, limits and user that were asked for.

    Raises:
        OSError: The system does not allow it; its text says of which option.
        ValueError: A limit is out of range; likewise.
    """
    options = launch.host
    sys.path[:] = [*options.python_path, *launch.path]
    sys.argv[:] = launch.argv
    os.environ.clear()
    os.environ.update(launch.environment)
    directory = options.working_dir or launch.directory
    if directory is not None:
        with _named("working_dir", directory):
            os.chdir(directory)
    for name, value in options.rlimits.items():
        limit = getattr(resource, f"RLIMIT_{name.upper()}")
        if name == "nofile" and value == resource.RLIM_INFINITY:
            value = resource.getrlimit(limit)[1]
        with _named(f"rlimit_{name}", value):
            resource.setrlimit(limit, (value, value))
    if options.nice is not None:
        with _named("nice", options.nice):
            os.setpriority(os.PRIO_PROCESS, 0, options.nice)
    if options.uid is not None:
        with _named("uid", options.uid):
            _become(options.uid, options.gid, options.copy_env)
    elif options.gid is not None:
        with _named("gid", options.gid):
            os.setgid(options.gid)
    os.environ.update(options.env)


@contextlib.contextmanager
def _named(option: str, value: object) -> Iterator[None]:
    """Have an error tell which option is at fault."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise type(error)(f"host.{option} = {value}: {reason}") from None


def _become(uid: int, gid: int | None, copy_env: bool) -> None:
    import pwd

    user = pwd.getpwuid(uid)
    gid = user.pw_gid if gid is None else gid
    is_other = uid != os.geteuid()
    if os.getuid() == 0:
        os.initgroups(user.pw_name, gid)
    os.setgid(gid)
    os.setuid(uid)
    os.environ["HOME"] = user.pw_dir
    if is_other and not copy_env:
        os.environ.update(
            USER=user.pw_name, LOGNAME=user.pw_name, SHELL=user.pw_shell, PATH=_LOGIN_PATH
        )


def redirect(options: HostOptions, pipes: Sequence[int]) -> None:
    """Send what is printed, by Python or by anything else, where the options say.

    To be called as the plugin's user: a file is opened with that user's rights.

    Args:
        options: The plugin's.
        pipes: The pipes to the host for standard output (1) and standard error (2).

    Raises:
        OSError: A file cannot be opened.
    """
    for name, fd in _STREAMS:
        path = getattr(options, name)
        raw: io.FileIO
        if path:
            with _named(name, path):
                _open_as(fd, path)
            raw = _OutputFile(fd, path)
        else:
            os.dup2(pipes[fd], fd)
            os.close(pipes[fd])
            raw = _PipeToHost(fd, "w", closefd=False)
        buffered = io.BufferedWriter(raw)
        stream = io.TextIOWrapper(buffered, "utf-8", "replace", line_buffering=True)
        setattr(sys, name, stream)
    os.register_at_fork(after_in_child=_renew_streams)


class _OutputFile(io.FileIO):
    """A file that is opened anew, as the same descriptor, when it was moved away (logrotate)."""

    def __init__(self, fd: int, path: str) -> None:
        super().__init__(fd, "w", closefd=False)
        self._path = path

    def write(self, data: Any) -> int:
        if not self._is_in_place:
            with contextlib.suppress(OSError):  # else the old one still is better than none
                _open_as(self.fileno(), self._path)
        return super().write(data)

    @property
    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self.fileno()))
        except OSError:
            return False


def _open_as(fd: int, path: str) -> None:
    file = open_output(path)
    os.dup2(file, fd)
    os.close(file)


class _PipeToHost(io.FileIO):
    """Takes what is printed when the host is gone as well: that is no error of the plugin."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return len(data)


def open_output(path: str) -> int:
    """Open a file to append to, but not through a link that another user has placed there.

    Raises:
        OSError: It cannot be opened.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    with contextlib.suppress(FileNotFoundError):
        link = os.lstat(path)
        # One of one's own, or of root's, as /dev/stdout is, was meant.
        if stat.S_ISLNK(link.st_mode) and link.st_uid in (0, os.geteuid()):
            flags &= ~os.O_NOFOLLOW
    try:
        return os.open(path, flags, 0o644)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise PermissionError(
            error.errno, "it is a link that another user has placed", path
        ) from None


def _renew_streams() -> None:
    """In a forked process: a thread that printed has left its stream locked for ever."""
    for name, fd in _STREAMS:
        locked = getattr(sys, name)
        raw = getattr(getattr(locked, "buffer", None), "raw", None)
        if isinstance(raw, io.FileIO) and raw.fileno() == fd:
            _locked.append(locked)  # its end would close `raw`, and wait for the lock
            buffered = io.BufferedWriter(raw)
            stream = io.TextIOWrapper(buffered, "utf-8", "replace", line_buffering=True)
            setattr(sys, name, stream)


def let_go_of_host(options: HostOptions) -> None:
    """Have what is printed from now on vanish where the host would have shown it."""
    with open(os.devnull, "w") as nowhere:
        for name, fd in _STREAMS:
            if not getattr(options, name):
                os.dup2(nowhere.fileno(), fd)


# The host's main script, for a plugin whose class is defined there.


def describe_main() -> dict[str, Any]:
    """What a process needs to import the main script of this one, for `import_main`."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return {"init_main_from_name": spec.name}
    path = getattr(main, "__file__", None)
    return {} if path is None else {"init_main_from_path": os.path.abspath(path)}


def import_main(described: Mapping[str, Any]) -> None:
    """Import the host's main script as `__mp_main__`, as multiprocessing does it."""
    if not described:
        return
    from multiprocessing import process, spawn

    here: Any = process.current_process()
    here._inheriting = True  # so a script without a guard is told what to do
    try:
        spawn.prepare(dict(described))
    finally:
        del here._inheriting


def environment_for(options: HostOptions) -> dict[str, str]:
    """What the host gives a plugin's process of its own environment."""
    if options.uid in (None, os.geteuid()) or options.copy_env:
        return dict(os.environ)
    return {key: text for key, text in os.environ.items() if key.startswith(("LC_", "LANG", "TZ"))}


# The log.


class _EntryFormatter(_logs.Formatter):
    """Makes each record a line for the host."""

    def format_message(self, record: logging.LogRecord) -> str:
        said = record.getMessage(), self.details(record)
        return encode(LogEntry(record.name, record.levelno, record.created, *said)).decode()


class _PipeHandler(logging.Handler):
    """Sends log records to the host."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self.setFormatter(_EntryFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode()
        except Exception:  # noqa: BLE001 - as every handler: a bad record is no reason to fail
            self.handleError(record)
            return
        with contextlib.suppress(OSError):
            while line:
                line = line[os.write(self._fd, line) :]


def log_to(fd: int, level: int) -> None:
    """Send this process's log to the host.

    Args:
        fd: The pipe.
        level: The lowest level to send, but for what has a level of its own.
    """
    logging.basicConfig(level=level, handlers=[_PipeHandler(fd)], force=True)
    logging.captureWarnings(True)
