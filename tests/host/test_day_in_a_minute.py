# Two hundred things that happen to a host in a day, one after the other as fast as they can be
# done, in an order that the seed decides. Whatever they are, in the end the plugins run that
# were asked for, and (this is for the fixture in conftest.py to see) nothing is left behind.
#
# CIRCUSPLUG_SEED repeats a run, CIRCUSPLUG_OPERATIONS makes it longer.

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator

from patience import PATIENCE
from troublemakers import Troublemaker

from circusplug import Arbiter, HostConfig, PluginSpec, PluginStatus
from circusplug._isolated.forkserver import FORKSERVER
from circusplug.testing import FakeCircusd

PLUGINS = 20
OPERATIONS = int(os.environ.get("CIRCUSPLUG_OPERATIONS", "80"))
SEED = int(os.environ.get("CIRCUSPLUG_SEED") or random.SystemRandom().randrange(10**6))


class Day:
    """What was asked for so far, and the operations that change it."""

    def __init__(self, circusd: FakeCircusd, seed: int) -> None:
        self.circusd = circusd
        self.random = random.Random(seed)
        self.wanted: dict[str, PluginSpec] = {}
        self.stopped: set[str] = set()
        self.stop_timeout = 2.0
        self.log: list[str] = []
        self._numbers = iter(range(10**6))
        for _ in range(PLUGINS):
            self._invent()
        self.arbiter = Arbiter.from_config(self._config(), reload=self._config)
        self.operations: dict[Callable[[], str], int] = {
            self.add: 3,
            self.remove: 3,
            self.restart: 5,
            self.stop: 5,
            self.start: 5,
            self.crash: 6,
            self.hang: 3,
            self.fail: 3,
            self.leave: 3,
            self.reload: 2,
            self.restart_circusd: 1,
            self.kill_forkserver: 1,
        }

    def go(self, count: int) -> None:
        """Do some operations, chosen by their weights."""
        chosen = self.random.choices(list(self.operations), list(self.operations.values()), k=count)
        for operation in chosen:
            self.log.append(f"{operation.__name__}...")
            self.log[-1] = f"{operation.__name__} {operation()}"

    def is_as_wanted(self, now: dict[str, PluginStatus]) -> bool:
        """Whether the host has the plugins asked for, in the state asked for."""
        return set(now) == set(self.wanted) and all(
            status.state == "stopped"
            if name in self.stopped
            else status.state == "running" and status.connected
            for name, status in now.items()
        )

    # What a person does.

    def add(self) -> str:
        return self.arbiter.add_plugin(self._invent())

    def remove(self) -> str:
        name = self._any()
        self.arbiter.remove_plugin(name)
        del self.wanted[name]
        self.stopped.discard(name)
        return name

    def restart(self) -> str:
        name = self._any()
        self.arbiter.restart_plugin(name)
        self.stopped.discard(name)
        return name

    def stop(self) -> str:
        name = self._any()
        self.arbiter.stop_plugin(name)
        self.stopped.add(name)
        return name

    def start(self) -> str:
        name = self.random.choice(sorted(self.stopped)) if self.stopped else self._any()
        self.arbiter.start_plugin(name)
        self.stopped.discard(name)
        return name

    def reload(self) -> str:
        """Change some, take one out and put one in, and have the host read that."""
        changed = self.random.sample(sorted(self.wanted), 3)
        gone = changed.pop()
        del self.wanted[gone]
        self._invent()
        for name in changed:
            self._invent(name)
        done = self.arbiter.reload()
        # What is new is started, whatever its predecessor was asked to be.
        self.stopped -= {gone, *changed}
        return str(done)

    # What happens by itself.

    def crash(self) -> str:
        name = self._any()
        deeds = ("exit", "segfault", "kill") if self.wanted[name].isolate else ("sys exit",)
        return self._publish(self.random.choice(deeds), name)

    def hang(self) -> str:
        return self._publish("hang", self._any())

    def fail(self) -> str:
        return self._publish("raise", self._any())

    def leave(self) -> str:
        """Have a plugin stop itself: it is started again, as it is always to run."""
        return self._publish("stop", self._any())

    def restart_circusd(self) -> str:
        self.circusd.restart()
        return ""

    def kill_forkserver(self) -> str:
        if FORKSERVER.pid is not None:  # it may not have been needed again yet
            with contextlib.suppress(ProcessLookupError):
                os.kill(FORKSERVER.pid, signal.SIGKILL)
        return ""

    def _any(self) -> str:
        return self.random.choice(sorted(self.wanted))

    def _publish(self, deed: str, name: str) -> str:
        self.circusd.publish("web", deed, **{"for": name})
        return f"{name}: {deed}"

    def _invent(self, name: str | None = None) -> PluginSpec:
        """Want one more plugin, or another one of that name."""
        number = next(self._numbers)
        isolate = self.random.random() < 0.5
        options = {
            "use": Troublemaker,
            "name": name or f"{'process' if isolate else 'thread'}-{number}",
            "number": number,
            "isolate": isolate,
            "host.restart": "always",
            "host.max_restarts": -1,
            "host.restart_delay": 0.01,
            "host.restart_delay_max": 0.1,
        }
        if isolate:
            # One that hangs does so for ever, and is killed either when it is stopped or
            # because it hangs.
            options["host.graceful_timeout"] = 0.1
            options["host.stall_timeout"] = 0.3
            options["host.on_stall"] = self.random.choice(["report", "restart"])
            options["hang"] = 1000 if options["host.on_stall"] == "restart" else 0.05
        else:
            options["hang"] = 0.05
        spec = self.wanted[str(options["name"])] = PluginSpec.from_options(options)
        return spec

    def _config(self) -> HostConfig:
        return HostConfig(
            tuple(self.wanted.values()),
            self.circusd.endpoint,
            self.circusd.pubsub_endpoint,
            stop_timeout=self.stop_timeout,
        )


