# What a host needs of the process it runs in: a ZMQ context, open files, the forkserver, and a
# main script that does not start another host when an isolated plugin's process imports it.

from __future__ import annotations

import os
import resource
import sys
from typing import Any

import zmq

from .._config.specs import HostConfig
from .._errors import HostError

#: Contexts that a thread left behind still uses: collecting one would wait for that thread.
_kept_contexts: list[zmq.Context[Any]] = []


def make_context() -> zmq.Context[Any]:
    """A context with room for the sockets of many plugins."""
    context: zmq.Context[Any] = zmq.Context()
    # Three sockets a plugin and one more for its monitor; libzmq's default is 1023.
    context.set(zmq.MAX_SOCKETS, min(8192, context.get(zmq.SOCKET_LIMIT)))
    return context


def keep_context(context: zmq.Context[Any]) -> None:
    """Let a context go with the process: it cannot be ended any earlier."""
    _kept_contexts.append(context)


def raise_descriptor_limit(plugins: int) -> None:
    """Allow as many open files as the plugins need, where the hard limit has room."""
    needed = 256 + 16 * plugins
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def start_forkserver_for(config: HostConfig) -> None:
    """Start the process that isolated plugins come from if there are any; before any thread.

    Raises:
        HostError: It cannot be started.
    """
    if any(spec.isolate and spec.active for spec in config.plugins):
        from .._isolated.forkserver import start_forkserver

        try:
            start_forkserver()
        except OSError as error:
            raise HostError(
                f"cannot start the process that isolated plugins come from: {error}"
            ) from error


def refuse_while_importing_main() -> None:
    """Tell a script without a __main__ guard what is wrong, instead of forking for ever."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None and getattr(process.current_process(), "_inheriting", False):
        from .._isolated.forkserver import NO_GUARD, describe_status

        sys.stderr.write(f"circusplug: an isolated plugin: {describe_status(NO_GUARD)}\n")
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(NO_GUARD)  # the status of a SystemExit would not reach the host
