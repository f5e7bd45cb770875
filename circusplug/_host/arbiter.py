# The public face of the host. An Arbiter holds what the user asked for; once it is started,
# an Engine does the work, see engine.py.
#
# Owner: `_lock` guards the change from new to started. Everything here may be called from any
# thread.

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import zmq

from .._config.control import AUTO, OFF
from .._config.specs import HostConfig, PluginLike, make_spec, make_specs
from .._errors import HostError, SpecError
from .._plugin.status import PluginStatus
from .._runners.runner import NO_HOOKS, Hooks
from .._wire.commands import DEFAULT_CHECK_DELAY, DEFAULT_ENDPOINT, DEFAULT_PUBSUB_ENDPOINT
from .changes import Changes
from .engine import Engine
from .managed_plugin import ManagedPlugin
from .own_process import OwnProcess
from .program_client import ProgramClient
from .reloads import Reloads
from .runner_factory import RunnerFactory
from .steering import Steering

if TYPE_CHECKING:
    from .._circusd.embedded import EmbeddedCircusd
    from .._circusd.watcher_options import CircusdPlan


class Arbiter:
    """Hosts plugins: a thread for each, or a process for those with ``isolate``.

    Use it as a context manager to host in the background, or call `start`, which blocks.

    Args:
        plugins: What to host, in the order of start: mappings like a section of a
            circus.ini (``{"use": "package.module.Class", "isolate": True, ...}``, where
            ``use`` may also be a class), plugin classes, or `PluginSpec`s.
        endpoint: Where circusd takes commands.
        pubsub_endpoint: Where circusd publishes events.
        check_delay: circusd's check period in seconds, handed to the plugins.
        ssh_server: ``user@host:port`` to tunnel both sockets through, or None.
        context: The ZMQ context to use, which is then not ended here; by default one is made.
        stop_timeout: How long stopping all plugins may take, in seconds.
        watchers: What a circusd shall run that is started here and ends with the host, each a
            mapping as Circus's `get_arbiter` takes it: ``{"name": ..., "cmd": ...}``. None:
            there is a circusd. Its hooks and streams are in circusd's process, not in this one.
        circusd: Further options of that circusd's, as Circus names them: ``statsd``, ``sockets``
            (mappings), ``loglevel``, ...
        exit_when_done: Whether `start` returns when no plugin is left that runs.
        control: Where the host takes circusctl's commands, ``ipc:///PATH`` or a port of this
            machine's loopback; ``off``.
        control_pubsub: Where it publishes what happens to its plugins; ``auto`` is beside an
            ``ipc`` endpoint.

    Attributes:
        client: Sends circusd commands for the program, while the host runs.

    Raises:
        SpecError: A plugin, a watcher or an option is not valid.
    """

    _circusd: CircusdPlan | None = None
    _strict = True

    def __init__(
        self,
        plugins: Iterable[PluginLike] = (),
        endpoint: str = DEFAULT_ENDPOINT,
        pubsub_endpoint: str = DEFAULT_PUBSUB_ENDPOINT,
        check_delay: float = DEFAULT_CHECK_DELAY,
        ssh_server: str | None = None,
        context: zmq.Context[Any] | None = None,
        *,
        watchers: Iterable[Mapping[str, Any]] | None = None,
        circusd: Mapping[str, Any] | None = None,
        stop_timeout: float = 10.0,
        exit_when_done: bool = False,
        control: str = OFF,
        control_pubsub: str = AUTO,
    ) -> None:
        specs = make_specs(plugins)
        ends = endpoint, pubsub_endpoint
        config = HostConfig(
            specs,
            *ends,
            check_delay,
            ssh_server,
            stop_timeout=stop_timeout,
            control=control,
            control_pubsub=control_pubsub,
        )
        self._setup(config, context, exit_when_done)
        if watchers is not None:
            from .._circusd.watcher_options import plan_circusd

            self._circusd = plan_circusd(config, watchers, circusd or {}, strict=self._strict)
        elif circusd:
            raise SpecError("'circusd' is for one that is started here; give 'watchers', too")

    @classmethod
    def from_config(
        cls,
        config: HostConfig,
        *,
        context: zmq.Context[Any] | None = None,
        reload: Callable[[], HostConfig] | None = None,
        exit_when_done: bool = False,
        hooks: Hooks = NO_HOOKS,
        process: OwnProcess | None = None,
    ) -> Arbiter:
        """Make an arbiter of a configuration that was read or built before.

        Args:
            config: What to host.
            context: See the class.
            reload: Reads the configuration again, on SIGHUP and for `reload()`.
            exit_when_done: See the class.
            hooks: What the plugins' threads tell somebody, for a test kit.
            process: What is known of the process, if that is the host's own.
        """
        arbiter = cls.__new__(cls)
        arbiter._setup(config, context, exit_when_done, reload, hooks, process)
        return arbiter

    def _setup(
        self,
        config: HostConfig,
        context: zmq.Context[Any] | None,
        exit_when_done: bool,
        reload: Callable[[], HostConfig] | None = None,
        hooks: Hooks = NO_HOOKS,
        process: OwnProcess | None = None,
    ) -> None:
        self._hooks = hooks
        self._process = process or OwnProcess()
        self._config = config
        self._context = context
        self._exit_when_done = exit_when_done
        self._read_config = reload
        self._lock = threading.Lock()
        self._reloads = Reloads(self, self._process.after_reload)
        self._steering: Steering | None = None
        self._changed = threading.Condition()
        self._engine: Engine | None = None
        self._stopped = False
        self._failure: str | None = None
        self.client = ProgramClient()

    # Running.

    def start(self) -> None:
        """Host the plugins on the calling thread's watch, until stopped.

        On the main thread SIGINT and SIGTERM stop the host cleanly, a second SIGINT ends
        the process at once, and SIGHUP reads the configuration again, or has the circusd that
        belongs to the host reload its watchers.

        Raises:
            HostError: It was started before, a plugin with ``host.critical`` gave up, or the
                circusd that belongs to it did not start, or crashed. One that is told to quit
                stops the host.
        """
        self._make_engine().run()
        if self.failure:
            raise HostError(self.failure)

    def __enter__(self) -> Arbiter:
        """Host in the background; returns when every plugin is ready, or too slow.

        Raises:
            HostError: It was started before, or its circusd did not start.
        """
        self._make_engine().run_aside()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop every plugin, in reverse order of start; from any thread, any number of times.

        Returns when all are stopped. `handle_stop` runs on the thread that called `start`;
        on the calling one if the host runs in the background.
        """
        with self._lock:
            self._stopped = True
            engine = self._engine
        if engine is not None:
            engine.stop()

    def fail(self, reason: str) -> None:
        """Stop the host because of a failure outside it; from any thread, returns at once.

        `start` then raises a HostError with that reason.
        """
        with self._lock:
            engine = self._engine
            if engine is None and not self._stopped:
                self._failure = reason  # for when it is started
        if engine is not None:
            engine.fail(reason)

    def _make_engine(self) -> Engine:
        with self._lock:
            if self._engine is not None or self._stopped:
                raise HostError("an arbiter can be started once; make a new one")
            with contextlib.ExitStack() as stack:
                steering = Steering.opened(self, self._reloads, self._config, self._process)
                stack.callback(steering.close)
                engine = Engine(
                    self._config,
                    self._make_factory(steering.endpoint),
                    self._exit_when_done,
                    self._reloads.begin,
                    self._tell_changed,
                    self._hooks,
                    self._process.systemd,
                )
                stack.pop_all()
            self._steering, self._engine = steering, engine
        if self._failure is not None:
            engine.fail(self._failure)
        return engine

    def _make_factory(self, endpoint: str) -> RunnerFactory:
        circusd: EmbeddedCircusd | None = None
        if self._circusd is not None:
            from .._circusd.embedded import EmbeddedCircusd

            circusd = EmbeddedCircusd(self._circusd)
        own = circusd, self._process.circusd_endpoint, endpoint, self._process.on_listening
        return RunnerFactory(self._config, self._context, self.client, *own)

    @property
    def _started(self) -> Engine:
        if self._engine is None:
            raise HostError("the arbiter has not been started")
        return self._engine

    # Looking.

    @property
    def plugins(self) -> dict[str, PluginStatus]:
        """What each plugin is doing, by name, in the order of start."""
        return self.statuses()

    def statuses(self, fresh: bool = True) -> dict[str, PluginStatus]:
        """The same; those of isolated plugins may be older if they need not be `fresh`."""
        if self._engine is not None and self._engine.is_set_up:
            return self._engine.supervisor.statuses(fresh)
        return {
            spec.name: PluginStatus(
                spec.name,
                spec.use_name,
                "stopped" if spec.active else "inactive",
                spec.isolate,
            )
            for spec in self._config.plugins
        }

    @property
    def config(self) -> HostConfig:
        """What it was made from, with the changes made since."""
        engine = self._engine
        return engine.supervisor.config if engine and engine.is_set_up else self._config

    @property
    def failure(self) -> str | None:
        """Why the host stopped by itself, or None."""
        return self._engine.failure if self._engine is not None else self._failure

    def stack(self, name: str) -> str:
        """What a plugin is doing right now, as a traceback; empty if it does not run.

        Raises:
            HostError: There is no such plugin.
        """
        return self._started.supervisor.stack(name)

    def instance(self, name: str) -> Any:
        """The plugin object of a plugin on a thread; None if it is isolated or does not run.

        Raises:
            HostError: There is no such plugin.
        """
        return self._started.supervisor.instance(name)

    def wait(
        self, predicate: Callable[[dict[str, PluginStatus]], bool], timeout: float = 5.0
    ) -> dict[str, PluginStatus]:
        """Wait until `predicate` holds for what `plugins` says, and return that.

        Raises:
            TimeoutError: It does not hold within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            statuses = self.plugins
            if predicate(statuses):
                return statuses
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"not so within {timeout:g} s: {statuses}")
            with self._changed:
                # A state tells when it changes; counters do not, so they are looked at.
                self._changed.wait(min(left, 0.02))

    def _tell_changed(self, plugin: ManagedPlugin | None) -> None:
        if self._steering is not None:
            self._steering.note(plugin)
            if self._engine is not None and self._engine.over.is_set():
                self._steering.close()
        with self._changed:
            self._changed.notify_all()

    # Changing.

    def start_plugin(self, name: str) -> None:
        """Start a plugin that does not run; from any thread while the host runs.

        This and its siblings return when it is done, or at once when a plugin calls them on
        its own thread.

        Raises:
            HostError: There is no such plugin, or the host does not run.
        """
        Changes(self._started).start(name)

    def stop_plugin(self, name: str) -> None:
        """Stop a plugin, also one that waits for its restart; raises as `start_plugin`."""
        self._started.order(lambda supervisor: (None, supervisor.stop_plugin(name)))

    def restart_plugin(self, name: str) -> None:
        """Stop a plugin and start a new instance.

        Its class is loaded and checked first. If that fails, the plugin goes on as it is.

        Raises:
            ConfigError: Its class cannot be loaded, or an option does not fit.
            HostError: As `start_plugin`.
        """
        Changes(self._started).restart(name)

    def add_plugin(self, plugin: PluginLike) -> str:
        """Add a plugin and start it; returns its name.

        Raises:
            SpecError: It is not valid.
            ConfigError: It is active, and its class cannot be loaded, or an option does not fit.
            HostError: Its name is taken, its user has no way through the ssh tunnel, or the host
                does not run.
        """
        spec = make_spec(plugin)
        Changes(self._started).add(spec)
        return spec.name

    def remove_plugin(self, name: str) -> None:
        """Stop a plugin and forget it; raises as `start_plugin`."""
        self._started.order(lambda supervisor: (None, supervisor.remove_plugin(name)))

    def reconfigure(self, config: HostConfig) -> list[str]:
        """Change to another configuration, touching only the plugins that differ.

        The classes of all that have to be started are loaded and checked first.

        Returns:
            What was done, a line each; nothing when a plugin calls this on its own thread.

        Raises:
            ConfigError: One cannot be loaded, or an option does not fit; all stays as it was.
            HostError: There is no way to the new circusd, or the host does not run.
        """
        return Changes(self._started).reconfigure(config)

    def reload(self) -> list[str]:
        """Read the configuration again and change to it; as SIGHUP does.

        Raises:
            ConfigError: It has an error, or see `reconfigure`; everything stays as it was.
            HostError: The host was not made from a file, or does not run.
        """
        if self._read_config is None:
            raise HostError("this host was not made from a configuration file")
        with self._process.systemd.reloading():
            return self.reconfigure(self._read_config())

    @property
    def has_circusd(self) -> bool:
        """Whether a circusd belongs to it."""
        return self._circusd is not None
