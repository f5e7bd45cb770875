# What an isolated plugin's process is given before any code of the plugin runs: where its
# output and its log go, its directory, limits, user and environment.

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import sys
from typing import Any

from .. import _logs
from .._config.host_options import HostOptions
from .line_buffer import LINE_LIMIT

_STREAMS = (("stdout", 1), ("stderr", 2))


def redirect(options: HostOptions, pipes: list[Any]) -> None:
    """Send what is printed, by Python or by anything else, where the options say.

    Args:
        options: The plugin's.
        pipes: The pipes to the host for standard output (1) and standard error (2).

    Raises:
        OSError: A file cannot be opened.
    """
    for name, fd in _STREAMS:
        path = getattr(options, name)
        if path:
            target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(target, fd)
            os.close(target)
        else:
            os.dup2(pipes[fd].fileno(), fd)
        pipes[fd].close()
        raw = os.fdopen(fd, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
        setattr(sys, name, raw)


def let_go_of_host(options: HostOptions) -> None:
    """Have what is printed from now on vanish where the host would have shown it."""
    with open(os.devnull, "w") as nowhere:
        for name, fd in _STREAMS:
            if not getattr(options, name):
                os.dup2(nowhere.fileno(), fd)


def settle_in(options: HostOptions) -> None:
    """Give the process the environment, directory, limits and user that were asked for.

    Raises:
        OSError: The system does not allow it.
        ValueError: A limit is out of range.
    """
    os.environ.update(options.env)
    sys.path[:0] = options.python_path
    if options.working_dir is not None:
        os.chdir(options.working_dir)
    for name, value in options.rlimits.items():
        limit = getattr(resource, f"RLIMIT_{name.upper()}")
        if name == "nofile" and value == resource.RLIM_INFINITY:
            value = resource.getrlimit(limit)[1]
        resource.setrlimit(limit, (value, value))
    if options.nice is not None:
        os.setpriority(os.PRIO_PROCESS, 0, options.nice)
    if options.uid is not None:
        import pwd

        user = pwd.getpwuid(options.uid)
        gid = user.pw_gid if options.gid is None else options.gid
        if os.getuid() == 0:
            os.initgroups(user.pw_name, gid)
        os.setgid(gid)
        os.setuid(options.uid)
        os.environ.update({"HOME": user.pw_dir, **options.env})
    elif options.gid is not None:
        os.setgid(options.gid)


class _PipeHandler(logging.Handler):
    """Sends log records to the host, one JSON object a line."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._formatter = _logs.Formatter("%(message)s")

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._encode(record)
        except Exception:  # noqa: BLE001 - as every handler: a bad record is no reason to fail
            self.handleError(record)
            return
        with contextlib.suppress(OSError):
            while line:
                line = line[os.write(self._fd, line) :]

    def _encode(self, record: logging.LogRecord) -> bytes:
        # The formatter adds the traceback and the stack.
        text = self._formatter.format(record)
        entry = {
            "name": record.name,
            "level": record.levelno,
            "created": record.created,
            "text": text,
            "plugin": getattr(record, "plugin", None),
        }
        line = json.dumps(entry)
        while len(line) >= LINE_LIMIT:
            # The host keeps no longer line together; what matters of a traceback is its end.
            text = entry["text"] = f"{text[: len(text) // 8]}\n...\n{text[-len(text) // 4 :]}"
            line = json.dumps(entry)
        return line.encode() + b"\n"


def log_to(fd: int, level: int) -> None:
    """Send this process's log to the host.

    Args:
        fd: The pipe.
        level: The lowest level to send.
    """
    handler = _PipeHandler(os.dup(fd))
    handler.addFilter(_logs.PluginFilter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
