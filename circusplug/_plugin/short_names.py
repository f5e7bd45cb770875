# Short names for `use`: those that installed packages register for their plugins, as entry points
# of the group ``circusplug.plugins``. They are looked up only for a `use` without a dot, as that
# reads what every installed package says of itself.
#
# Owner: any thread; what was found once is remembered.

from __future__ import annotations

GROUP = "circusplug.plugins"

_found: dict[str, str] = {}


def registered() -> dict[str, list[str]]:
    """The names that are registered, and the dotted name, or several, that each stands for."""
    from importlib.metadata import entry_points

    names: dict[str, list[str]] = {}
    for entry in entry_points(group=GROUP):
        known = names.setdefault(entry.name, [])
        value = entry.value.partition("[")[0].strip()
        if value not in known:  # one package may be found in two places
            known.append(value)
    return names


def dotted_name(use: str) -> str:
    """What a short name stands for; anything else as it is.

    Raises:
        ValueError: Several packages have registered it.
    """
    if use not in _found:
        values = registered().get(use, [])
        if len(values) > 1:
            raise ValueError(f"several packages have it ({', '.join(values)}); write one of these")
        if not values:
            return use
        _found[use] = values[0]
    return _found[use]
