# Changes to a host that runs. Every class that a change would start is loaded and checked before
# anything is stopped; if one is no good, the whole change is refused and all stays as it was. Code
# that was edited is loaded anew for that, and every plugin on a thread that uses it starts again.
#
# Owner: the thread that asks for a change, which waits for the checks. The supervising thread must
# not wait, so what is asked for there, in a `handle_stop` for one, gets a thread of its own.

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator

from .._config.specs import HostConfig, PluginSpec
from .._errors import CircusPlugError, ConfigError
from .._logs import logger
from .._plugin.edited_code import find_edited, importing_anew
from .._plugin.load import load_problems, module_of
from .config_difference import difference, where_circusd_is
from .engine import Engine


class Changes:
    """Changes the plugins of one host; from any thread.

    What is refused is a ConfigError with a line for each problem, in the words of
    `circusplug check`. On a thread that must not wait for it, it is logged.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def start(self, name: str) -> None:
        """Start a plugin that does not run, with the code that is there now."""
        supervisor = self._engine.supervisor
        spec = supervisor.spec(name)
        if self._engine.supervises_here or spec.name in supervisor.alive:
            self._engine.order(lambda supervisor: (None, supervisor.start_plugin(name)))
            return
        with self._prepared((), [spec], supervisor.config) as sharing:
            self._engine.order(lambda supervisor: (None, supervisor.start_plugin(name, sharing)))

    def restart(self, name: str) -> None:
        """Stop a plugin and start a new instance, and those that share edited code with it."""

        def restart() -> None:
            supervisor = self._engine.supervisor
            spec = supervisor.spec(name)
            with self._prepared([spec], [spec], supervisor.config) as sharing:
                self._engine.order(
                    lambda supervisor: (None, supervisor.restart_plugin(name, sharing))
                )

        self._here_or_aside(restart, aside=self._engine.supervises_here)

    def add(self, spec: PluginSpec) -> None:
        """Add a plugin, and start it if it is active."""

        def add() -> None:
            starts = [spec] if spec.active else []
            with self._prepared(starts, (), self._engine.supervisor.config):
                self._engine.order(lambda supervisor: (None, supervisor.add_plugin(spec)))

        self._engine.check_users([spec])
        self._here_or_aside(add, aside=self._engine.supervises_here)

    def reconfigure(self, config: HostConfig) -> list[str]:
        """Change to another configuration; returns what was done, a line each, if it waits."""
        done: list[str] = []

        def change() -> None:
            before = self._engine.supervisor.config
            if where_circusd_is(config) == where_circusd_is(before):  # by the tunnel that stands
                self._engine.check_users(config.plugins)
            todo = difference(before, config, (), ())
            starts = [spec for spec in todo.changed + todo.added if spec.active]
            with self._prepared(starts, config.plugins, config) as sharing:
                done.extend(self._engine.reconfigure(config, sharing))

        aside = not self._engine.may_wait
        self._here_or_aside(change, aside=aside)
        return [] if aside else done

    @contextlib.contextmanager
    def _prepared(
        self, starts: Iterable[PluginSpec], looked_at: Iterable[PluginSpec], config: HostConfig
    ) -> Iterator[frozenset[str]]:
        """Have everything ready that a change will start, for the block that makes the change.

        Args:
            starts: What it is to start.
            looked_at: Whose code is to be loaded anew if it was edited.
            config: What the host is to run.

        Yields:
            The names of the plugins that have to be restarted because of edited code.

        Raises:
            ConfigError: A class or its options are no good. If this, or the block, raises, the
                old code stands.
        """
        edited = find_edited(_modules(looked_at), _modules(config.plugins))
        alive = self._engine.supervisor.alive
        sharing = [
            spec
            for spec in config.plugins
            if spec.name in alive and not edited.isdisjoint(_modules([spec]))
        ]
        to_check = {spec.name: spec for spec in (*sharing, *starts)}.values()
        problems = list[str]()
        if isolated := [spec for spec in to_check if spec.isolate]:
            from .._isolated.class_check import check_classes

            problems = check_classes(isolated, config, self._engine.ends)
        with importing_anew(edited) as put_back:
            here = [spec for spec in to_check if not spec.isolate]
            problems[:0] = [line for spec in here for line in load_problems(spec)]
            if problems:
                raise ConfigError(*problems)
        try:
            yield frozenset(spec.name for spec in sharing)
        except BaseException:
            put_back()
            raise

    def _here_or_aside(self, change: Callable[[], None], *, aside: bool) -> None:
        self._engine.refuse_if_over()
        if not aside:
            change()
            return
        name = "circusplug-change"
        threading.Thread(target=_logging_failure, args=(change,), name=name, daemon=True).start()


def _modules(specs: Iterable[PluginSpec]) -> set[str]:
    """The modules that classes of plugins on threads are imported from."""
    return {module for spec in specs if not spec.isolate and (module := module_of(spec))}


def _logging_failure(change: Callable[[], None]) -> None:
    try:
        change()
    except CircusPlugError as error:
        for line in str(error).splitlines():
            logger.error("what a plugin asked of its host was not done: %s", line)
