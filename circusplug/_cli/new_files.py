# What `circusplug new` writes. @NAME@, @MODULE@ and @CLASS@ are put in.

from __future__ import annotations

_PLUGIN = '''\
"""A plugin for Circus."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatch

from circusplug import CircusPlugin
from circusplug.options import Names, Seconds, declare, option


@dataclass(frozen=True)
class @CLASS@Options:
    """What the plugin can be told, in its section of a circus.ini."""

    watchers: Names = option("*", meaning="names of watchers, with * and ?")
    every: Seconds = option(60, above=0, meaning="how often to tell")


class @CLASS@(CircusPlugin):
    """Counts the processes that die, and tells now and then how many."""

    name = "@NAME@"
    options = declare(@CLASS@Options)

    def handle_init(self) -> None:
        self.deaths: Counter[str] = Counter()
        self.periodic(self.tell, self.options.every)

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        event = self.parse_event(data)
        if event.action == "reap" and any(
            fnmatch(event.watcher, pattern) for pattern in self.options.watchers
        ):
            self.deaths[event.watcher] += 1

    def handle_stop(self) -> None:
        self.tell()

    def tell(self) -> None:
        """Tell how many have died since it was told last."""
        for watcher, count in sorted(self.deaths.items()):
            self.logger.info("%s: %d died", watcher, count)
        self.deaths.clear()
'''

_TEST = """\
from __future__ import annotations

from collections.abc import Callable

from circusplug.testing import RunningPlugin

from @MODULE@ import @CLASS@

Run = Callable[..., RunningPlugin]


def test_only_deaths_of_the_watchers_meant_are_counted(run_plugin: Run) -> None:
    running = run_plugin(@CLASS@, watchers="web*")
    running.publish("web-1", "reap", process_pid=7, exit_code=1)
    running.publish("web-1", "spawn", process_pid=8)
    running.publish("other", "reap", process_pid=9, exit_code=1)
    running.wait_handled(3)
    assert running.plugin.deaths == {"web-1": 1}


def test_what_was_told_is_not_told_again(run_plugin: Run) -> None:
    running = run_plugin(@CLASS@, every=0.01)
    running.publish("web", "reap", process_pid=7, exit_code=1)
    running.wait_handled(1)
    running.wait(lambda _: not running.plugin.deaths)
"""

_PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "@NAME@"
version = "0.1.0"
description = "A plugin for Circus."
readme = "README.md"
requires-python = ">=3.10"
dependencies = ["circusplug"]

[project.optional-dependencies]
test = ["circusplug[circusd]", "pytest"]

[project.entry-points."circusplug.plugins"]
@NAME@ = "@MODULE@:@CLASS@"

[tool.hatch.build.targets.wheel]
packages = ["@MODULE@"]

[tool.ruff.lint.flake8-bugbear]
# It returns a field of the dataclass.
extend-immutable-calls = ["circusplug.options.option"]
"""

_INI = """\
[circus]
check_delay = 1
endpoint = tcp://127.0.0.1:5555
pubsub_endpoint = tcp://127.0.0.1:5556

; Something that dies now and then.
[watcher:short-lived]
cmd = sleep 3

[plugin:@NAME@]
use = @NAME@
every = 10
"""

_README = """\
# @NAME@

A plugin for [Circus](https://circus.readthedocs.io), made to run under circusplug.

    pip install -e '.[test]'
    pytest
    circusplug up circus.ini

`circusplug describe @NAME@` prints its options and a section to paste. `circusplug docs` has the
pages on writing and testing plugins.
"""

FILES = {
    "@MODULE@/__init__.py": _PLUGIN,
    "@MODULE@/py.typed": "",
    "tests/test_@MODULE@.py": _TEST,
    "pyproject.toml": _PROJECT,
    "circus.ini": _INI,
    "README.md": _README,
}
