# A selector for asyncio that is one blocking zmq.Poller, so that ZMQ sockets and file
# descriptors wait in the same poll.
#
# Owner: the thread of the loop that it belongs to.

from __future__ import annotations

import math
import os
import selectors
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import zmq

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE
# As plain ints: arithmetic with pyzmq's enum members takes longer than the poll itself.
_POLLIN = int(zmq.POLLIN)
_POLLOUT = int(zmq.POLLOUT)
_POLLERR = int(zmq.POLLERR)
_EVENTS = int(zmq.EVENTS)


class PollerSelector(selectors.BaseSelector):
    """A selector over one `zmq.Poller`; takes ZMQ sockets, descriptors and files.

    Attributes:
        busy_since: When the last poll returned (seconds of `time.monotonic`), 0.0 during a
            poll: how long the callbacks of this round have been running.
        on_wake: Called after a poll that waited; the host's stall watch hooks in here.
    """

    def __init__(self) -> None:
        self._poller = zmq.Poller()
        self._keys: dict[Any, selectors.SelectorKey] = {}
        self._view = _KeyView(self._keys)
        self.busy_since = 0.0
        self.on_wake: Callable[[], object] | None = None

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        handle = _handle(fileobj)
        if handle in self._keys:
            raise KeyError(f"{fileobj!r} is already registered")
        fd = handle if isinstance(handle, int) else -1
        key = self._keys[handle] = selectors.SelectorKey(fileobj, fd, events, data)
        self._poller.register(handle, _poll_flags(events))
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        handle = _handle(fileobj, self._keys)
        key = self._keys.pop(handle)
        self._poller.unregister(handle)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        handle = _handle(fileobj, self._keys)
        key = self._keys[handle]
        if key.events != events:
            self._poller.modify(handle, _poll_flags(events))
        changed = self._keys[handle] = key._replace(events=events, data=data)
        return changed

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        wait = -1 if timeout is None else math.ceil(timeout * 1000) if timeout > 0 else 0
        self.busy_since = 0.0
        try:
            polled = self._poller.poll(wait)
        except zmq.ZMQError:
            if not self._drop_closed_sockets():
                raise
            polled = []
        self.busy_since = time.monotonic()
        if wait and self.on_wake is not None:
            self.on_wake()
        ready = []
        for handle, flags in polled:
            key = self._keys.get(handle)
            if key is None:
                self._drop_closed_sockets()
                continue
            if flags & _POLLERR and key.fd >= 0 and not _is_open(key.fd):
                # Closed under us and never removed: epoll forgets such a descriptor, a poll
                # would report it for ever.
                self.unregister(key.fd)
                continue
            mask = (READ if flags & ~_POLLOUT else 0) | (WRITE if flags & ~_POLLIN else 0)
            if mask & key.events:
                ready.append((key, mask & key.events))
        return ready

    def _drop_closed_sockets(self) -> bool:
        """Forget ZMQ sockets that were closed under us; pyzmq polls descriptor 0 for such a one."""
        closed = [item for item in self._keys if isinstance(item, zmq.Socket) and item.closed]
        for item in closed:
            self.unregister(item)
        return bool(closed)

    def close(self) -> None:
        self._keys.clear()
        self._poller = zmq.Poller()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._view


class _KeyView(Mapping[Any, selectors.SelectorKey]):
    """The registered keys, looked up by whatever they were registered with."""

    def __init__(self, keys: dict[Any, selectors.SelectorKey]) -> None:
        self._keys = keys

    def __getitem__(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys[_handle(fileobj, self._keys)]

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._keys)


def _handle(fileobj: Any, known: Mapping[Any, selectors.SelectorKey] | None = None) -> Any:
    """What the poller knows a file by: itself for a ZMQ socket, else its descriptor."""
    if isinstance(fileobj, int | zmq.Socket):
        return fileobj
    fd = fileobj.fileno()
    if fd < 0 and known is not None:
        # Already closed: find it by identity, as the standard selectors do.
        for handle, key in known.items():
            if key.fileobj is fileobj:
                return handle
    if fd < 0:
        raise ValueError(f"{fileobj!r} is closed")
    return fd


def _poll_flags(events: int) -> int:
    return (_POLLIN if events & READ else 0) | (_POLLOUT if events & WRITE else 0)


def is_readable(socket: zmq.Socket[bytes]) -> bool:
    """Whether a message can be received; half of what a receive that finds none costs."""
    return bool(int(socket.getsockopt(_EVENTS)) & _POLLIN)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
