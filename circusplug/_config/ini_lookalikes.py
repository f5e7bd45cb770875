# What Circus passes over without a word, and hardly anybody means: sections that look like a
# plugin's and are none, and the host's options without their prefix. A misspelt key with the
# prefix is host_options.py's to tell, one of [circusplug] ini_file.py's.

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator

from .host_options import CIRCUS_OPTIONS, CIRCUS_PROCESS_OPTIONS, OPTIONS
from .ini_includes import Ini
from .specs import PLUGIN_PREFIX

_NAME = re.compile(r"\s*(\w+)[\s:.=/-]*(.*?)\s*", re.DOTALL)
_ALMOST_PREFIX = re.compile(r"hosts?[._:-]?(\w+)")


def misspelt_sections(ini: Ini) -> Iterator[str]:
    """A line for each section with a ``use`` whose name is almost that of a plugin's."""
    for section in ini.sections.store:
        found = _NAME.fullmatch(section)
        if not found or section.startswith(PLUGIN_PREFIX) or "use" not in ini.sections.own(section):
            continue
        if difflib.get_close_matches(found[1].lower(), ["plugin"], 1, 0.8):
            meant = f"{PLUGIN_PREFIX}{found[2] or 'NAME'}"
            yield f"{ini.place(section)}: this is no plugin's section (did you mean [{meant}]?)"


def unprefixed(keys: Iterable[str], isolated: bool) -> Iterator[tuple[str, str]]:
    """Options of a plugin's section that look like the host's, and what to say of each.

    Args:
        keys: The options' names.
        isolated: Whether the plugin has a process of its own, so that Circus's own options are
            done.
    """
    for key in keys:
        word = key.lower()
        almost = _ALMOST_PREFIX.fullmatch(word)
        name = almost[1] if almost and almost[1] in OPTIONS else word
        if key in CIRCUS_PROCESS_OPTIONS or (isolated and key in CIRCUS_OPTIONS):
            continue
        if key.startswith("host."):
            continue
        if name in OPTIONS:
            yield key, f"'{key}' goes to the plugin (did you mean 'host.{name}'?)"
        elif key != "isolate" and difflib.get_close_matches(word, ["isolate"], 1, 0.8):
            yield key, f"'{key}' goes to the plugin (did you mean 'isolate'?)"
