# Which commands are about plugins, too, and not about circusd's watchers alone: where a host takes
# circusd's commands in its place, its plugins send it those, and all others straight to circusd.
#
# Owner: none, it holds nothing. It is asked before each command, and must cost next to nothing.

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: Those that take a pattern for several watchers, or none for all.
FOR_SEVERAL = frozenset({"reload", "restart", "start", "stop"})
#: Those that are about everything if they name nobody.
_ABOUT_ALL = FOR_SEVERAL | {
    *("dstats", "globaloptions", "list", "numprocesses", "numwatchers", "quit", "reloadconfig"),
    *("stats", "status"),
}
_PREFIX = "plugin:"
_is_pattern = re.compile(r"[*?\[]").search


def is_about_plugins(command: str, properties: Mapping[str, Any]) -> bool:
    """Whether a command is, or may be, about plugins."""
    name = properties.get("name")
    if name is None:
        return command.lower() in _ABOUT_ALL
    if not isinstance(name, str):
        return False  # circusd says what is wrong
    if name[:7].lower() == _PREFIX:
        return True
    if command.lower() in FOR_SEVERAL:
        return properties.get("match") == "regex" or _is_pattern(name) is not None
    return False
