# What the tests of the bundled plugins share: the log, to be waited for, and deaths.

from __future__ import annotations

import inspect
import logging
import queue
import time
from collections.abc import Callable
from typing import Any

from patience import PATIENCE

from circusplug.testing import RunningPlugin

#: 2026-01-02 03:04:05 UTC.
MOMENT = 1767323045.0


class Journal(logging.Handler):
    """What circusplug logs, to be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
        self.seen: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.put(record)

    def wait(self, text: str) -> logging.LogRecord:
        """Wait for a message with a text in it that was not waited for before."""
        while True:
            try:
                record = self.records.get(timeout=PATIENCE)
            except queue.Empty:
                raise AssertionError(f"{text!r} was not logged, but {self.messages}") from None
            self.seen.append(record)
            if text in record.getMessage():
                return record

    @property
    def messages(self) -> list[str]:
        while not self.records.empty():
            self.seen.append(self.records.get())
        return [record.getMessage() for record in self.seen]


def do(running: RunningPlugin, callback: Callable[..., object], *arguments: Any) -> None:
    """Have something done on the plugin's thread, and wait until it is."""
    asked = given(running, "numwatchers")

    async def done() -> None:
        result = callback(*arguments)
        if inspect.isawaitable(result):
            await result
        running.plugin.cast("numwatchers")

    running.plugin.loop.add_callback(done)
    running.circusd.wait_command("numwatchers", count=len(asked) + 1, timeout=2 * PATIENCE)


def given(running: RunningPlugin, *commands: str) -> list[str]:
    """Those of these commands that the plugin has sent."""
    return [one.command for one in running.circusd.commands if one.command in commands]


def die(running: RunningPlugin, moment: float = MOMENT, watcher: str = "web") -> None:
    running.publish(watcher, "reap", process_pid=7, exit_code=3, time=moment)


def let_pass(running: RunningPlugin, seconds: float) -> None:
    """Have the clock of the plugin's loop go forward, so that its timers are due."""
    loop = running.plugin.loop
    loop.add_callback(setattr, loop, "time", lambda: time.monotonic() + seconds)
