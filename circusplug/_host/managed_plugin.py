# The place of one plugin in a host: what is known of it from one life to the next.
#
# Owner: the supervising thread; other threads only ask for the `status`.

from __future__ import annotations

from collections.abc import Callable

from .._config.specs import PluginSpec
from .._runners.runner import Runner
from .._status import Counters, PluginStatus
from .._wire.endpoints import Link
from .restart_policy import RestartPolicy


class Slot:
    """The place of one plugin in the host; runners come and go in it."""

    def __init__(self, spec: PluginSpec) -> None:
        self.spec = spec
        self.policy = RestartPolicy(spec.host)
        self.counters = Counters()
        self.runner: Runner | None = None
        self.prepared: Runner | None = None  # the next `runner`
        self.state = "inactive" if not spec.active else "stopped"
        self.last_error: str | None = None
        self.restart_at: float | None = None
        self.start_deadline: float | None = None
        self.link: Link | None = None
        self.awaits_start = spec.active

    def status(self, is_stalled: Callable[[Runner], bool]) -> PluginStatus:
        """What it is doing, from any thread."""
        spec, runner, state = self.spec, self.runner, self.state
        counters = self.counters.copy()
        if runner is None:  # or not any more, a moment ago
            return PluginStatus(
                spec.name, spec.use_name, state, spec.isolate, counters, self.last_error
            )
        return PluginStatus(
            spec.name,
            spec.use_name,
            "stalled" if state == "running" and is_stalled(runner) else state,
            spec.isolate,
            counters,
            runner.last_error or self.last_error,
            runner.thread,
            runner.pid,
            runner.connected,
        )

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen in it by itself."""
        return self.runner is None and self.restart_at is None
