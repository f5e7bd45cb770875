# The control endpoint of a host: takes commands, has them carried out, answers; and publishes
# what happens to the plugins, as circusd publishes what happens to its watchers.
#
# Owner: who opens it closes it; commands are carried out on the serving thread, which is the
# server's (server.py). `announce` may be called from any thread.

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from concurrent.futures import Future
from typing import Any

import zmq

from .._config.control import AUTO, OFF
from .._config.specs import PLUGIN_PREFIX, HostConfig
from .._config.values import did_you_mean
from .._errors import CircusdError, HostError
from .._logging.repeats import is_milestone
from .._logs import logger
from .._wire.commands import Reply
from .._wire.watcher_names import to_res_name
from .language import SERVER_ERROR, Request, answer, error_reply, read_request, reply_frame
from .places import claimed, endpoint_of, events_endpoint_of
from .plugin_watchers import COMMANDS, PluginWatchers, Steered
from .server import SendBack, Server

#: The largest command, in bytes; the connection of who sends more is ended.
_LONGEST_COMMAND = 1024 * 1024
#: How many commands of a client wait to be taken.
_UNREAD_COMMANDS = 10
#: How many replies wait for a client that does not read them; further ones are dropped.
_UNREAD_REPLIES = 100
#: How often conflicts are looked for while somebody listens to events, in seconds.
_CONFLICTS_EVERY = 1.0
#: How long the last replies may take to leave, in milliseconds.
_FAREWELL = 1000


