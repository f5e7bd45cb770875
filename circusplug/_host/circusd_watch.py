# A host that circusd has started as one of its plugins ends when that circusd does, be it killed.
#
# circusd makes what it starts the leader of a session: this process, or a shell around it. So it
# is the leader's parent. When it had ended before anybody looked, that is another process by now;
# so circusd is also asked whether it has started this host.
#
# Owner: a thread, which owns the socket and the handles of those processes.

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import zmq

from .._wire.commands import decode_reply, encode_command
from .._wire.endpoints import configure_link, connectable

#: How long a circusd that has started this process may take to accept a connection, in seconds.
CONNECT_WAIT = 10.0
#: The process that becomes the parent of those whose own has ended.
_INIT = 1


@contextlib.contextmanager
def watching_circusd(
    endpoint: str | None, name: str, on_gone: Callable[[str], object]
) -> Iterator[None]:
    """Watch, for a ``with`` block, for the end of the circusd that has started this process.

    Args:
        endpoint: Where it takes commands; None if it cannot be asked.
        name: The watcher that this process is to it.
        on_gone: Called with what has happened, once, on a thread of its own.
    """
    context: zmq.Context[Any] = zmq.Context()

    def watch() -> None:
        try:
            reason = _wait_for_end(context, endpoint, name)
        except zmq.ZMQError:
            return  # the block is over
        on_gone(reason)

    thread = threading.Thread(target=watch, name="circusplug-circusd", daemon=True)
    thread.start()
    try:
        yield
    finally:
        context.term()
        thread.join()


def _wait_for_end(context: zmq.Context[Any], endpoint: str | None, name: str) -> str:
    """Wait until the circusd that has started this process has ended; returns how that shows.

    Raises:
        zmq.ZMQError: The context was ended.
    """
    gone = "circusd, which has started this host, has ended, and so does the host"
    leader = _session_leader()
    poller = zmq.Poller()
    with contextlib.ExitStack() as stack:
        socket = stack.enter_context(context.socket(zmq.DEALER))
        try:
            circusd = _parent(leader)
            for process in {circusd, leader} - {os.getpid()}:
                handle = os.pidfd_open(process)
                stack.callback(os.close, handle)
                poller.register(handle, zmq.POLLIN)
            if _parent(leader) != circusd:
                return gone
        except OSError:  # one of them is gone already
            return gone
        if endpoint is not None:
            configure_link(socket, connectable(endpoint))
            socket.setsockopt(zmq.IMMEDIATE, 1)
            socket.connect(connectable(endpoint))
            poller.register(socket, zmq.POLLOUT)
            while not (ready := dict(poller.poll(int(CONNECT_WAIT * 1000)))):
                if circusd == _INIT:
                    return f"no circusd is at {endpoint}: the one that started this host has ended"
            if socket not in ready:
                return gone
            socket.send(encode_command(1, "list", {"name": name}))
        poller.register(socket, zmq.POLLIN)
        while socket in dict(poller.poll()):
            reply = decode_reply(socket.recv())
            pids = reply.get("pids") if reply else None
            if isinstance(pids, list) and not {os.getpid(), leader} & {*pids}:
                return f"circusd at {endpoint} is not the one that started this host; ending"
        return gone


def _session_leader() -> int:
    """The leader of this process's session; this process itself if that one has ended."""
    leader = os.getsid(0)
    return leader if os.path.exists(f"/proc/{leader}/stat") else os.getpid()


def _parent(process: int) -> int:
    """The parent of a process; raises an OSError if there is no such process."""
    with open(f"/proc/{process}/stat", "rb") as file:
        # Its second field, a name in parentheses, may hold anything; the fourth is the parent.
        return int(file.read().rpartition(b")")[2].split()[1])
