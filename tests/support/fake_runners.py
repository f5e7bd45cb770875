# Lives of plugins that do nothing by themselves, for tests of those who look after them.

from __future__ import annotations

import threading
from typing import Any

from circusplug import Counters, PluginSpec
from circusplug._runners.runner import Kind, Notice


class FakeRunner:
    """One life of a plugin, which notes what is asked of it.

    Attributes:
        asked: What was asked of it, in order.
        ends: Whether its thread ends when it is stopped.
        answered: What its `refresh` returns.
    """

    def __init__(self, spec: PluginSpec, counters: Counters | None = None, state: Any = None):
        self.spec = spec
        self.counters = counters or Counters()
        self.state = state
        self.hands_over = False
        self.saved: Any = None
        self.failure: str | None = None
        self.last_error: str | None = None
        self.running = self.connected = self.awaits_circusd = False
        self.thread: Any = None
        self.pid: int | None = None
        self.busy_since = 0.0
        self.instance: object | None = None
        self.asked: list[str] = []
        self.deadlines: list[float] = []
        self.ends = True
        self.answered: threading.Event | None = None

    def notice(self, kind: Kind, error: str | None = None, **more: bool) -> Notice:
        return Notice(self, kind, error, **more)

    def start(self) -> None:
        self.asked.append("start")

    def begin_stop(self, deadline: float) -> None:
        self.asked.append("begin_stop")
        self.deadlines.append(deadline)

    def finish_stop(self, deadline: float) -> bool:
        self.asked.append("finish_stop")
        self.deadlines.append(deadline)
        return self.ends

    def abandon(self) -> None:
        self.asked.append("abandon")

    def stack(self) -> str:
        return "  its stack"

    def refresh(self) -> threading.Event | None:
        self.asked.append("refresh")
        return self.answered

    def measure_lag(self) -> None:
        self.asked.append("measure_lag")

    def log_level_changed(self) -> None:
        self.asked.append("log_level_changed")

    def run_handle_stop(self) -> None:
        self.asked.append("run_handle_stop")