class ControlServer(Server):
    """Lets a host be steered from outside.

    Args:
        host: The host.
        endpoint: Where to take commands.
        pubsub_endpoint: Where to publish; empty: nowhere.

    Attributes:
        watchers: The host's plugins, as commands see them.
    """

    publisher_kind = zmq.XPUB  # which tells who subscribes

    def __init__(self, host: Steered, endpoint: str, pubsub_endpoint: str) -> None:
        super().__init__("control endpoint", self._take)
        self._host = host
        self.endpoint = endpoint
        self.pubsub_endpoint = pubsub_endpoint
        self.watchers = PluginWatchers(host, endpoint, pubsub_endpoint)
        self._garbage = self._unread = self._subscriptions = 0
        self._conflicts: dict[str, int] = {}  # of each plugin, as far as published
        self._looking = False  # whether conflicts are looked for, or will be once more
        self._sockets: dict[str, int] = {}  # the inode of each that was made here, by its path

    @classmethod
    def for_config(cls, host: Steered, config: HostConfig) -> ControlServer | None:
        """The one that a configuration asks for, not yet open; None if it asks for none.

        Raises:
            HostError: It is to be named after the file, and there is none.
        """
        endpoint, pubsub = config.control, config.control_pubsub
        if endpoint is None or endpoint == OFF:
            return None
        if endpoint == AUTO:
            if config.source is None:
                raise HostError("control: a host without a file needs an endpoint, not 'auto'")
            endpoint = endpoint_of(config.source)
        if pubsub == AUTO:
            pubsub = events_endpoint_of(endpoint)
        return cls(host, endpoint, "" if pubsub == OFF else pubsub)

    def bind_sockets(self, router: zmq.Socket[bytes], publisher: zmq.Socket[bytes]) -> None:
        """Bind both; sockets in the file system are for this user alone.

        Raises:
            HostError: Somebody else is there.
        """
        limit_clients(router, _LONGEST_COMMAND)
        for sock, endpoint in ((router, self.endpoint), (publisher, self.pubsub_endpoint)):
            path = endpoint.removeprefix("ipc://")
            if path == endpoint:
                if endpoint:
                    bind_endpoint(sock, endpoint)
                continue
            with claimed(path):
                bind_endpoint(sock, endpoint)
                os.chmod(path, 0o600)
                self._sockets[path] = os.lstat(path).st_ino
        if self.pubsub_endpoint:
            self.watch(publisher, lambda: self._take_subscription(publisher))

    def unbind(self, linger: int = 0) -> None:
        """Close both sockets; see `Server`. libzmq leaves their files, which go, too."""
        super().unbind(linger)
        while self._sockets:
            path, inode = self._sockets.popitem()
            with contextlib.suppress(OSError):
                if os.lstat(path).st_ino == inode:  # else it is another host's by now
                    os.unlink(path)

    def close(self) -> None:
        """Let the last replies go, and close; may be called twice."""
        with contextlib.suppress(CircusdError):  # it is closed already
            self.run(lambda: self.unbind(_FAREWELL))
        super().close()

    def announce(self, name: str, action: str, **payload: Any) -> None:
        """Publish what happened to a plugin; from any thread, never raises."""
        if not self.pubsub_endpoint:
            return
        topic = f"watcher.{to_res_name(PLUGIN_PREFIX + name)}.{action}".encode()
        data = json.dumps({"time": time.time(), **payload}).encode()
        with contextlib.suppress(CircusdError):  # it is closed, or about to be
            self.post(lambda: self.publish(topic, data))

    # On the serving thread.

    def _take(self, send_back: SendBack, frame: bytes) -> None:
        try:
            self._carry_out(send_back, frame)
        except Exception:  # noqa: BLE001 - whatever one client sends, the next is served
            logger.exception("control: a command of %d bytes was not carried out", len(frame))

    def _carry_out(self, send_back: SendBack, frame: bytes) -> None:
        request = read_request(frame)
        if not isinstance(request, Request):
            self._count_garbage(len(frame))
            if request is not None:
                send_back(json.dumps(request).encode())
            return
        self.respond(request, send_back)

    def respond(self, request: Request, send_back: SendBack) -> None:
        """Carry out a command and send the reply, at once or later."""
        outcome = answer(
            COMMANDS, self.watchers, request.command, request.properties, _hint_at_command
        )
        if isinstance(outcome, Future):
            outcome.add_done_callback(lambda done: self._answer_later(send_back, request, done))
        elif request.wants_reply:
            send_back(reply_frame(outcome, request.id))

    def _answer_later(self, send_back: SendBack, request: Request, done: Future[Reply]) -> None:
        if request.wants_reply:
            error = done.exception()
            reply = done.result() if error is None else error_reply(str(error), SERVER_ERROR)
            self.send_later(send_back, reply_frame(reply, request.id))

    def send_later(self, send_back: SendBack, frame: bytes) -> None:
        """Send a reply; from any thread."""
        if threading.current_thread() is self._thread:  # `close` may be what is next to be done
            send_back(frame)
            return
        with contextlib.suppress(CircusdError):  # it is closed: nobody waits any more
            self.post(lambda: send_back(frame))

    def _count_garbage(self, size: int) -> None:
        self._garbage += 1
        if is_milestone(self._garbage):
            logger.warning(
                "control: %d messages were no commands so far, the last one of %d bytes",
                self._garbage,
                size,
            )

    def not_read(self) -> None:
        """See `Server`."""
        self._unread += 1
        if is_milestone(self._unread):
            logger.warning("control: %d replies were dropped, nobody reads them", self._unread)

    def _take_subscription(self, publisher: zmq.Socket[bytes]) -> None:
        change = {b"\x01": 1, b"\x00": -1}.get(publisher.recv()[:1], 0)
        self._subscriptions += change
        if change > 0 and self._subscriptions == 1:
            self._conflicts = self._count_conflicts()
            if not self._looking:
                self._looking = True
                self.call_later(_CONFLICTS_EVERY, self._look_for_conflicts)

    def _look_for_conflicts(self) -> None:
        self._looking = bool(self._subscriptions)
        if not self._looking:
            return
        before, self._conflicts = self._conflicts, self._count_conflicts()
        for name, count in self._conflicts.items():
            if count > before.get(name, 0):
                self.announce(name, "conflict", conflicts=count)
        self.call_later(_CONFLICTS_EVERY, self._look_for_conflicts)

    def _count_conflicts(self) -> dict[str, int]:
        statuses = self._host.statuses(True)
        return {name: status.counters.conflicts for name, status in statuses.items()}


def _hint_at_command(command: str) -> str:
    return did_you_mean(command.lower(), COMMANDS)


def limit_clients(router: zmq.Socket[bytes], longest: int) -> None:
    """Let no client take much memory; a command may have so many bytes."""
    router.setsockopt(zmq.MAXMSGSIZE, longest)
    router.setsockopt(zmq.RCVHWM, _UNREAD_COMMANDS)
    router.setsockopt(zmq.SNDHWM, _UNREAD_REPLIES)
    router.setsockopt(zmq.ROUTER_MANDATORY, 1)  # so that a reply not sent is known of


def bind_endpoint(sock: zmq.Socket[bytes], endpoint: str) -> None:
    """Bind a socket.

    Raises:
        HostError: That is not possible.
    """
    try:
        sock.bind(endpoint)
    except zmq.ZMQError as error:
        reason = os.strerror(error.errno or 0)
        raise HostError(f"cannot listen on {endpoint}: {reason}") from None
