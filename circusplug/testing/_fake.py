# FakeCircusd: a circusd for tests. This file is what its users see; _core takes the requests,
# _server has the sockets, _fleet and _model the watchers, _script the replies and faults.
#
# Who owns what: nearly everything belongs to the serving thread, and the methods here hand
# their work to it.

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import zmq

from circusplug._wire.commands import DEFAULT_CHECK_DELAY
from circusplug._wire.watcher_names import to_res_name

from ._core import Core
from ._faults import Faults
from ._fleet_script import load_script
from ._lives import Lives
from ._script import Command, ReplySource, Rule, matches


class FakeCircusd(Faults):
    """A circusd on real sockets that does what a test says; a context manager.

    It keeps watchers with made-up processes, answers commands and publishes events as circusd
    0.19 does. A test can publish events of its own, replace replies, look at what commands
    came in, and have replies lost, late or wrong.

    An error on the serving thread, such as one in a computed reply, is raised when the
    ``with`` block ends. Methods may be called from any thread.

    Args:
        watchers: The watchers it starts with: their options by name, or just names. See
            `add_watcher`.
        check_delay: What ``globaloptions`` says of it, in seconds.
        sndhwm: How many events are kept for a slow subscriber before further ones are
            dropped. 0, the default, keeps all; circusd keeps 1000.
        endpoint: Where it takes commands; by default a free port of this machine, which somebody
            else may take while it is stopped, but not ``ipc://PATH``.
        pubsub_endpoint: The same for its events.
        script: What its watchers do by themselves, see `run_script`; it begins with the block.

    Raises:
        SpecError: A line of *script* makes no sense.
    """

    def __init__(
        self,
        watchers: Mapping[str, Mapping[str, Any]] | Iterable[str] = (),
        *,
        check_delay: float = DEFAULT_CHECK_DELAY,
        sndhwm: int = 0,
        endpoint: str = "",
        pubsub_endpoint: str = "",
        script: str | Path = "",
    ) -> None:
        self._core = Core(check_delay, sndhwm)
        self._core.server.endpoint = endpoint
        self._core.server.pubsub_endpoint = pubsub_endpoint
        configured = watchers if isinstance(watchers, Mapping) else {name: {} for name in watchers}
        for name, options in configured.items():
            self._core.fleet.configure(name, options)
        self._add_script(script)

    def __enter__(self) -> FakeCircusd:
        self._core.server.open()
        self._core.run(self._core.begin)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._core.server.close()
        errors, self._core.server.errors = self._core.server.errors, []
        # Only over an exception that is no error, such as KeyboardInterrupt, is nothing raised.
        if errors and (exc is None or isinstance(exc, Exception)):
            raise errors[0]

    @property
    def endpoint(self) -> str:
        """Where it takes commands; stays the same over `restart`. Empty before it has run."""
        return self._core.server.endpoint

    @property
    def pubsub_endpoint(self) -> str:
        """Where it publishes events; stays the same over `restart`. Empty before it has run."""
        return self._core.server.pubsub_endpoint

    # Events

    def publish(self, watcher: str, action: str, /, **payload: Any) -> None:
        """Publish an event.

        Args:
            watcher: The watcher's name; it need not be one of the watchers kept.
            action: E.g. ``"spawn"``.
            payload: The JSON payload; ``time`` is added unless given.

        Raises:
            CircusdError: It is stopped, or not in a ``with`` block.
        """
        topic = f"watcher.{to_res_name(watcher)}.{action}".encode()
        self.publish_raw(topic, json.dumps({"time": self._core.now(), **payload}).encode())

    def publish_many(self, count: int, watcher: str, action: str, /, **payload: Any) -> None:
        """Publish *count* events as fast as possible.

        Each payload gets a ``number``, counting from 0. Arguments and errors are otherwise
        those of `publish`.
        """
        topic = f"watcher.{to_res_name(watcher)}.{action}".encode()
        head = json.dumps({"time": self._core.now(), **payload}).encode()[:-1] + b', "number": '

        def send() -> None:
            publisher = self._core.server.publisher()
            self._core.server.note_published(topic, count)
            for number in range(count):
                publisher.send(topic, zmq.SNDMORE)
                publisher.send(b"%s%d}" % (head, number))

        self._core.do(send)

    def publish_raw(self, *frames: bytes) -> None:
        """Publish any frames; the first one is what subscriptions are compared with.

        Raises:
            CircusdError: It is stopped, or not in a ``with`` block.
        """
        self._core.do(lambda: self._core.server.publish(*frames))

    @property
    def subscribers(self) -> int:
        """How many subscriptions there are now: one for each topic of each plugin."""
        return self._subscriptions(None)

    def wait_subscribed(
        self, count: int = 1, timeout: float = 5.0, *, topic: bytes | None = None
    ) -> None:
        """Wait until there are *count* subscriptions or more: from then on, events arrive.

        After a `restart` a running plugin subscribes again by itself; a bare SUB socket does
        so only while it is polled.

        Args:
            count: How many subscriptions; after a `restart` they are counted anew.
            timeout: How long to wait, in seconds.
            topic: Count the subscriptions to exactly this, such as ``b"watcher."``, only.

        Raises:
            AssertionError: It took longer than *timeout*.
        """
        self._core.wait(
            lambda: self._subscriptions(topic) >= count or None,
            timeout,
            lambda: f"{count} subscriptions, there are {self._subscriptions(topic)}",
        )

    def wait_unsubscribed(self, count: int = 0, timeout: float = 5.0) -> None:
        """Wait until there are *count* subscriptions or fewer.

        Raises:
            AssertionError: It took longer than *timeout* seconds.
        """
        self._core.wait(
            lambda: self.subscribers <= count or None,
            timeout,
            lambda: f"no more than {count} subscriptions, there are {self.subscribers}",
        )

    # Watchers

    def add_watcher(self, name: str, numprocesses: int = 1, **options: Any) -> None:
        """Add a watcher as if it had been in circusd's configuration: no event tells of it.

        Args:
            name: Its real name; in topics it is lower-cased, with spaces turned into ``_``.
            numprocesses: How many processes it has.
            options: Its other options; ``autostart=False`` leaves it stopped, and options
                that circusd doesn't know are kept as strings.

        Raises:
            CircusdError: There is a watcher of that name.
        """
        options = {**options, "numprocesses": numprocesses}
        self._core.run(lambda: self._core.fleet.configure(name, options))

    def run_script(self, script: str | Path) -> None:
        """Have watchers live by a script from now on: crash, leak memory, stop slowly and so on.

        By a virtual clock, see `run_plugin`, everything begins anew when that begins.

        Args:
            script: One sentence a line, such as ``web crashes with 1 every 30 s``: the page on
                testing has the language. Or the path of a file of such lines.

        Raises:
            SpecError: A line makes no sense; it says which, what, and what would fit.
        """
        self._core.run(lambda: self._core.turn(lambda: self._add_script(script).begin(self._core)))

    def _add_script(self, script: str | Path) -> Lives:
        lives = load_script(script, self._core.fleet.watchers)
        lives.configure(self._core)
        self._core.beginnings.append(functools.partial(lives.begin_again, self._core))
        return lives

    def pids(self, watcher: str) -> list[int]:
        """Return the made-up process ids of a watcher, oldest first.

        Raises:
            CircusdError: There is no such watcher.
        """
        return self._core.run(
            lambda: [process.pid for process in self._core.fleet.find(watcher).alive]
        )

    def status(self, watcher: str) -> str:
        """Return ``"active"``, ``"stopped"``, ``"starting"`` or ``"stopping"``.

        Raises:
            CircusdError: There is no such watcher.
        """
        return self._core.run(lambda: self._core.fleet.find(watcher).status)

    def exit_process(self, watcher: str, exit_code: int = 1, pid: int | None = None) -> None:
        """Let processes end by themselves; circusd publishes it and starts others.

        Args:
            watcher: Whose processes.
            exit_code: As in the ``reap`` event: negative for a signal.
            pid: Which process; None for all.
        """

        def end() -> None:
            found = self._core.fleet.find(watcher)
            for process in found.alive:
                if pid in (None, process.pid):
                    found.end(process, exit_code)

        self._core.run(lambda: self._core.turn(end))

    def set_stats(self, watcher: str, pid: int | None = None, **figures: Any) -> None:
        """Set figures that ``stats`` tells, e.g. ``cpu=97.5, mem=12.0``.

        Args:
            watcher: Whose figures.
            pid: Of which process; None for all, also those to come.
            figures: The figures by circusd's names.
        """
        self._core.run(
            lambda: self._core.fleet.find(watcher).figures.setdefault(pid, {}).update(figures)
        )

    # Commands

    @property
    def commands(self) -> list[Command]:
        """The valid commands received since the last `clear`, in order."""
        with self._core.changed:
            return [*self._core.commands]

    def clear(self) -> None:
        """Forget the commands received."""
        with self._core.changed:
            self._core.commands.clear()

    def wait_command(
        self,
        command: str,
        /,
        *,
        timeout: float = 5.0,
        cast: bool | None = None,
        count: int = 1,
        **properties: Any,
    ) -> Command:
        """Wait for a command and return it.

        One that came in before the wait counts too, unless `clear` forgot it. A command is
        recorded before it has an effect and before its reply is sent.

        Args:
            command: Its name.
            timeout: How long to wait, in seconds.
            cast: Whether it must be a cast (True) or a call (False).
            count: Wait for that many matching commands; the last one is returned.
            properties: Properties it must have, among others perhaps.

        Raises:
            AssertionError: It took longer than *timeout*.
        """

        def found() -> Command | None:
            found = [
                each for each in self._core.commands if matches(each, command, cast, properties)
            ]
            return found[count - 1] if len(found) >= count else None

        return self._core.wait(
            found,
            timeout,
            lambda: f"command {_told(command, properties)}; received: {self._core.commands}",
        )

    def reply(
        self, command: str, reply: ReplySource, /, *, count: int | None = None, **properties: Any
    ) -> None:
        """Have a command answered with *reply*, without effect on the watchers.

        The latest `reply` that fits a command counts.

        Args:
            command: The command's name.
            reply: The reply, or a function from the command's properties to it. It is called
                on the serving thread, must not block, and what it raises is raised at the end
                of the ``with`` block. ``status``, ``time`` and ``id`` are added unless given.
            count: For how many commands; None for all to come.
            properties: Properties that the command must have.
        """
        if not isinstance(reply, Mapping) and not callable(reply):
            raise TypeError(f"the reply to {command!r} must be a dict or a function, not {reply!r}")
        rule = Rule(command, properties, count, source=reply)
        self._core.run(lambda: self._core.script.replies.append(rule))

    def stop(self) -> None:
        """Close both sockets, as when circusd dies: nothing is said to anybody.

        Events that were published a moment ago may be lost with them.
        """
        self._core.do(self._core.server.unbind)

    def start(self) -> None:
        """Open both sockets on the same ports again; watchers and commands are as they were."""
        self._core.do(self._core.server.bind)

    def restart(self) -> None:
        """`stop` and `start`: clients find themselves disconnected and may connect again."""
        self.stop()
        self.start()

    def _subscriptions(self, topic: bytes | None) -> int:
        subscriptions = self._core.server.subscriptions
        return subscriptions[topic] if topic is not None else sum([*subscriptions.values()])


def _told(command: str, properties: Mapping[str, Any]) -> str:
    return f"{command!r} with {properties}" if properties else repr(command)
