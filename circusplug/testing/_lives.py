# The lives of a fleet, as a script tells them: what watchers there are, what their processes do by
# themselves, and what an operator does and when.
#
# Owner: the serving thread, once they have begun.

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Any

from ._core import Core
from ._life import Life
from ._model import Watcher

_COMMANDS = {
    "starts": ("watcher_start", Watcher.start),
    "stops": ("watcher_stop", Watcher.stop),
    "restarts": ("watcher_restart", Watcher.restart),
    "reloads": ("watcher_reload", Watcher.reload),
}


@dataclass(frozen=True)
class Happening:
    """Something that happens at moments that are told beforehand.

    Attributes:
        what: The verb; of circusd and watchers what an operator does, or ``ends``: of a process.
        moment: When, the first time, in seconds since the script began.
        period: After how long again; 0: never.
        exit_code: Of the process that ends.
    """

    what: str
    moment: float
    period: float = 0.0
    exit_code: int = 0


@dataclass
class Plan:
    """What a script says of one watcher.

    Attributes:
        name: Its name as written.
        options: Its options.
        life: What its processes do.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    life: Life = field(default_factory=Life)


class Lives:
    """A script that was read, for one FakeCircusd.

    Attributes:
        plans: What is said of each watcher, by lower-cased name.
        happenings: What happens to circusd and to watchers, by lower-cased name, in the order of
            lines.
    """

    def __init__(self) -> None:
        self.plans: dict[str, Plan] = {}
        self.happenings: list[tuple[str, Happening]] = []
        self._begun = 0.0
        self._down = False
        self._due: list[tuple[float, int, int]] = []

    def configure(self, core: Core) -> None:
        """Have the watchers as the script says, without an event."""
        for name, plan in self.plans.items():
            if name not in core.fleet.watchers:
                core.fleet.configure(plan.name, plan.options)
            else:
                core.fleet.change(core.fleet.watchers[name], plan.options)
            core.fleet.watchers[name].life = plan.life

    def begin(self, core: Core) -> None:
        """Let time begin."""
        self._begun = core.monotonic()
        for name, plan in self.plans.items():
            plan.life.moment = lambda: core.monotonic() - self._begun
            for process in core.fleet.watchers[name].alive:
                core.fleet.watchers[name].live(process)
        moments = [happening.moment for _, happening in self.happenings]
        self._due = [(moment, place, 1) for place, moment in enumerate(moments)]
        heapq.heapify(self._due)
        self._wait(core)

    def begin_again(self, core: Core) -> None:
        """Let time begin when `Fleet.begin_anew` has ended it, with all watchers as at first."""
        if self._down and not core.server.bound:
            core.start_circusd()
        self._down = False
        self.configure(core)
        core.fleet.start_quietly(core.fleet.watchers[name] for name in self.plans)
        self.begin(core)

    def _wait(self, core: Core) -> None:
        if self._due:
            in_seconds = self._begun + self._due[0][0] - core.monotonic()
            core.fleet.call_later(max(0.0, in_seconds), lambda: self._act(core))

    def _act(self, core: Core) -> None:
        """Do what is due first, and wait for the next."""
        _, place, count = self._due[0]
        name, happening = self.happenings[place]
        if happening.period:
            due = happening.moment + count * happening.period
            heapq.heapreplace(self._due, (due, place, count + 1))
        else:
            heapq.heappop(self._due)
        if name == "circusd":
            self._do_to_circusd(core, happening)
        else:
            _do(core, name, happening)
        self._wait(core)

    def _do_to_circusd(self, core: Core, happening: Happening) -> None:
        fleet = core.fleet
        if happening.what == "starts":
            self._down = False
            if not core.server.bound:
                core.start_circusd()
        elif core.server.bound:
            again = happening.what == "restarts"
            self._down = not again
            fleet.when_idle(lambda: fleet.exclusively("arbiter_stop", fleet.quit(again)))


def _do(core: Core, name: str, happening: Happening) -> None:
    """Have done to a watcher what its time has come for; nothing if it was removed."""
    watcher = core.fleet.watchers.get(name)
    if watcher is None:
        return
    if happening.what == "ends":
        for process in watcher.alive[:1]:
            watcher.end(process, happening.exit_code)
    else:
        command, steps = _COMMANDS[happening.what]
        core.fleet.when_idle(lambda: core.fleet.exclusively(command, steps(watcher)))
