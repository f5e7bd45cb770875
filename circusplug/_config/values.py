# What an option's value may look like, one reader each: from Python (typed) or from a
# configuration file (text), both accept the same and complain in the same words. Each takes
# anything and raises ValueError with a text that goes behind the option's name.

from __future__ import annotations

import difflib
import grp
import math
import os
import pwd
import re
import resource
import signal
from collections.abc import Callable, Iterable
from typing import Any

_TRUE = frozenset({"yes", "true", "on", "1"})
_FALSE = frozenset({"no", "false", "off", "0"})

#: A number as the system knows it; str.isdigit takes superscripts, and any length.
_DIGITS = re.compile(r"[0-9]{1,10}")

#: A size: a number and perhaps a unit.
_SIZE = re.compile(r"([0-9]{1,15})\s*([KMG]?)B?", re.IGNORECASE)
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}

#: A time: a number and a unit.
_TIME = re.compile(r"([0-9]*\.?[0-9]+)\s*([a-z]+)", re.IGNORECASE)
_TIME_UNITS = {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_TIME_UNITS |= {"second": 1, "minute": 60, "hour": 3600, "day": 86400}

_PORT = re.compile(r"[0-9]{1,5}")

#: What a longer time, `inf` included, comes down to, in seconds: a lock's wait takes no more
#: than some 290 years.
_ENDLESS = 100 * 366 * 86400.0

#: The longest word that is compared with others, in characters.
_LONGEST_WORD = 100


def to_bool(value: Any) -> bool:
    """Read a yes/no option as Circus does: yes, true, on, 1, no, false, off, 0.

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
    raise ValueError(f"{value!r} is not yes or no")


def number(value: Any) -> float:
    """Any number."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{value!r} is not a number") from None


def seconds(value: Any) -> float:
    """A time in seconds, 0 or more: ``90``, ``1.5 min``, ``2h``; `inf` is a very long one."""
    try:
        found = _TIME.fullmatch(value.strip()) if isinstance(value, str) else None
        unit = found[2].lower() if found else ""
        scale = _TIME_UNITS.get(unit) or _TIME_UNITS.get(unit.removesuffix("s"))
        seconds = float(found[1]) * scale if found and scale else float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{value!r} is not a number of seconds; write 90, 1.5 min or 2h") from None
    if seconds < 0 or math.isnan(seconds):
        raise ValueError(f"{value!r} is not a number of seconds of 0 or more")
    return min(seconds, _ENDLESS)


def positive_seconds(value: Any) -> float:
    """A time in seconds, more than 0."""
    found = seconds(value)
    if not found:
        raise ValueError(f"{value!r} is not a number of seconds of more than 0")
    return found


def integer(minimum: int | None = None, maximum: int | None = None) -> Callable[[Any], int]:
    """A reader of whole numbers, from `minimum` on and to `maximum` if given."""

    def parse(value: Any) -> int:
        try:
            number = int(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"{value!r} is not a whole number") from None
        if isinstance(value, float) and number != value:
            raise ValueError(f"{value!r} is not a whole number")
        if minimum is not None and number < minimum:
            raise ValueError(f"{value!r} is less than {minimum}")
        if maximum is not None and number > maximum:
            raise ValueError(f"{value!r} is more than {maximum}")
        return number

    return parse


def size(value: Any) -> int:
    """A size in bytes, 1 or more: a number, with K, M or G for 1024 bytes, 1024 K, 1024 M."""
    found = _SIZE.fullmatch(str(value).strip())
    number = int(found[1]) * _UNITS[found[2].upper()] if found else 0
    if not number:
        raise ValueError(f"{value!r} is not a size of 1 byte or more; write 250K or 16M")
    return number


def choice(*words: str) -> Callable[[Any], str]:
    """A reader of one of some words, in any case."""

    def parse(value: Any) -> str:
        word = str(value).strip().lower()
        if word not in words:
            raise ValueError(f"{value!r} is none of {', '.join(words)}{did_you_mean(word, words)}")
        return word

    return parse


def endpoint(value: Any) -> str:
    """A ZMQ endpoint."""
    text = str(value)
    scheme, found, rest = text.partition("://")
    if not text.isprintable():  # lone surrogates, for one, from the environment
        raise ValueError(f"{text!r} holds bytes that are no text")
    if scheme not in ("tcp", "ipc", "inproc") or not found or not rest:
        raise ValueError(f"{text!r} is no ZMQ endpoint; write tcp://HOST:PORT or ipc://PATH")
    if scheme == "tcp":
        host, _, port = rest.rpartition(":")
        if not host or not _PORT.fullmatch(port) or not 0 < int(port) < 65536:
            raise ValueError(
                f"{text!r} needs a host and a port from 1 to 65535, tcp://127.0.0.1:5555"
            )
    return text


def directory(value: Any) -> str:
    """A directory that exists; returns it absolute."""
    path: str = os.path.expanduser(os.fspath(value))
    if not os.path.isdir(path):
        raise ValueError(f"{path!r} is not a directory")
    return os.path.abspath(path)


def output_file(value: Any) -> str:
    """A file to write to, in a directory that exists; empty or ``-``: none."""
    path: str = os.path.expanduser(os.fspath(value))
    if path in ("", "-"):
        return ""
    if os.path.isdir(path) or not os.path.isdir(os.path.dirname(os.path.abspath(path))):
        raise ValueError(f"{path!r} is not a file in an existing directory")
    return os.path.abspath(path)


def user_id(value: Any) -> int:
    """A user by name or number."""
    try:
        if isinstance(value, int) or _DIGITS.fullmatch(str(value).strip()):
            return pwd.getpwuid(int(value)).pw_uid
        return pwd.getpwnam(str(value).strip()).pw_uid
    except (KeyError, OverflowError):
        raise ValueError(f"no user {value!r} here") from None


def group_id(value: Any) -> int:
    """A group by name or number."""
    try:
        if isinstance(value, int) or _DIGITS.fullmatch(str(value).strip()):
            return grp.getgrgid(int(value)).gr_gid
        return grp.getgrnam(str(value).strip()).gr_gid
    except (KeyError, OverflowError):
        raise ValueError(f"no group {value!r} here") from None


def signal_number(value: Any) -> int:
    """A signal by name, with or without SIG, or number."""
    text = str(int(value) if isinstance(value, signal.Signals) else value).strip().upper()
    try:
        if _DIGITS.fullmatch(text):
            return int(signal.Signals(int(text)))
        name = text if text.startswith("SIG") else "SIG" + text
        return int(signal.Signals[name])
    except (KeyError, ValueError):
        raise ValueError(f"{value!r} is not a signal") from None


def search_path(value: Any) -> tuple[str, ...]:
    """Directories to import from, a list or separated by colons; returns them absolute."""
    parts = value.split(os.pathsep) if isinstance(value, str) else value
    paths = tuple(os.path.abspath(os.path.expanduser(os.fspath(part))) for part in parts if part)
    for path in paths:
        if not os.path.exists(path):  # a zip file will do
            raise ValueError(f"{path!r}: there is no such directory")
    return paths


def limit(value: Any) -> int:
    """A resource limit; nothing, ``unlimited`` or -1: none."""
    if value is None or str(value).strip().lower() in ("", "unlimited", "-1"):
        return resource.RLIM_INFINITY
    return integer(0)(value)


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """A hint at the known word nearest to one that is not known, or nothing."""
    if len(word) > _LONGEST_WORD:  # comparing takes time
        return ""
    close = difflib.get_close_matches(word, list(known), 1)
    return f" (did you mean '{prefix}{close[0]}'?)" if close else ""
