# The class that plugin authors derive from, with the names of Circus's own.
#
# Owner: a plugin's attributes belong to its thread; `call`, `cast`, `stop`, `periodic` and
# the loop's `add_callback` are safe from any thread. While `handle_stop` runs, on the main
# thread, the plugin's own thread is parked and touches nothing.

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from .._config.declared import declared_by
from .._config.values import to_bool
from .._errors import CallError, PluginStateError
from .._loop.periodic import Periodic
from .._wire.commands import DEFAULT_CHECK_DELAY, DEFAULT_ENDPOINT, DEFAULT_PUBSUB_ENDPOINT, Reply
from .._wire.endpoints import Link, connectable
from .._wire.events import PREFIX, Event, load_json, parse_event, split_topic
from .._wire.watcher_names import WatcherNames
from .calls import raise_for_status
from .construction import claim_worker
from .receiver import Frames
from .standalone import Standalone
from .worker import Worker

if TYPE_CHECKING:
    from .watcher_options import HasOptions

T = TypeVar("T")


class CircusPlugin:
    """Base class of plugins: receives circusd's events, sends it commands.

    Override `handle_recv`, and what you need of `handle_init`, `handle_stop`, `handle_connect`
    and `handle_reconnect`; all but `handle_stop` may be ``async def``. An overridden `__init__`
    passes everything on: ``super().__init__(*args, **config)``.

    Args:
        endpoint: Where circusd takes commands.
        pubsub_endpoint: Where circusd publishes events.
        check_delay: circusd's check period, in seconds.
        ssh_server: The ssh server that the host tunnels through, or None.
        config: The plugin's own options; from a file, all of them are text.

    Attributes:
        name: Name of the kind of plugin, for logs where no host gives it one.
        topics: Prefixes of the topics to receive, ``watcher.web.`` for example; the default
            is all. The ``watcher.`` in front may be left out.
        ignore_plugins: Leave out the events of circusd's own ``plugin:`` watchers.
        raise_call_errors: Whether `call` raises when circusd answers with an error, or
            returns that answer, as Circus does.
        config: The options given.
        options: If the class declares them (`circusplug.options`), the same typed and checked;
            exists right after ``__init__``.
        active: False if the option ``active`` says so; such a plugin is not started.
        loop: The asyncio loop of the plugin's thread; exists right after ``__init__``.
        logger: A logger that says which plugin speaks.
        host_endpoint: Where the host takes commands: the control endpoint, or `endpoint` if the
            host takes circusd's commands in its place. Empty without such a host.
        running: Whether it is started and not stopped.
    """

    name: str | None = ""
    topics: ClassVar[Iterable[str | bytes]] = ("watcher.",)
    ignore_plugins: ClassVar[bool] = False
    raise_call_errors: ClassVar[bool] = True

    def __init__(
        self,
        endpoint: str = DEFAULT_ENDPOINT,
        pubsub_endpoint: str = DEFAULT_PUBSUB_ENDPOINT,
        check_delay: float = DEFAULT_CHECK_DELAY,
        ssh_server: str | None = None,
        **config: Any,
    ) -> None:
        self.endpoint = endpoint
        self.pubsub_endpoint = pubsub_endpoint
        self.check_delay = check_delay
        self.ssh_server = ssh_server
        self.config = config
        self.active = to_bool(config.get("active", True))
        if declared := declared_by(type(self)):
            from .watcher_options import WatcherOptions

            vars(self)["options"] = own = declared.read(config)
            self._watcher_options = WatcherOptions(self, declared, own)
        self.daemon = True
        self.running = False
        self._circusplug_worker = claim_worker() or Worker(
            str(config.get("name") or type(self).name or type(self).__name__),
            Link(connectable(endpoint), connectable(pubsub_endpoint)),
        )
        self.host_endpoint: str = self._circusplug_worker.link.host
        self.loop: Any = self._circusplug_worker.loop
        self.logger: logging.Logger = self._circusplug_worker.logger
        self._watcher_names = WatcherNames(self._list_watchers)

    # To override.

    @classmethod
    def check_config(cls, config: Mapping[str, Any]) -> None:
        """Look at the options of a plugin that is not made; `circusplug check` calls this.

        Only declared options can be wrong, unless a plugin overrides it.

        Args:
            config: What the constructor would get as keyword arguments.

        Raises:
            SpecError: An option is missing or has a value that does not fit.
        """
        if declared := declared_by(cls):
            declared.read(config)

    def handle_init(self) -> Any:
        """Prepare; called once, on the plugin's thread, with the sockets connected.

        If circusd cannot be reached by then, that is no failure of the plugin: should this
        raise, a host makes a new instance when circusd is there.
        """

    def initialize(self) -> Any:
        """Prepare, too: called right after `handle_init`; Circus's own plugins override it."""

    def handle_recv(self, data: Frames) -> Any:
        """Handle one event; called on the plugin's thread, in order.

        Args:
            data: Topic and message, both bytes; see `split_data` and `parse_event`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no handle_recv")

    def handle_connect(self) -> Any:
        """Read circusd's state: the connection has come to stand, be it for the first time.

        Called after `handle_init` if circusd is there by then, or as soon as it comes, and
        each time that it comes back; before the first event of that connection.
        """

    def handle_reconnect(self) -> Any:
        """Read a fresh state: circusd came back, and what it published meanwhile is gone.

        Called after `handle_connect`, but not for the first connection.
        """

    def handle_stop(self) -> None:
        """Clean up; called once, on the main thread, after the last event was handled.

        Not called if `handle_init` failed: what that has opened by then is its own to close. An
        isolated plugin that is killed, because it hangs or the system runs out of memory, does
        not get here either.

        Nothing of the plugin runs any more, so files can be closed and timers cancelled
        without a lock; `call` and `cast` still work.
        """

    # Life.

    def start(self) -> None:
        """Run the plugin until it is stopped.

        A host calls this on the plugin's thread. Called by hand on the main thread it needs no
        host: the plugin gets a thread, SIGTERM and Ctrl-C stop it cleanly unless somebody else
        handles them, and `handle_stop` runs on the main thread. On any other thread all of it
        runs right there.

        Raises:
            PluginStateError: The plugin is inactive, running, or was stopped.
            HostError: It has an `ssh_server`, and no tunnel through it can be opened.
        """
        worker = self._circusplug_worker
        label = worker.name or type(self).__name__
        if not self.active:
            raise PluginStateError(f"{label} is inactive ('active' is false), not started")
        if self.running or self.loop.is_closed():
            raise PluginStateError(f"{label} was started or stopped before; make a new instance")
        self.running = True
        try:
            topics, ignore_plugins = self._subscription()

            def live() -> None:
                worker.run(self._hooks(), topics, ignore_plugins, self.stop)

            with self._tunnelled():
                on_main = threading.current_thread() is threading.main_thread()
                if worker.owner is None and on_main:
                    Standalone(worker, live, self.stop).run()
                else:
                    live()
        finally:
            self.running = False

    def stop(self) -> None:
        """Stop the plugin; from any thread, any number of times.

        Under a host the host is asked to stop it and this returns at once. Without one this
        returns when it has stopped, unless called by the plugin itself, which then stops
        after the handler in hand.
        """
        if self._circusplug_worker.stop_plugin(self.handle_stop):
            self.running = False

    @contextlib.contextmanager
    def _tunnelled(self) -> Iterator[None]:
        """Tunnel through `ssh_server`, unless there is a host, which has a tunnel for all."""
        worker = self._circusplug_worker
        if not self.ssh_server or worker.owner is not None:
            yield
            return
        from .._wire.ssh_tunnel import open_tunnel

        ends = self.endpoint, self.pubsub_endpoint
        with open_tunnel(self.ssh_server, *ends, worker.link.context) as worker.link:
            yield

    def _subscription(self) -> tuple[list[bytes], bool]:
        """What to subscribe to, and whether to leave out the plugins' own watchers."""
        return subscriptions(self.topics), self.ignore_plugins

    def _hooks(self) -> Any:
        """What the worker calls; this plugin itself, unless it is adopted."""
        return self

    # Commands.

    def call(
        self,
        command: str,
        *,
        timeout: float | None = None,
        patience: float | None = None,
        **props: Any,
    ) -> Reply:
        """Send circusd a command and return its reply; from any thread.

        A command that circusd refuses because it is busy with another one is sent again.

        Args:
            command: Its name, e.g. ``"incr"``.
            timeout: The deadline in seconds; 5 by default, 60 with ``waiting=True``, which
                circusd answers when the work is done. About plugins, under `circusplug up`, the
                answer is "ok" at once when this plugin is to stop itself.
            patience: How long it is sent again while circusd is busy, in seconds, with a
                `timeout` for each try; 0: not at all. By default as long as one allows.
            props: The command's properties. Watchers go by their real name, see
                `watcher_name`.

        Raises:
            CallTimeout: No reply came in time; the next call starts with a fresh socket.
            CallConflict: circusd was busy with other commands all the time.
            CallError: circusd answered with an error.
            PluginStateError: The plugin is not connected: not started yet, or stopped.
        """
        reply = self._circusplug_worker.client.call(command, props, timeout, patience)
        if reply.get("status") == "error" and self.raise_call_errors:
            raise_for_status(command, props, reply)
        return reply

    async def call_async(
        self,
        command: str,
        *,
        timeout: float | None = None,
        patience: float | None = None,
        **props: Any,
    ) -> Reply:
        """The same as `call`, awaited: timers go on, but the next event waits for its turn.

        It may be awaited on the plugin's loop and on any other. Raises as `call` does.
        """
        client = self._circusplug_worker.client
        reply = await client.call_async(command, props, timeout, patience)
        return raise_for_status(command, props, reply) if self.raise_call_errors else reply

    def cast(self, command: str, **props: Any) -> None:
        """Send circusd a command without waiting for its reply; from any thread.

        While circusd is busy with another one it is sent again for up to 5 s. A cast that
        circusd does not carry out in the end is logged, and counted as ``casts_failed``.

        Raises:
            CallTimeout: circusd could not be reached within 5 s; the command is not sent later.
            CallError: It cannot be said in JSON.
            PluginStateError: The plugin is not connected: not started yet, or stopped.
        """
        self._circusplug_worker.client.cast(command, props)

    def watcher_name(self, res_name: str) -> str:
        """The real name of a watcher, as commands want it, for the one in an event.

        Asks circusd once (`call`, so it may raise the same) and remembers; `add` and
        `remove` events make it ask again. A name that circusd does not know is returned
        as it is.
        """
        return self._watcher_names.resolve(res_name)

    def options_for(self: HasOptions[T], watcher: str) -> T:
        """The plugin's declared options for one watcher: with what that says of its own.

        In ``[watcher:X]`` an option that is declared with ``per_watcher=True`` is written
        ``NAME.option``, with the `name` of this class. circusd is asked once (`call`), and again
        after a change, a stop or a start of the watcher. Where it says nothing, or what does not
        fit, which is logged once, the plugin's own value counts. Raises no CallError.

        Args:
            watcher: Its name, as in events or as commands want it.
        """
        plugin: Any = self
        found: T = plugin._watcher_options.of(watcher)
        return found

    def _observe(self, topic: bytes) -> None:
        self._watcher_names.observe(topic)
        if declared_by(type(self)):
            self._watcher_options.observe(topic)

    def _watch_topics(self) -> None:
        """See the topics of further events, to know when what was asked for is out of date."""
        if self._circusplug_worker.in_plugin_thread:
            self._circusplug_worker.observe(self._observe)
        else:
            self._circusplug_worker.loop.post(self._circusplug_worker.observe, self._observe)

    def _list_watchers(self) -> Iterable[str]:
        self._watch_topics()
        reply = raise_for_status("status", {}, self._circusplug_worker.client.call("status", {}))
        statuses = reply.get("statuses", {})
        if not isinstance(statuses, dict):
            raise CallError("status", {}, f"'statuses' is no object: {statuses!r}", reply=reply)
        return list(statuses)

    # Helpers.

    def now(self) -> float:
        """The time of day as `time.time` tells it; in a test with a virtual clock, that one's."""
        return self._circusplug_worker.loop.wall_time()

    @property
    def replaying(self) -> bool:
        """Whether a recording is replayed: then nobody but the log is to be told of anything."""
        return self._circusplug_worker.loop.replaying

    def periodic(self, callback: Callable[[], object], seconds: float) -> Periodic:
        """Call back every `seconds` on the plugin's loop; returns it started, stop with `stop()`.

        Raises:
            ValueError: `seconds` is not more than 0.
        """
        periodic = Periodic(self._circusplug_worker.loop, callback, seconds)
        periodic.start()
        return periodic

    @staticmethod
    def parse_event(data: Frames) -> Event:
        """Decode what `handle_recv` got.

        Raises:
            EventError: It is no event of circusd's.
        """
        return parse_event(*data)

    @staticmethod
    def split_data(data: Frames) -> tuple[str, str, bytes]:
        """Split what `handle_recv` got into watcher, action and the message, undecoded.

        The topic may be text, too.

        Raises:
            EventError: The topic is not ``watcher.<name>.<action>``.
        """
        topic: bytes | str = data[0]
        watcher, action = split_topic(topic.encode() if isinstance(topic, str) else topic)
        return watcher, action, data[1]

    @staticmethod
    def load_message(msg: bytes | str) -> Any:
        """Decode the JSON of a message.

        Raises:
            ValueError: It is not JSON.
        """
        return load_json(msg)


def subscriptions(topics: Iterable[str | bytes]) -> list[bytes]:
    """The prefixes to subscribe to for `CircusPlugin.topics`, each with ``watcher.`` in front."""
    given = [topics] if isinstance(topics, str | bytes) else topics
    raw = [topic.encode() if isinstance(topic, str) else topic for topic in given]
    return [topic if topic.startswith(PREFIX) else PREFIX + topic for topic in raw]
