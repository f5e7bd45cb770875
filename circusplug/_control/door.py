# The one door of a host and the circusd that it has started: the endpoint of the file. What is
# about plugins is the host's, all else is passed on to circusd, and what concerns both is asked of
# both. Many commands are under way at the same time; none waits for another's reply.
#
# Owner: the serving thread.

from __future__ import annotations

import collections
import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple

import zmq

from .._config.values import user_id
from .._errors import MESSAGE_ERROR, HostError
from .._plugin.conflict_retry import FIRST_DELAY, longer, next_try
from .._wire.about_plugins import FOR_SEVERAL
from .._wire.commands import CALL_TIMEOUT, Reply, decode_reply, is_conflict
from .control_server import ControlServer, bind_endpoint, limit_clients
from .language import RefusedError, Request, answer, matching, reply_frame
from .plugin_watchers import COMMANDS, Steered
from .server import SendBack

#: How many commands may wait for circusd's replies; it never answers some. Of more the oldest is
#: forgotten.
_MOST_UNDER_WAY = 10_000
#: The largest command, in bytes: an `add` has an environment, and more.
_LONGEST_COMMAND = 16 * 1024 * 1024
#: How long circusd's part of a command is sent again while circusd is busy, in seconds: the whole
#: would be carried out twice on the plugins if its sender had to do that. He waits a bit longer.
_PATIENCE = 0.8 * CALL_TIMEOUT

_Merge = Callable[[Reply], Reply]


class _UnderWay(NamedTuple):
    send_back: SendBack
    request: Request
    merge: _Merge
    ours: Future[Reply] | None
    delay: float = FIRST_DELAY
    patient_until: float = 0.0


