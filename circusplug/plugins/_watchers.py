# Watchers' names: as events tell them, and as patterns of names pick them.

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

from circusplug import CircusPlugin

#: What begins the names of watchers that are plugins, circusd's own or a host's.
PLUGIN = "plugin:"
_WILD = re.compile(r"[*?\[]")


def in_events(name: str) -> str:
    """A watcher's name as events tell it."""
    return name.lower().replace(" ", "_")


class Patterns:
    """Picks watchers by their names, with ``*`` and ``?``.

    Args:
        patterns: What a name is to be like; it is enough to be like one of them.
        with_plugins: Whether the watchers that run circusd's own plugins may be picked, too.
    """

    def __init__(self, patterns: Iterable[str], *, with_plugins: bool = False) -> None:
        self.texts = tuple(patterns)
        #: Whether each is a name, and no pattern.
        self.plain = not any(map(_WILD.search, self.texts))
        self._with_plugins = with_plugins
        joined = "|".join(fnmatch.translate(in_events(one)) for one in self.texts)
        self._match = re.compile(joined or r"(?!)").match

    def match(self, name: str) -> bool:
        """Whether a watcher is meant, named as in commands or as in events."""
        name = in_events(name)
        if name.startswith(PLUGIN) and not self._with_plugins:
            return False
        return self._match(name) is not None

    async def names(self, plugin: CircusPlugin) -> list[str]:
        """The names of the watchers that are meant.

        Raises:
            CallError: circusd, which knows them, does not answer.
        """
        if self.plain:
            return list(self.texts)
        return [name for name in (await plugin.call_async("list"))["watchers"] if self.match(name)]
