# What the commands ask of a running host: one connection to its control endpoint.
#
# Owner: the thread that makes it.

from __future__ import annotations

import itertools
import time
from typing import Any

import zmq

from .._errors import CircusdError, HostError
from .._wire.commands import Reply, decode_reply, encode_command
from .places import is_alive

#: How long a reply may take, in seconds; one that comes when the work is done has the second.
REPLY_TIMEOUT = 5.0
WAITING_TIMEOUT = 120.0


class NotRunningError(HostError):
    """There is no host at that endpoint."""


class ControlClient:
    """Asks a host; a context manager.

    Args:
        endpoint: The host's control endpoint.

    Raises:
        NotRunningError: Nobody listens there.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        path = endpoint.removeprefix("ipc://")
        if path != endpoint and not is_alive(path):
            raise NotRunningError(f"no host listens on {endpoint}")
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._ids = itertools.count(1)
        # A host that ends while it is asked is not waited for, nor a port where nobody is.
        events = zmq.EVENT_DISCONNECTED | (zmq.EVENT_CONNECT_RETRIED if path == endpoint else 0)
        self._gone = self._socket.get_monitor_socket(events)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._gone, zmq.POLLIN)
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise HostError(f"{endpoint}: {error}") from None

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.disable_monitor()
        self._gone.close()
        self._socket.close()
        self._context.term()

    def ask(self, command: str, **properties: Any) -> Reply:
        """Send a command and return the reply.

        Raises:
            NotRunningError: The host has ended, or there is none.
            HostError: There is no reply in time.
            CircusdError: The host refuses it.
        """
        number = next(self._ids)
        self._socket.send(encode_command(number, command, properties))
        seconds = WAITING_TIMEOUT if properties.get("waiting") else REPLY_TIMEOUT
        deadline = time.monotonic() + seconds
        while self._poller.poll(max(0, int((deadline - time.monotonic()) * 1000))):
            if not self._socket.poll(0):
                raise NotRunningError(f"no host listens on {self.endpoint}, or it has ended")
            reply = decode_reply(self._socket.recv())
            if reply is None or reply.get("id") != number:
                continue
            if reply.get("status") == "error":
                raise CircusdError(str(reply.get("reason")))
            return reply
        raise HostError(f"the host on {self.endpoint} does not answer within {seconds:g} s")
