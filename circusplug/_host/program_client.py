# Commands to circusd from the program that hosts the plugins: a plugin's client, on a thread that
# has nothing else to do.
#
# Owner: `call` and `cast` are for any thread. The supervising thread opens, moves and closes it.
# `_lock` guards the change from closed to open and back, and the making of the thread, which
# owns the sockets. It is made for the first command.

from __future__ import annotations

import threading
from typing import Any

import zmq

from .._errors import HostError, PluginStateError
from .._logs import logger
from .._loop.plugin_loop import PluginLoop
from .._plugin.calls import raise_for_status
from .._plugin.client import Client
from .._plugin.status import Counters
from .._wire.commands import Reply
from .._wire.endpoints import Link, command_socket


class ProgramClient:
    """Sends circusd commands for the program, from any thread, while the host runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._why_closed = "the arbiter has not been started"
        self._thread: _ClientThread | None = None

    def call(
        self,
        command: str,
        *,
        timeout: float | None = None,
        patience: float | None = None,
        **props: Any,
    ) -> Reply:
        """Send circusd a command and return its reply; from any thread.

        Args:
            command: Its name, e.g. ``"incr"``.
            timeout: The deadline in seconds; 5 by default, 60 with ``waiting=True``, which
                circusd answers when the work is done.
            patience: How long it is sent again while circusd is busy, in seconds; see
                `CircusPlugin.call`.
            props: The command's properties.

        Raises:
            CallTimeout: No reply came in time.
            CallConflict: circusd was busy with other commands all the time.
            CallError: circusd answered with an error.
            HostError: The arbiter was not started, or has stopped.
        """
        try:
            reply = self._client(command).call(command, props, timeout, patience)
        except PluginStateError:
            raise self._closed(command) from None
        return raise_for_status(command, props, reply)

    def cast(self, command: str, **props: Any) -> None:
        """Send circusd a command whose reply is not waited for; what fails is logged.

        Raises:
            CallTimeout: circusd could not be reached.
            CallError: The properties cannot be sent as JSON.
            HostError: The arbiter was not started, or has stopped.
        """
        try:
            self._client(command).cast(command, props)
        except PluginStateError:
            raise self._closed(command) from None

    def _client(self, command: str) -> Client:
        with self._lock:
            if self._link is None:
                raise self._closed(command)
            if self._thread is None:
                self._thread = _ClientThread(self._link)
            return self._thread.client

    def _closed(self, command: str) -> HostError:
        return HostError(f"cannot send {command!r}: {self._why_closed}")

    # On the supervising thread.

    def open(self, link: Link) -> None:
        """Take commands from now on, for the circusd that `link` leads to."""
        with self._lock:
            self._link = link

    def move(self, link: Link) -> None:
        """Send what comes from now on over another link."""
        with self._lock:
            self._link = link
            if self._thread is not None:
                self._thread.move(link)

    def close(self) -> None:
        """Fail what is under way, and all that comes later; may be called twice."""
        with self._lock:
            self._link = None
            self._why_closed = "the arbiter has stopped"
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.close()


class _ClientThread:
    """A thread, a loop and a client on it.

    Raises:
        HostError: There is no thread, descriptor or socket left.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._ready = threading.Event()
        self._problem = ""
        try:
            self._loop = PluginLoop()
        except OSError as error:
            raise HostError(f"no connection to circusd: {error}") from None
        self.client = Client(self._loop, self._make_socket, Counters(), logger)
        self._thread = threading.Thread(target=self._run, name="circusplug-client", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._loop.close()
            raise HostError(f"no connection to circusd: {error}") from None
        self._ready.wait()
        if self._problem:
            self._thread.join()
            raise HostError(f"no connection to circusd: {self._problem}")

    def move(self, link: Link) -> None:
        """Connect elsewhere; calls that are open stay where they are."""
        self._link = link
        self._loop.post(self.client.renew)

    def close(self) -> None:
        """End the thread; open calls fail."""
        self._loop.stop_threadsafe()
        self._thread.join()

    def _run(self) -> None:
        try:
            self.client.open()
        except zmq.ZMQError as error:
            self._problem = str(error)
        self._ready.set()
        if not self._problem:
            self._loop.run_forever()
        self.client.close()
        self._loop.close()

    def _make_socket(self) -> zmq.Socket[bytes]:
        assert self._link.context is not None
        return command_socket(self._link.context, self._link.endpoint)
