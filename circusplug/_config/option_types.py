# The types that a declared option can have, and how each is read from text or from Python.
# What the host's options need as well is read by `values`.

from __future__ import annotations

import math
import os
import re
import shlex
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from .._secrets import MASK
from . import values
from .option import Kind
from .values import did_you_mean

#: The longest secret that is read from a file, in bytes.
_LONGEST_SECRET = 64 * 1024


@dataclass(frozen=True)
class Amount:
    """A size or a percentage; one of both is None.

    Attributes:
        bytes: The size.
        percent: The percentage, of what the option says.
    """

    bytes: int | None = None
    percent: float | None = None


class _SecretText(str):
    """Text that `repr` does not show, and so no dataclass or list that it is in."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(MASK)


def _text(value: Any) -> str:
    if isinstance(value, str | int | float | os.PathLike):
        return str(value).strip()
    raise TypeError


def _finite(value: Any) -> float:
    number = values.number(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not a number")
    return number


def _percent(value: Any) -> float:
    try:
        number = _finite(value.strip().removesuffix("%") if isinstance(value, str) else value)
    except ValueError:
        raise ValueError(f"{value!r} is not a number of percent") from None
    if number < 0:
        raise ValueError(f"{value!r} is less than 0")
    return number


def _amount(value: Any) -> Amount:
    if isinstance(value, Amount):
        return value
    try:
        return Amount(percent=_percent(value))
    except ValueError:
        pass
    try:
        return Amount(bytes=values.size(value))
    except ValueError:
        raise ValueError(f"{value!r} is neither a size nor percent; write 250M or 20 %") from None


def _regex(value: Any) -> re.Pattern[str]:
    try:
        return re.compile(value)
    except (re.error, TypeError, RecursionError, OverflowError) as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}") from None


def _path(value: Any) -> Path:
    text = _text(value)
    if not text or "\0" in text:
        raise ValueError(f"{value!r} is not a path")
    return Path(text).expanduser()


def _command(value: Any) -> tuple[str, ...]:
    if not isinstance(value, str):
        return tuple(_text(part) for part in _sequence(value))
    try:
        return tuple(shlex.split(value))
    except ValueError as error:
        raise ValueError(f"{value!r} cannot be split into arguments: {error}") from None


def _sequence(value: Any) -> Sequence[Any]:
    if not isinstance(value, Sequence):
        raise TypeError
    return value


def _secret(value: Any) -> str:
    """Text, ``env:NAME`` or ``file:PATH``; no message shows what it is."""
    if not isinstance(value, str):
        raise TypeError
    kind, colon, name = value.strip().partition(":")
    if kind == "env" and colon:
        if not os.environ.get(name):
            raise ValueError(f"there is no environment variable {name}, or it is empty")
        return _SecretText(os.environ[name])
    if kind == "file" and colon:
        try:
            with open(os.path.expanduser(name), "rb") as file:
                read = file.read(_LONGEST_SECRET + 1)
            found = read.decode().rstrip("\r\n")
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise ValueError(f"the file {name} cannot be read: {why}") from None
        if not found:
            raise ValueError(f"the file {name} is empty")
        if len(read) > _LONGEST_SECRET:
            raise ValueError(f"the file {name} is no secret: it has more than 64 KiB")
        return _SecretText(found)
    return _SecretText(value.strip())


def _show_number(value: float) -> str:
    return repr(value).removesuffix(".0")


def _show_bytes(value: int) -> str:
    for unit, scale in (("G", 1024**3), ("M", 1024**2), ("K", 1024)):
        if value % scale == 0:
            return f"{value // scale}{unit}"
    return str(value)


def _show_amount(value: Amount) -> str:
    if value.bytes is not None:
        shown = _show_bytes(value.bytes)
        return shown if shown[-1].isalpha() else shown + "B"
    return f"{_show_number(value.percent or 0.0)} %"


def _signal(value: int) -> str:
    import signal

    return signal.Signals(value).name


_PLAIN: dict[Any, Kind] = {
    bool: Kind("yes or no", values.to_bool, lambda value: "yes" if value else "no"),
    int: Kind("a whole number", values.integer(), bounded=True),
    float: Kind("a number", _finite, _show_number, bounded=True),
    str: Kind("text", _text),
    Path: Kind("a path", _path),
    Amount: Kind("percent, or a size as 250M", _amount, _show_amount),
}

#: A time in seconds, 0 or more: ``90``, ``1.5 min``, ``2h``.
Seconds = Annotated[float, Kind("seconds", values.seconds, _show_number, bounded=True)]
#: A size in bytes, 1 or more: ``250M``.
Bytes = Annotated[int, Kind("bytes, 250K or 16M", values.size, _show_bytes, bounded=True)]
#: A percentage, 0 or more: ``20`` or ``20 %``.
Percent = Annotated[float, Kind("percent", _percent, _show_number, bounded=True)]
#: Names, or anything else without a comma in it, separated by commas.
Names = tuple[str, ...]
#: A command and its arguments, quoted as for a shell.
Command = Annotated[tuple[str, ...], Kind("quoted as for a shell", _command, shlex.join)]
#: A regular expression, compiled.
Regex = Annotated[
    re.Pattern[str], Kind("a regular expression", _regex, lambda value: value.pattern)
]
#: A ZMQ endpoint.
Endpoint = Annotated[str, Kind("tcp://HOST:PORT or ipc://PATH", values.endpoint)]
#: A signal, by name or number.
Signal = Annotated[int, Kind("a signal, by name or number", values.signal_number, _signal)]
#: What nobody is to see: the text itself, ``env:NAME`` or ``file:PATH``.
Secret = Annotated[str, Kind("text, env:NAME or file:PATH", _secret, lambda _: MASK, secret=True)]


def kind_of(annotation: Any) -> Kind:
    """How a type is read.

    Raises:
        TypeError: An option cannot have that type.
    """
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        found = [item for item in inner[1:] if isinstance(item, Kind)]
        return found[-1] if found else kind_of(inner[0])
    if origin in (typing.Union, types.UnionType):
        rest = [item for item in inner if item is not type(None)]
        if len(rest) == 1:
            return replace(kind_of(rest[0]), may_be_none=True)
    if origin is Literal and all(isinstance(word, str) for word in inner):
        return _choice(inner)
    if origin is tuple and len(inner) == 2 and inner[1] is ...:
        return _list(kind_of(inner[0]))
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    raise TypeError(f"an option cannot be {getattr(annotation, '__name__', annotation)}")


def _choice(words: tuple[str, ...]) -> Kind:
    known = {word.lower(): word for word in words}

    def read(value: Any) -> str:
        word = str(value).strip().lower()
        if word in known:
            return known[word]
        raise ValueError(f"{value!r} is none of {', '.join(words)}{did_you_mean(word, known)}")

    return Kind(f"one of {', '.join(words)}", read, choices=words)


def _list(one: Kind) -> Kind:
    def read(value: Any) -> tuple[Any, ...]:
        if isinstance(value, str):
            parts = [part for part in value.replace("\n", ",").split(",") if part.strip()]
            return tuple(one.read(part.strip()) for part in parts)
        return tuple(one.read(part) for part in _sequence(value))

    def show(value: tuple[Any, ...]) -> str:
        return ", ".join(map(one.show, value))

    fits = "names" if one is _PLAIN[str] else f"each {one.fits}"
    return Kind(f"{fits}, separated by commas", read, show, secret=one.secret)


def bounded(kind: Kind, minimum: float | None, maximum: float | None, above: float | None) -> Kind:
    """A kind whose values have bounds.

    Raises:
        TypeError: It has no order.
    """
    if minimum is None and maximum is None and above is None:
        return kind
    if not kind.bounded:
        raise TypeError(f"{kind.fits}: this can have no minimum, maximum or above")
    words = [
        f"more than {kind.show(above)}" if above is not None else "",
        f"{kind.show(minimum)} or more" if minimum is not None else "",
        f"at most {kind.show(maximum)}" if maximum is not None else "",
    ]
    inner = kind.read

    def read(value: Any) -> Any:
        found = inner(value)
        if minimum is not None and found < minimum:
            raise ValueError(f"{value!r} is less than {kind.show(minimum)}")
        if maximum is not None and found > maximum:
            raise ValueError(f"{value!r} is more than {kind.show(maximum)}")
        if above is not None and found <= above:
            raise ValueError(f"{value!r} must be more than {kind.show(above)}")
        return found

    return replace(kind, read=read, fits=", ".join(filter(None, [kind.fits, *words])))
