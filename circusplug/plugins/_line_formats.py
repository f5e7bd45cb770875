# How an event looks as a line: text for people, JSON and logfmt for programs. A line never has a
# line's end in it, and is printable.

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

#: Moment, watcher (may be empty), action and payload of an event, as a line. Raises ValueError,
#: OverflowError or RecursionError for a value that cannot be shown.
Format = Callable[[float, str, str, Mapping[str, Any]], str]

_AMBIGUOUS = frozenset(' "=')


def format_text(moment: float, watcher: str, action: str, payload: Mapping[str, Any]) -> str:
    """A line for people, with the local time."""
    try:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
    except OSError as error:  # what some systems say of a year that is far away
        raise ValueError(str(error)) from None
    return f"{stamp} {format_untimed(moment, watcher, action, payload)}"


def format_untimed(_: float, watcher: str, action: str, payload: Mapping[str, Any]) -> str:
    """The same without the time, for a log that has its own."""
    parts = [_word(watcher) if watcher else "-", _word(action)]
    return " ".join(parts + [f"{_word(key)}={_word(value)}" for key, value in _fields(payload)])


def format_json(moment: float, watcher: str, action: str, payload: Mapping[str, Any]) -> str:
    """A JSON object."""
    fields = {"time": moment, "watcher": watcher or None, "action": action}
    return json.dumps({**fields, **payload, **fields}, allow_nan=False)


def format_logfmt(moment: float, watcher: str, action: str, payload: Mapping[str, Any]) -> str:
    """``key=value`` throughout; a value that would be ambiguous is quoted as in JSON."""
    fields = {"time": iso_time(moment), "watcher": watcher, "action": action}
    rest = {_key(key): value for key, value in _fields(payload) if key not in fields}
    return " ".join(f"{key}={_word(value)}" for key, value in {**fields, **rest}.items())


FORMATS: Mapping[str, Format] = {
    "text": format_text,
    "json": format_json,
    "logfmt": format_logfmt,
}


def iso_time(moment: float) -> str:
    """The local time as of RFC 3339, with milliseconds.

    Raises:
        ValueError, OverflowError: It is no year of four digits.
    """
    try:
        found = datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).astimezone()
    except OSError as error:
        raise ValueError(str(error)) from None
    return found.isoformat(timespec="milliseconds")


def plain(value: Any) -> str:
    """A value as text: strings as they are, anything else as in JSON."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    return json.dumps(value)


def _fields(payload: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [
        ("pid" if key == "process_pid" else key, value)
        for key, value in payload.items()
        if key != "time"
    ]


def _word(value: Any) -> str:
    """A value that a reader can tell from its neighbours; text as it is where that is clear."""
    if isinstance(value, str) and value.isprintable() and value and not _AMBIGUOUS & set(value):
        return value
    return json.dumps(value)


def _key(key: str) -> str:
    """A key of logfmt, which cannot be quoted."""
    return "".join(c if c.isprintable() and c not in _AMBIGUOUS else "_" for c in key) or "_"
