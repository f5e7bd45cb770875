# Plugins of which everything fails, in an order that a seed decides: constructors, handle_init,
# handlers, handle_stop, stalls, processes that die, a circusd that goes and comes. In the end they
# are what was asked for, each handle_init that completed has had its handle_stop, the counters add
# up, and (this is for the fixture in conftest.py to see) nothing is left behind.
#
# CIRCUSPLUG_SEED repeats a run of that seed alone.

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from failing import Failing, Journal
from patience import PATIENCE

from circusplug import Arbiter, PluginStatus
from circusplug._isolated.forkserver import FORKSERVER
from circusplug.testing import FakeCircusd

OPERATIONS = int(os.environ.get("CIRCUSPLUG_OPERATIONS", "30"))
SEEDS = [int(os.environ["CIRCUSPLUG_SEED"])] if os.environ.get("CIRCUSPLUG_SEED") else range(10)
THREADS = ["t1", "t2", "t3", "t4", "t5"]
PROCESSES = ["p1", "p2", "p3"]

#: What a process may not survive, so that there is no handle_stop.
DEADLY = ("die", "kill", "hang")


class Trial:
    """What was asked for so far, and the operations that change it."""

    def __init__(self, circusd: FakeCircusd, seed: int, journal: Path) -> None:
        self.circusd = circusd
        self.random = random.Random(seed)
        self.stopped: set[str] = set()
        self.asked: Counter[str] = Counter()  # how often each was to be started
        self.stops: Counter[str] = Counter()
        self.log: list[str] = []
        journal.touch()
        plugins = []
        for name in (*THREADS, *PROCESSES):
            isolate = name in PROCESSES
            option = {
                "use": Failing,
                "name": name,
                "isolate": isolate,
                "seed": seed,
                "journal": str(journal),
                "hang": 1000 if isolate else 0.05,
                "host.restart": "always",
                "host.max_restarts": -1,
                "host.restart_delay": 0.01,
                "host.restart_delay_max": 0.05,
            }
            if isolate:
                option |= {"host.on_stall": "restart", "host.stall_timeout": 0.3}
                option |= {"host.graceful_timeout": 0.2}
            plugins.append(option)
        self.arbiter = Arbiter(
            plugins, circusd.endpoint, circusd.pubsub_endpoint, stop_timeout=PATIENCE
        )
        self.operations: dict[Callable[[], str], int] = {
            self.restart: 3,
            self.stop: 4,
            self.start: 5,
            self.misbehave: 12,
            self.circusd_away: 1,
            self.kill_forkserver: 1,
        }

    def go(self, count: int) -> None:
        for operation in self.random.choices(
            list(self.operations), list(self.operations.values()), k=count
        ):
            self.log.append(f"{operation.__name__} {operation()}")

    def is_as_wanted(self, now: dict[str, PluginStatus]) -> bool:
        return all(
            status.state == "stopped"
            if name in self.stopped
            else status.state == "running" and status.connected
            for name, status in now.items()
        )

    def _any(self) -> str:
        return self.random.choice([*THREADS, *PROCESSES])

    def restart(self) -> str:
        name = self._any()
        self.asked[name] += 1
        self.arbiter.restart_plugin(name)
        self.stopped.discard(name)
        return name

    def stop(self) -> str:
        name = self._any()
        self.stops[name] += 1
        self.arbiter.stop_plugin(name)
        self.stopped.add(name)
        return name

    def start(self) -> str:
        name = self.random.choice(sorted(self.stopped)) if self.stopped else self._any()
        self.asked[name] += 1
        self.arbiter.start_plugin(name)
        self.stopped.discard(name)
        return name

    def misbehave(self) -> str:
        name = self._any()
        deeds = ["raise", "raise", "exit", "hang", *(DEADLY if name in PROCESSES else ())]
        deed = self.random.choice(deeds)
        self.circusd.publish("web", deed, **{"for": name})
        return f"{name}: {deed}"

    def circusd_away(self) -> str:
        """Have circusd go, something happen meanwhile, and circusd come back."""
        self.circusd.stop()
        done = self.random.choice([self.restart, self.start])()
        self.circusd.start()
        return done

    def kill_forkserver(self) -> str:
        if FORKSERVER.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(FORKSERVER.pid, signal.SIGKILL)
        return ""


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_fails_the_host_does_what_was_asked_for(
    seed: int, fake_circusd: FakeCircusd, tmp_path: Path, unhurried_end: None, absent_soon: None
) -> None:
    trial = Trial(fake_circusd, seed, tmp_path / "journal")
    try:
        with trial.arbiter:
            trial.go(OPERATIONS)
            trial.arbiter.wait(trial.is_as_wanted, PATIENCE)
        journal = Journal(tmp_path / "journal")
        assert {status.state for status in trial.arbiter.plugins.values()} == {"stopped"}
        for who, did in journal.by_instance.items():
            _look_at_stops(who, did)
        for name, status in trial.arbiter.plugins.items():
            _look_at_counters(status, journal.by_name[name], trial.asked[name], trial.stops[name])
    except BaseException:
        print("\n".join(trial.log))
        print((tmp_path / "journal").read_text())
        for name, status in trial.arbiter.plugins.items():
            print(name, status)
        raise


def _look_at_stops(who: str, did: Counter[str]) -> None:
    may_die = any(did[deed] for deed in DEADLY) and who.startswith("p")
    assert did["stop"] == did["init"] or (may_die and did["stop"] == 0), (who, did)
    assert did["init"] <= 1, (who, did)


def _look_at_counters(status: PluginStatus, did: Counter[str], asked: int, stops: int) -> None:
    counters = status.counters
    if status.isolated:  # what a process did last before it died is not known
        assert counters.handled <= counters.received
        return
    assert counters.errors == did["raise"] + did["handle_stop fails"], (status, did)
    assert counters.received - counters.handled == did["raise"] + did["exit"], (status, did)
    # No restarts are the first one, those that were asked for, and those after circusd was away.
    others = asked + did["away"] + did["handle_init fails"]
    # A stop, and the host's own at the end, may overtake one before its instance is made.
    assert -stops - 1 <= did["made"] - 1 - counters.restarts <= others, (status, did)
