# Plugins that write into a journal what happens to them, which tests wait on and look at, and
# hosts for them against a FakeCircusd. The fixtures `journal`, `release` and `host` are made
# of these in conftest.py.


from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from patience import PATIENCE

from circusplug import Arbiter, CircusPlugin, PluginStatus


class Journal:
    """What the plugins of a test did, in order, and on which thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.entries: list[tuple[str, str, threading.Thread]] = []

    def note(self, who: str, what: str) -> None:
        with self._changed:
            self.entries.append((who, what, threading.current_thread()))
            self._changed.notify_all()

    def count(self, who: str, what: str) -> int:
        return sum(entry[:2] == (who, what) for entry in self.entries)

    def wait(self, who: str, what: str, count: int = 1) -> None:
        with self._changed:
            there = self._changed.wait_for(lambda: self.count(who, what) >= count, PATIENCE)
        assert there, f"{who} {what} not seen {count} times, but {self.entries}"

    def of(self, who: str) -> list[str]:
        return [what for name, what, _ in self.entries if name == who]

    def names(self, what: str) -> list[str]:
        return [name for name, noted, _ in self.entries if noted == what]

    def thread(self, who: str, what: str) -> threading.Thread:
        return next(thread for name, noted, thread in self.entries if (name, noted) == (who, what))


class Member(CircusPlugin):
    """Writes into the journal what happens to it."""

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self.label = config["name"]
        self.journal: Journal = config["journal"]

    def note(self, what: str) -> None:
        self.journal.note(self.label, what)

    def handle_init(self) -> None:
        self.note("init")

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        self.note(self.parse_event(data).action)

    def handle_stop(self) -> None:
        self.note("stop")


class RaisesInConstructor(Member):
    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        raise ZeroDivisionError("in the constructor")


class ExitsInConstructor(Member):
    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        sys.exit(3)


class ForgetsSuperInit(Member):
    def __init__(self, *args: Any, **config: Any) -> None:
        self.config = config


class RaisesInInit(Member):
    topics = ("nothing",)  # so that a test that counts the others' subscriptions leaves it out

    def handle_init(self) -> None:
        raise ZeroDivisionError("in handle_init")


class RaisesInAsyncInit(RaisesInInit):
    async def handle_init(self) -> None:
        raise ZeroDivisionError("in handle_init")


class ForgetsSuperStart(Member):
    def start(self) -> None:
        pass


class NeverInitialised(Member):
    def handle_init(self) -> None:
        self.note("init")
        self.config["release"].wait(PATIENCE)


class Fails(Member):
    """Raises in `handle_recv` for each event `fail`, and in `handle_init` as often as told."""

    def handle_init(self) -> None:
        self.note("init")
        if self.journal.count(self.label, "init") <= self.config.get("failures", 0):
            raise ZeroDivisionError("not yet")

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        super().handle_recv(data)
        if self.parse_event(data).action == "fail":
            raise ZeroDivisionError("cannot handle it")


class Stuck(Member):
    """Blocks in `handle_recv`, with the event `block`, until it is released."""

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        super().handle_recv(data)
        if self.parse_event(data).action == "block":
            self.block()

    def block(self) -> None:
        self.config["release"].wait(PATIENCE)


class StopsItself(Member):
    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        super().handle_recv(data)
        self.stop()


class Acts(Member):
    """Does what its option `act` says for each event, on its own thread."""

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        self.config["act"]()
        super().handle_recv(data)


class RaisesInStop(Member):
    def handle_stop(self) -> None:
        self.note("stop")
        raise ZeroDivisionError("in handle_stop")


def member(name: str, use: Any = Member, **options: Any) -> dict[str, Any]:
    return {"use": use, "name": name, **options}


MakeHost = Callable[..., Arbiter]


def slow_to_load(journal: Journal, release: threading.Event) -> dict[str, Any]:
    """The options of a plugin `slow` whose class is not loaded before `release` is set."""

    class SlowToLoad(Member):
        @classmethod
        def check_config(cls, config: Mapping[str, Any]) -> None:
            journal.note("slow", "load")
            assert release.wait(PATIENCE)

    return member("slow", SlowToLoad)


@contextlib.contextmanager
def hosting(arbiter: Arbiter) -> Iterator[list[BaseException]]:
    """Run the blocking `start` on a thread; yields what it raised, once it has."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            arbiter.start()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="hosting")
    thread.start()
    # One that is stopped before it has begun refuses to start.
    arbiter.wait(lambda _: arbiter._engine is not None or bool(raised), PATIENCE)
    try:
        yield raised
    finally:
        arbiter.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def in_thread(function: Callable[[], Any]) -> Any:
    """Call a function on a thread of its own and return, or raise, what it does."""
    outcome: list[Any] = []
    error: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as raised:
            error.append(raised)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    if error:
        raise error[0]
    return outcome[0]


def give_up(arbiter: Arbiter, name: str) -> None:
    """Let a plugin that is starting be overdue now."""

    def overdue(supervisor: Any) -> tuple[None, tuple[()]]:
        plugin = supervisor._plugins[name]
        fresh = plugin.runner.refresh()
        assert fresh is None or fresh.wait(PATIENCE)
        plugin._asked = True
        plugin._start_deadline = 0.0
        plugin.run_timers(0.0)
        return None, ()

    in_thread(lambda: arbiter._started.order(overdue))


def state_is(name: str, *states: str) -> Callable[[dict[str, PluginStatus]], bool]:
    return lambda plugins: plugins[name].state in states


def counts(name: str, counter: str, at_least: int) -> Callable[[dict[str, PluginStatus]], bool]:
    return lambda plugins: getattr(plugins[name].counters, counter) >= at_least
