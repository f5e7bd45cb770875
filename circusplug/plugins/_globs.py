# Which names a plugin is to look at, where an option has them with * and ?.

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable


def name_filter(globs: Iterable[str]) -> Callable[[str], bool]:
    """A function that says whether a name is meant: a watcher's, real or as in events, or else."""
    joined = "|".join(fnmatch.translate(_as_in_events(glob)) for glob in globs)
    if not joined:
        return lambda _: False
    match = re.compile(joined).match
    return lambda name: match(_as_in_events(name)) is not None


def _as_in_events(name: str) -> str:
    return name.lower().replace(" ", "_")
