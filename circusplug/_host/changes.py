# Changes to a host that runs. Every class that a change would start is loaded and checked before
# anything is stopped; if one is no good, the whole change is refused and all stays as it was.
#
# Owner: the thread that asks for a change, which waits for the checks. The supervising thread must
# not wait, so what is asked for there, in a `handle_stop` for one, gets a thread of its own.

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from .._config.specs import HostConfig, PluginSpec
from .._errors import CircusPlugError, ConfigError
from .._logs import logger
from .._plugin.load import load_problem
from .config_difference import difference
from .engine import Engine


class Changes:
    """Changes the plugins of one host; from any thread.

    What is refused is a ConfigError with a line for each problem, in the words of
    `circusplug check`. On a thread that must not wait for it, it is logged.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def restart(self, name: str) -> None:
        """Stop a plugin and start a new instance."""

        def restart() -> None:
            spec = self._engine.supervisor.spec(name)
            self._check([spec], self._engine.supervisor.config)
            self._engine.order(lambda supervisor: (None, supervisor.restart_plugin(name)))

        self._here_or_aside(restart, aside=self._engine.is_needed_here)

    def add(self, spec: PluginSpec) -> None:
        """Add a plugin, and start it if it is active."""

        def add() -> None:
            self._check([spec] if spec.active else [], self._engine.supervisor.config)
            self._engine.order(lambda supervisor: (None, supervisor.add_plugin(spec)))

        self._here_or_aside(add, aside=self._engine.is_needed_here)

    def reconfigure(self, config: HostConfig) -> list[str]:
        """Change to another configuration; returns what was done, a line each."""
        done: list[str] = []

        def change() -> None:
            supervisor = self._engine.supervisor
            todo = difference(supervisor.config, config, ())
            self._check([spec for spec in todo.changed + todo.added if spec.active], config)
            done.extend(self._engine.reconfigure(config))

        self._here_or_aside(change, aside=not self._engine.may_wait)
        return done

    def _check(self, specs: Iterable[PluginSpec], config: HostConfig) -> None:
        """Refuse to go on if a class or its options are no good."""
        isolated, problems = [], []
        for spec in specs:
            if spec.isolate:
                isolated.append(spec)
            else:
                problems.append(load_problem(spec))
        if isolated:
            from .._isolated.class_check import check_classes

            problems += check_classes(isolated, config, self._engine.ends)
        if any(problems):
            raise ConfigError(*filter(None, problems))

    def _here_or_aside(self, change: Callable[[], None], *, aside: bool) -> None:
        self._engine.refuse_if_over()
        if not aside:
            change()
            return
        name = "circusplug-change"
        threading.Thread(target=_logging_failure, args=(change,), name=name, daemon=True).start()


def _logging_failure(change: Callable[[], None]) -> None:
    try:
        change()
    except CircusPlugError as error:
        for line in str(error).splitlines():
            logger.error("what a plugin asked of its host was not done: %s", line)
