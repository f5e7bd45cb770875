# Watchers' names: as events tell them, and as patterns of names pick them.

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

from circusplug import CircusPlugin

#: What begins the names of circusd's own watchers, which run plugins.
PLUGIN = "plugin:"
_WILD = re.compile(r"[*?\[]")


def in_events(name: str) -> str:
    """A watcher's name as events tell it."""
    return name.lower().replace(" ", "_")


class Patterns:
    """Picks watchers by their names, with ``*`` and ``?``; never those that run plugins.

    Args:
        patterns: What a name is to be like; it is enough to be like one of them.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self.texts = tuple(patterns)
        #: Whether each is a name, and no pattern.
        self.plain = not any(map(_WILD.search, self.texts))
        self._expressions = [re.compile(fnmatch.translate(in_events(one))) for one in self.texts]

    def match(self, name: str) -> bool:
        """Whether a watcher is meant, named as in commands or as in events."""
        name = in_events(name)
        return not name.startswith(PLUGIN) and any(one.match(name) for one in self._expressions)

    async def names(self, plugin: CircusPlugin) -> list[str]:
        """The names of the watchers that are meant.

        Raises:
            CallError: circusd, which knows them, does not answer.
        """
        if self.plain:
            return list(self.texts)
        return [name for name in (await plugin.call_async("list"))["watchers"] if self.match(name)]
