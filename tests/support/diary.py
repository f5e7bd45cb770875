# A plugin that notes what happens to it and when, for tests of virtual time.

from __future__ import annotations

import functools
import subprocess
import sys
from typing import Any

from circusplug import CallTimeout, CircusPlugin
from circusplug.testing import RunningPlugin

Event = tuple[bytes, bytes]


class Diary(CircusPlugin):
    """Notes what happens to it, with the moment."""

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self.notes: list[tuple[float, str]] = []

    def note(self, what: str) -> None:
        self.notes.append((round(self.loop.time(), 3), what))

    def handle_recv(self, data: Event) -> Any:
        event = self.parse_event(data)
        self.note(f"{event.watcher} {event.action}")

    def later(self, seconds: float, way: str, command: str, **properties: Any) -> None:
        """Call circusd in a while."""
        call = functools.partial(getattr(self, way), command, **properties)
        self.loop.call_later(seconds, self.loop.add_callback, call)

    def called(self, command: str, **properties: Any) -> None:
        """Note how a call of the blocking kind ends, and when."""
        try:
            self.call(command, **properties)
            self.note(f"{command} answered")
        except CallTimeout:
            self.note(f"{command} timed out")

    async def awaited(self, command: str, **properties: Any) -> None:
        """The same for one that is awaited."""
        try:
            await self.call_async(command, **properties)
            self.note(f"{command} answered")
        except CallTimeout:
            self.note(f"{command} timed out")


def takes_real_time(*_: object) -> dict[str, Any]:
    """Do something that takes a computer some time."""
    subprocess.run([sys.executable, "-c", ""], check=True)
    return {}


def notes_of(plugin: RunningPlugin) -> list[tuple[float, str]]:
    """What a `Diary` has noted since this was asked last."""
    diary: Diary = plugin.plugin
    notes, diary.notes = diary.notes, []
    return notes
