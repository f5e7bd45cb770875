"""Declared options: a dataclass says which options a plugin has.

::

    from dataclasses import dataclass
    from typing import Literal

    from circusplug import CircusPlugin
    from circusplug.options import Seconds, Secret, declare, option

    @dataclass(frozen=True)
    class ProbeOptions:
        url: str = option(meaning="what to fetch")  # no default: it must be given
        period: Seconds = option(10, above=0, meaning="how often to look")
        method: Literal["GET", "HEAD"] = option("GET", meaning="how to ask")
        password: Secret = option("", meaning="for the login, if there is one")

    class Probe(CircusPlugin):
        options = declare(ProbeOptions)

After ``super().__init__(*args, **config)`` the values are in ``self.options``, typed and frozen.
What is unknown, missing or does not fit is told all at once, by ``circusplug check`` and by a
start alike; ``circusplug describe`` prints the options.

An option's type is bool, int, float, str, ``Path``, a ``Literal`` of words, `Amount`, one of the
types of this module, a tuple of any number of these (``tuple[int, ...]``; in a file separated by
commas), or one of these ``| None``. What concerns several options goes into the dataclass's own
``__post_init__``, which raises ``circusplug.SpecError(text, key=...)``.
"""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any, TypeVar

from ._config.declared import Declared
from ._config.option import Option
from ._config.option_types import (
    Amount,
    Bytes,
    Command,
    Endpoint,
    Names,
    Percent,
    Regex,
    Seconds,
    Secret,
    Signal,
    bounded,
    kind_of,
)
from ._errors import SpecError
from ._secrets import declared_secrets

__all__ = [
    "Amount",
    "Bytes",
    "Command",
    "Endpoint",
    "Names",
    "Path",
    "Percent",
    "Regex",
    "Seconds",
    "Secret",
    "Signal",
    "declare",
    "option",
]

T = TypeVar("T")

#: Names that every plugin's section has a meaning of its own for.
_TAKEN = frozenset({"isolate", "name", "use"})
_ENTRY = "circusplug"


def option(
    default: Any = dataclasses.MISSING,
    *,
    meaning: str,
    unit: str = "",
    example: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    per_watcher: bool = False,
) -> Any:
    """Declare one option: a field of the dataclass.

    Args:
        default: Its value, or the text of it, if it is not given; without, it must be given.
        meaning: What it means, a phrase: "how often to look".
        unit: Of what it is a number, where the type does not tell.
        example: A value for the section to paste that ``circusplug describe`` prints.
        minimum: The least that a number may be.
        maximum: The most.
        above: What it has to be more than.
        per_watcher: Whether a watcher's section may have a value of its own, as
            ``NAME.option`` with the `name` of the plugin's class; see
            `CircusPlugin.options_for`.
    """
    entry = {
        "default": default,
        "meaning": meaning,
        "unit": unit,
        "example": example,
        "bounds": (minimum, maximum, above),
        "per_watcher": per_watcher,
    }
    return dataclasses.field(default=default, metadata={_ENTRY: entry}, kw_only=True)


def declare(cls: type[T]) -> T:
    """Declare the options of a plugin: ``options = declare(ProbeOptions)`` in its class.

    Args:
        cls: A frozen dataclass, each field made by `option`.

    Raises:
        TypeError: It is none, or an option has no meaning, a type that there is not, or a default
            or an example that does not fit.
    """
    if not dataclasses.is_dataclass(cls) or not isinstance(cls, type):
        raise TypeError(f"{cls!r} is no dataclass; write @dataclass(frozen=True) above it")
    if not cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise TypeError(f"{cls.__qualname__} can be changed; write @dataclass(frozen=True)")
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"{cls.__qualname__}: {error}; import it at the top of the module"
        ) from None
    own = vars(cls).get("__annotations__", {})  # told first, before what a base class has
    options = {
        field.name: _option(f"{cls.__qualname__}.{field.name}", field, hints[field.name])
        for field in sorted(dataclasses.fields(cls), key=lambda field: field.name not in own)
        if field.init
    }
    declared_secrets.update(name for name, one in options.items() if one.kind.secret)
    return typing.cast(T, Declared(cls, options))


def _option(place: str, field: dataclasses.Field[Any], annotation: Any) -> Option:
    entry = field.metadata.get(_ENTRY)
    if entry is None or not entry["meaning"].strip():
        raise TypeError(f'{place} has no meaning; write option(..., meaning="what it is for")')
    if field.name in _TAKEN:
        raise TypeError(f"{place}: every plugin's section has '{field.name}'; take another name")
    required = entry["default"] is dataclasses.MISSING
    try:
        kind = kind_of(annotation)
        if entry["unit"]:
            kind = dataclasses.replace(kind, fits=entry["unit"])
        kind = bounded(kind, *entry["bounds"])
        found = Option(
            field.name,
            kind,
            entry["meaning"],
            required=required,
            example=entry["example"],
            per_watcher=entry["per_watcher"],
        )
        if found.example and not kind.secret:
            found.read(found.example)
        if required or (entry["default"] is None and kind.may_be_none):
            return found
        return dataclasses.replace(found, default=kind.read(entry["default"]))
    except (TypeError, ValueError, SpecError) as error:
        raise TypeError(f"{place}: {error}") from None