class Everybody:
    """Whether everybody handles events who shall run.

    A plugin may still hang, and be killed for it in a moment, so there is more than one event.
    """

    def __init__(self, day: Day) -> None:
        self.day = day
        self.before = {
            name: status.counters.handled
            for name, status in day.arbiter.plugins.items()
            if name not in day.stopped
        }

    def handles(self, now: dict[str, PluginStatus]) -> bool:
        self.day.circusd.publish("web", "nothing")
        return self.day.is_as_wanted(now) and all(
            now[name].counters.handled > handled for name, handled in self.before.items()
        )


@contextlib.contextmanager
def onlooker(arbiter: Arbiter) -> Iterator[None]:
    """Look at the plugins all the time, on another thread."""
    over = threading.Event()
    failures = []

    def look() -> None:
        try:
            while not over.wait(0.01):
                assert all(status.name == name for name, status in arbiter.plugins.items())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=look, name="onlooker")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert failures == []


def test_after_a_day_in_a_minute_the_plugins_run_that_were_asked_for() -> None:
    print(f"CIRCUSPLUG_SEED={SEED}")
    with FakeCircusd() as circusd:
        day = Day(circusd, SEED)
        with day.arbiter, onlooker(day.arbiter):
            try:
                day.go(OPERATIONS)
                day.arbiter.wait(day.is_as_wanted, PATIENCE)
            except BaseException:
                print("\n".join(day.log))
                print("stopped:", sorted(day.stopped))
                for name, status in day.arbiter.plugins.items():
                    print(name, status)
                raise
            day.arbiter.wait(Everybody(day).handles, PATIENCE)
            # From here on it is for all of them, and a thread that is late is left behind.
            day.stop_timeout = PATIENCE
            day.arbiter.reload()
        states = {status.state for status in day.arbiter.plugins.values()}
        assert states == {"stopped"}
