# One declared option of a plugin, and the kind of values that it takes.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .._errors import SpecError


@dataclass(frozen=True)
class Kind:
    """One type of option.

    Attributes:
        fits: What fits, in a few words, for tables.
        read: Takes anything and returns a typed value, or raises ValueError with a text that goes
            behind the option's name.
        show: The text that is read as a value.
        bounded: Whether it has an order, so that there can be a minimum.
        secret: Whether its values are not to be shown.
        choices: The words that it can be, if it is one of several.
        may_be_none: Whether None is a value of it; so is empty text then.
    """

    fits: str
    read: Callable[[Any], Any]
    show: Callable[[Any], str] = str
    bounded: bool = False
    secret: bool = False
    choices: tuple[str, ...] = ()
    may_be_none: bool = False


@dataclass(frozen=True)
class Option:
    """One option of a plugin.

    Attributes:
        name: Its key in the plugin's section.
        kind: What it can be.
        meaning: What it means, for people.
        default: Its value if it is not given, as it is read; see `required`.
        required: Whether it has to be given.
        example: A value for the section that `circusplug describe` prints.
        per_watcher: Whether a watcher may have a value of its own.
    """

    name: str
    kind: Kind
    meaning: str
    default: Any = None
    required: bool = False
    example: str = ""
    per_watcher: bool = False

    def read(self, value: Any, key: str = "") -> Any:
        """Turn what is given into the option's value.

        Args:
            value: Text or a typed value; None: nothing is given.
            key: What it stands under, if that is not its name.

        Raises:
            SpecError: It does not fit, or nothing is given and it is required.
        """
        key = key or self.name
        empty = isinstance(value, str) and not value.strip()
        if self.required and (value is None or empty):
            raise SpecError(f"'{key}' is missing; give {self.meaning}", key=key)
        if value is None or (empty and self.kind.may_be_none):
            return self.default
        try:
            return self.kind.read(value)
        except ValueError as error:
            raise SpecError(f"'{key}': {error}", key=key) from None
        except TypeError:  # only a value from Python has such a type
            shown = "this" if self.kind.secret else repr(value)
            raise SpecError(f"'{key}': {shown} is not {self.kind.fits}", key=key) from None