class Door(ControlServer):
    """Takes the commands for a circusd and for the plugins beside it.

    Args:
        host: The host of the plugins.
        endpoint: Where to take commands: the endpoint of the file.
        circusd_endpoint: Where circusd takes them.
        owner: To whom an endpoint in the file system shall belong; empty: who runs the host.
    """

    def __init__(
        self, host: Steered, endpoint: str, circusd_endpoint: str, owner: str = ""
    ) -> None:
        super().__init__(host, endpoint, "")
        self._circusd_endpoint = circusd_endpoint
        self._owner = owner
        self._circusd: zmq.Socket[bytes] | None = None
        self._under_way: collections.OrderedDict[int, _UnderWay] = collections.OrderedDict()
        self._last_id = 0

    def bind_sockets(self, router: zmq.Socket[bytes], publisher: zmq.Socket[bytes]) -> None:
        """Bind where the file says, and connect to circusd, which may come later.

        Raises:
            HostError: Somebody else is there.
        """
        del publisher
        limit_clients(router, _LONGEST_COMMAND)
        bind_endpoint(router, self.endpoint)
        path = self.endpoint.removeprefix("ipc://")
        if self._owner and path != self.endpoint:
            try:
                os.chown(path, user_id(self._owner), -1)
            except (OSError, ValueError) as error:
                raise HostError(f"'endpoint_owner' {self._owner}: {error}") from None
        circusd = self._circusd = self._context.socket(zmq.DEALER)
        circusd.linger = 0
        # What comes before this connection stands waits for it: circusd is there, or the host ends.
        circusd.connect(self._circusd_endpoint)
        self.watch(circusd, self._take_reply)

    def unbind(self, linger: int = 0) -> None:
        """Close the sockets; see `Server`."""
        if self._circusd is not None:
            self.unwatch(self._circusd)
            self._circusd.close(0)
            self._circusd = None
        super().unbind(linger)

    def respond(self, request: Request, send_back: SendBack) -> None:
        """Carry out a command, have circusd carry it out, or both."""
        command = request.command.lower()
        properties = request.properties if isinstance(request.properties, dict) else {}
        if command in ("quit", "reloadconfig"):
            super().respond(request, send_back)  # the host has circusd do it, too
        elif "name" not in properties and command in _MERGERS:
            self._merge(request, send_back, _MERGERS[command])
        elif command == "globaloptions":
            self._pass_on(request, send_back, self._with_own_endpoint)
        elif command in FOR_SEVERAL and ("name" not in properties or self._are_ours(properties)):
            only_ours = str(properties.get("name", "")).lower().startswith("plugin:")
            if only_ours:
                super().respond(request, send_back)
            else:
                self._merge(request, send_back, _either, time.monotonic() + _PATIENCE)
        elif self._is_ours(properties):
            super().respond(request, send_back)
        else:
            self._pass_on(request, send_back, lambda reply: reply)

    def _is_ours(self, properties: Mapping[str, Any]) -> bool:
        name = properties.get("name")
        return isinstance(name, str) and bool(matching(self.watchers.specs, name, "simple"))

    def _are_ours(self, properties: Mapping[str, Any]) -> bool:
        try:
            match = properties.get("match", "glob")
            return bool(matching(self.watchers.specs, properties["name"], match))
        except RefusedError:
            return False  # circusd says what is wrong

    def _merge(
        self,
        request: Request,
        send_back: SendBack,
        merge: Callable[[Reply, Reply], Reply],
        patient_until: float = 0.0,
    ) -> None:
        """Have a command carried out by both, and make one reply of two."""
        ours = answer(COMMANDS, self.watchers, request.command, request.properties)
        later = ours if isinstance(ours, Future) else None
        now: Reply = {"status": "ok"} if isinstance(ours, Future) else ours
        self._ask(
            _UnderWay(
                send_back,
                request,
                lambda reply: merge(reply, now),
                later,
                patient_until=patient_until,
            )
        )

    def _pass_on(self, request: Request, send_back: SendBack, merge: _Merge) -> None:
        self._ask(_UnderWay(send_back, request, merge, None))

    def _ask(self, under_way: _UnderWay) -> None:
        """Send a command to circusd under an id of our own; its reply comes back by that."""
        self._last_id += 1
        request, may_conflict = under_way.request, under_way.patient_until
        if request.wants_reply or may_conflict:
            self._under_way[self._last_id] = under_way
            if len(self._under_way) > _MOST_UNDER_WAY:
                self._under_way.popitem(last=False)
        passed = {
            "id": self._last_id,
            "command": request.command,
            "properties": request.properties,
            "msg_type": None if may_conflict else request.kind,
        }
        assert self._circusd is not None
        with contextlib.suppress(zmq.Again):  # it hangs: there is no reply, as without us
            self._circusd.send(json.dumps(passed).encode(), zmq.NOBLOCK)

    def _take_reply(self) -> None:
        assert self._circusd is not None
        reply = decode_reply(self._circusd.recv())
        number = reply.get("id") if reply is not None else None
        under_way = self._under_way.pop(number, None) if isinstance(number, int) else None
        if reply is None or under_way is None:
            return
        if under_way.patient_until and is_conflict(reply):
            until = under_way.patient_until
            if next_try(under_way.delay, until, time.monotonic()) is not None:
                again = under_way._replace(delay=longer(under_way.delay))
                self.call_later(under_way.delay, lambda: self._ask(again))
                return
            reply["reason"] = f"only the plugins were reached: {reply['reason']}"
        if not under_way.request.wants_reply:
            return
        merged = {**under_way.merge(reply), "id": under_way.request.id}
        if under_way.ours is None:
            under_way.send_back(json.dumps(merged).encode())
            return

        def send(done: Future[Reply]) -> None:
            error = done.exception()
            if error is not None and merged.get("status") == "ok":
                merged.update(status="error", reason=str(error), errno=MESSAGE_ERROR, tb=None)
            self.send_later(under_way.send_back, reply_frame(merged, under_way.request.id))

        under_way.ours.add_done_callback(send)

    def _with_own_endpoint(self, reply: Reply) -> Reply:
        options = reply.get("options")
        if isinstance(options, dict) and "endpoint" in options:
            return {**reply, "options": {**options, "endpoint": self.endpoint}}
        return reply


# One reply of circusd's and ours.


def _either(theirs: Reply, ours: Reply) -> Reply:
    """A pattern that fits no watcher of circusd's may fit a plugin."""
    absent = theirs.get("status") == "error" and theirs.get("errno") == MESSAGE_ERROR
    return {**theirs, **ours, "reason": None} if absent else theirs


def _joined(key: str) -> Callable[[Reply, Reply], Reply]:
    def join(theirs: Reply, ours: Reply) -> Reply:
        if theirs.get("status") == "error":
            return theirs
        first, second = theirs.get(key), ours[key]
        if isinstance(first, dict):
            return {**theirs, key: {**first, **second}}
        if isinstance(first, list):
            return {**theirs, key: sorted([*first, *second])}
        return {**theirs, key: first + second}

    return join


def _with_host(theirs: Reply, ours: Reply) -> Reply:
    """circusd's own figures, with those of the host as one of its children's."""
    info = theirs.get("info")
    if not isinstance(info, dict):
        return theirs
    return {**theirs, "info": {**info, "children": [*info.get("children", []), ours["info"]]}}


_MERGERS: Mapping[str, Callable[[Reply, Reply], Reply]] = {
    "dstats": _with_host,
    "list": _joined("watchers"),
    "numprocesses": _joined("numprocesses"),
    "numwatchers": _joined("numwatchers"),
    "stats": _joined("infos"),
    "status": _joined("statuses"),
}
