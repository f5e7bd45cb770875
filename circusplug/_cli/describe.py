# `circusplug describe`: what a plugin is for, its options, and a section to paste.

from __future__ import annotations

import inspect
import json
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .._config.declared import Declared, declared_by
from .._config.option import Option
from .._errors import PluginLoadError, SpecError
from .._plugin.load import load_plugin_class
from .._plugin.short_names import registered

_SHELF = "circusplug.plugins"
#: The narrowest that a table is made, in characters.
_NARROWEST = 60


def describe(use: str | None, *, as_json: bool, as_markdown: bool) -> int:
    """Print one plugin, or all that there are; returns the exit status.

    Raises:
        PluginLoadError: The one asked for cannot be imported.
    """
    problems: list[str] = []
    if use is not None:
        about = [examine(use)]
    else:
        about = list(_examine_all(problems))
    if as_json:
        print(json.dumps([one.as_data() for one in about], indent=2))
    elif as_markdown:
        print("\n".join(one.as_markdown() for one in about), end="")
    else:
        print("\n".join(one.as_text() for one in about), end="")
    for line in problems:
        print(line, file=sys.stderr)
    return 1 if problems else 0


def _examine_all(problems: list[str]) -> Iterator[_About]:
    import circusplug.plugins as shelf

    uses = [f"{_SHELF}.{name}" for name in shelf.__all__]
    uses += sorted(registered())
    for use in uses:
        try:
            yield examine(use)
        except PluginLoadError as error:
            problems.append(str(error))


def examine(use: str) -> _About:
    """What is to be said of a plugin.

    Raises:
        PluginLoadError: It cannot be imported.
    """
    plugin_class = load_plugin_class(use)
    declared = declared_by(plugin_class)
    options = tuple(declared.options.values()) if declared else ()
    doc = inspect.cleandoc(plugin_class.__doc__ or "").partition("\n\n")[0]
    name = str(plugin_class.name or plugin_class.__name__)
    return _About(use, name, " ".join(doc.split()), options, _needed(declared))


def _needed(declared: Declared | None) -> frozenset[str]:
    try:
        if declared:
            declared.read({})
    except SpecError as error:
        return frozenset([error.key] if error.key else [])
    return frozenset()


@dataclass(frozen=True)
class _About:
    """What is said of a plugin."""

    use: str
    name: str
    purpose: str
    options: tuple[Option, ...]
    needed: frozenset[str]  # of these that are not required, those without which it does not start

    def as_data(self) -> dict[str, Any]:
        return {
            "use": self.use,
            "name": self.name,
            "purpose": self.purpose,
            "options": [_as_data(option) for option in self.options],
            "section": self.section(),
        }

    def as_text(self) -> str:
        if not self.options:
            return f"{self.use}: declares no options\n"
        rows = [("option", "default", "meaning"), *map(_row, self.options)]
        widths = [max(len(row[column]) for row in rows) + 2 for column in (0, 1)]
        left = sum(widths) + 2
        room = max(shutil.get_terminal_size().columns, left + _NARROWEST) - left
        lines = [self.use, *textwrap.wrap(self.purpose, 78, initial_indent="  ",
                                          subsequent_indent="  "), ""]  # fmt: skip
        for name, default, meaning in rows:
            first, *more = textwrap.wrap(meaning, room)
            lines.append(f"  {name:<{widths[0]}}{default:<{widths[1]}}{first}")
            lines += [" " * left + line for line in more]
        return "\n".join(lines) + f"\n\n{self.section()}"

    def as_markdown(self) -> str:
        lines = [f"### `{self.use}`", "", self.purpose, ""]
        if not self.options:
            return "\n".join([*lines, "It declares no options.", ""])
        return "\n".join([*lines, *self.table(), "", "```ini", self.section() + "```", ""])

    def table(self) -> list[str]:
        """The lines of a table in Markdown."""
        lines = ["| option | default | meaning |", "|---|---|---|"]
        for row in map(_row, self.options):
            name, default, meaning = (cell.replace("|", "\\|") for cell in row)
            shown = f"`{default}`" if default and default != _REQUIRED else default
            lines.append(f"| `{name}` | {shown} | {meaning} |")
        return lines

    def section(self) -> str:
        """A section for a circus.ini; what may be left out is a comment."""
        lines = [f"[plugin:{self.name}]", f"use = {self.use}"]
        for option in self.options:
            value = option.example or _default(option)
            sign = "" if option.required or option.name in self.needed else "# "
            lines.append(f"{sign}{option.name} = {value}".rstrip())
        return "\n".join(lines) + "\n"


_REQUIRED = "(required)"


def _default(option: Option) -> str:
    if option.required:
        return ""
    if option.default is None or (option.kind.secret and not option.default):
        return ""
    return option.kind.show(option.default)


def _row(option: Option) -> tuple[str, str, str]:
    """Name, default and meaning, with what fits."""
    fits = option.kind.fits
    words = option.meaning if fits == "text" else f"{option.meaning} ({fits})"
    if option.per_watcher:
        words += "; also for single watchers"
    return option.name, _REQUIRED if option.required else _default(option), words


def _as_data(option: Option) -> dict[str, Any]:
    return {
        "name": option.name,
        "required": option.required,
        "default": None if option.required else _default(option),
        "fits": option.kind.fits,
        "choices": list(option.kind.choices),
        "meaning": option.meaning,
        "example": option.example,
        "secret": option.kind.secret,
        "per_watcher": option.per_watcher,
    }
