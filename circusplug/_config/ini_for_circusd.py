# What of a circus.ini is circusd's once the host runs the plugins: whose a section is, and one ini
# of those that remain.

from __future__ import annotations

import os
from collections.abc import Mapping

from .._errors import ConfigError
from .ini_includes import CIRCUS_SECTION, INCLUDE_KEYS, Ini, read_ini
from .ini_syntax import DEFAULT_SECTION, Line
from .specs import PLUGIN_PREFIX

#: The section that circusplug itself reads and circusd ignores.
OWN_SECTION = "circusplug"


def without_plugins(path: str | os.PathLike[str], environ: Mapping[str, str] | None = None) -> str:
    """One ini from a circus.ini and its includes, for a circusd that runs only its watchers.

    Plugin sections, ``[circusplug]`` and the include options are left out; what remains is
    as in the files, in Circus's reading order.

    Raises:
        ConfigError: A file cannot be read, or a line in it; holds every problem.
    """
    return flattened(read_ini(path, environ))


def flattened(ini: Ini) -> str:
    """What `without_plugins` makes of a file that was read; raises as that does."""
    if ini.sections.problems:
        raise ConfigError(*ini.sections.problems)
    parts = []
    if CIRCUS_SECTION in ini.sections and ini.sections.own(DEFAULT_SECTION).keys() & INCLUDE_KEYS:
        # Taking them out of [DEFAULT] would take them out of every watcher too.
        parts.append(f"[{CIRCUS_SECTION}]\n" + "".join(f"{key} =\n" for key in INCLUDE_KEYS))
    for _, lines in ini.files:
        text = "".join(line.text for line in lines if not _is_left_out(line))
        parts.append(text if text.endswith("\n") or not text else text + "\n")
    return "".join(parts)


def sections_of_circusd(ini: Ini) -> dict[str, dict[str, str]]:
    """The sections that concern circusd, once the host runs the plugins, by their names."""
    sections = ini.sections
    return {name: sections.own(name) for name in sections.store if not is_ours(name)}


def is_ours(section: str) -> bool:
    """Whether a section means something to the host only, once it runs the plugins."""
    patterns = env_patterns(section)
    return (
        section.startswith(PLUGIN_PREFIX)
        or section == OWN_SECTION
        or (bool(patterns) and all(item.startswith(PLUGIN_PREFIX) for item in patterns))
    )


def _is_left_out(line: Line) -> bool:
    return is_ours(line.section) or (line.section == CIRCUS_SECTION and line.key in INCLUDE_KEYS)


def env_patterns(section: str) -> list[str]:
    """Whom a section ``[env:PATTERN,PATTERN]`` is for; of another section nothing."""
    if not section.startswith("env:"):
        return []
    return [pattern.strip() for pattern in section.removeprefix("env:").split(",")]
