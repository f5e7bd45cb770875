# Plugins of plugin authors that note what happens to them in `seen`, a queue of the test's.

from __future__ import annotations

import queue
import threading
from typing import Any

from patience import PATIENCE

from circusplug import CircusPlugin

Frames = tuple[bytes, bytes]


class Seen:
    """What a plugin noted, in order; the test takes it one by one."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def note(self, item: Any) -> None:
        self._items.put(item)

    def take(self) -> Any:
        return self._items.get(timeout=PATIENCE)

    def take_all(self, count: int) -> list[Any]:
        return [self.take() for _ in range(count)]

    @property
    def empty(self) -> bool:
        return self._items.empty()


class Noting(CircusPlugin):
    """Notes the action of each event."""

    @property
    def seen(self) -> Seen:
        seen: Seen = self.config["seen"]
        return seen

    def handle_recv(self, data: Frames) -> Any:
        self.seen.note(self.parse_event(data).action)


class Works(Noting):
    """Has `work` done on a thread of its own, from its start on."""

    def handle_init(self) -> None:
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self) -> None:
        raise NotImplementedError


class Stops(Noting):
    def handle_stop(self) -> None:
        self.seen.note(("handle_stop", threading.current_thread().name))
