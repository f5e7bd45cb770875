# What a host and an isolated plugin's process say to each other over the control socket.
#
#   host -> process   first `Launch`, a pickle; then orders, a line each
#   process -> host   reports and log records, a line each
#
# A line is one JSON object: `kind`, and the fields of the class of that kind. A host trusts
# nothing that a process says, so `decode` checks every field, and never raises. Data only.

from __future__ import annotations

import dataclasses
import json
import pickle
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from .._config.host_options import HostOptions
from .._plugin.status import LAG_BOUNDS

#: The longest line that is kept together, in bytes.
LINE_LIMIT = 64 * 1024
#: What a plugin hands over may be so long, in bytes of JSON: half a line, as quotes are doubled.
STATE_LIMIT = LINE_LIMIT // 2 - 1024
#: A text of one line, and one of many, is cut to so many characters.
ERROR_LIMIT = 2000
TEXT_LIMIT = 20_000

#: A text without line ends, and one that may have some.
Line = str
Text = str
#: How many lags there were of each length.
LagCounts = tuple[int, ...]

# From host to process.


@dataclass(frozen=True)
class Launch:
    """What a process is told first; it is sent as a pickle, as the process trusts its host.

    Attributes:
        host: What the process shall be like.
        stop_timeout: How long its stop may take if the host does not say, in seconds.
        path: Where it imports from.
        argv: The host's command line.
        directory: The host's current directory; None if that is gone.
        environment: Its environment, but for `host.env.*` and what depends on its user.
        log_level: The lowest level that it logs, but for what has a level of its own.
        main: What `multiprocessing.spawn.prepare` needs to import the host's main script;
            empty if the plugin does not come from there.
        plugin: Its `PluginSpec`, `HostConfig`, `Link` and what the life before has handed over,
            pickled. To unpickle them imports the plugin's module, which comes after the process
            is as it shall be.
        only_check: Whether it shall only look at the plugin's class and options, and tell what
            is wrong with them by `Ended.error`.
    """

    host: HostOptions
    stop_timeout: float
    path: list[str]
    argv: list[str]
    directory: str | None
    environment: dict[str, str]
    log_level: int
    main: dict[str, Any]
    plugin: bytes
    only_check: bool = False


@dataclass(frozen=True)
class Stop:
    """Stop altogether, `handle_stop` included, within `seconds`.

    Attributes:
        hands_over: Whether to say the plugin's state by a `Saved`.
    """

    seconds: float
    hands_over: bool = False


@dataclass(frozen=True)
class AskState:
    """Say how the plugin is doing, by a `State`."""


@dataclass(frozen=True)
class AskStack:
    """Say what the plugin's thread is at, by a `Stack`."""


@dataclass(frozen=True)
class LogLevel:
    """Log from that level on, as of `logging`, what has no level of its own."""

    level: int


# From process to host.


@dataclass(frozen=True)
class Begun:
    """The class is imported, and the constructor has begun."""


@dataclass(frozen=True)
class Running:
    """The plugin is initialised and receives."""


@dataclass(frozen=True)
class Waiting:
    """`handle_init` failed while circusd could not be reached; it waits for the connection."""


@dataclass(frozen=True)
class TooManyErrors:
    """`host.max_errors` is reached."""

    error: Line


@dataclass(frozen=True)
class Stalled:
    """A callback runs for longer than `host.stall_timeout`."""

    stack: Text


@dataclass(frozen=True)
class Parked:
    """The event in hand is finished, or given up: now it is the turn of `handle_stop`."""


@dataclass(frozen=True)
class State:
    """How a plugin is doing; the numbers are those of `Counters` that its process keeps.

    Attributes:
        busy_since: When the callback in hand began, in seconds of `time.monotonic` (which is
            one clock for all processes of a machine), 0.0 if none runs.
        connected: Whether its event socket is connected.
        awaits_circusd: Whether it is past its constructor, and circusd is not there yet.
        last_error: The last thing that went wrong in it.
    """

    received: int
    handled: int
    errors: int
    calls: int
    reconnects: int
    garbage: int
    too_large: int
    conflicts: int
    casts_failed: int
    lag: float
    lag_sum: float
    lag_counts: LagCounts
    busy_since: float
    connected: bool
    awaits_circusd: bool
    last_error: Line | None


@dataclass(frozen=True)
class Stack:
    """What the plugin's thread is at."""

    stack: Text


@dataclass(frozen=True)
class Saved:
    """What the plugin's `get_state` has returned, in JSON; the host does not look into it."""

    state: Text


@dataclass(frozen=True)
class Ended:
    """The plugin's life is over; see `Notice` for the fields."""

    error: Line | None
    permanent: bool
    retry: bool


@dataclass(frozen=True)
class LogEntry:
    """A log record.

    Attributes:
        name: Of its logger.
        level: As of `logging`.
        created: Seconds since 1970.
        text: The message.
        traceback: The traceback and the stack; empty if there is none.
    """

    name: Line
    level: int
    created: float
    text: Text
    traceback: Text


ORDERS: tuple[type[Any], ...] = (Stop, AskState, AskStack, LogLevel)
REPORTS: tuple[type[Any], ...] = (
    Begun,
    Running,
    Waiting,
    TooManyErrors,
    Stalled,
    Parked,
    State,
    Stack,
    Saved,
    Ended,
)
ENTRIES: tuple[type[Any], ...] = (LogEntry,)

#: The names of the counts in a `State`, which `Counters` has, too.
COUNTED = tuple(field.name for field in dataclasses.fields(State) if field.type == "int")

_LENGTH = struct.Struct("!Q")
_T = TypeVar("_T")


def encode(message: Any) -> bytes:
    """A message as a line, with its line end; texts are cut so that the host keeps it together."""
    said = {"kind": type(message).__name__, **dataclasses.asdict(message)}
    line = json.dumps(said)
    while len(line) >= LINE_LIMIT:
        # What matters of a text is its beginning, and of a traceback its end.
        key = max(said, key=lambda name: len(str(said[name])))
        text = str(said[key])
        said[key] = f"{text[: len(text) // 8]}\n...\n{text[-len(text) // 4 :]}"
        line = json.dumps(said)
    return line.encode() + b"\n"


def decode(line: bytes, kinds: Iterable[type[_T]]) -> _T | None:
    """What a line says; None if it makes no sense as one of `kinds`. Never raises."""
    try:
        said = json.loads(line)
        kind = next(kind for kind in kinds if kind.__name__ == said["kind"])
        fields = dataclasses.fields(kind)  # type: ignore[arg-type]
        return kind(**{field.name: _CHECKS[str(field.type)](said[field.name]) for field in fields})
    except (ValueError, TypeError, KeyError, StopIteration, RecursionError):
        return None


def encode_state(state: Any) -> bytes:
    """What a plugin hands over as a line.

    Raises:
        ValueError: It is too long, or nothing that JSON can hold.
        TypeError: It is nothing that JSON can hold.
        RecursionError: It is nested too deeply.
    """
    text = json.dumps(state)
    if len(text) > STATE_LIMIT:
        raise ValueError(f"{len(text)} bytes of JSON are too much; {STATE_LIMIT} are the limit")
    return encode(Saved(text))


def send_launch(send: Callable[[bytes], object], launch: Launch) -> None:
    """Send a process its first message, by a function that sends all of it."""
    data = pickle.dumps(launch)
    send(_LENGTH.pack(len(data)) + data)


def receive_launch(receive: Callable[[int], bytes]) -> Launch:
    """Take in the first message, by a function that receives so many bytes at most.

    Raises:
        EOFError: The host is gone.
    """
    (length,) = _LENGTH.unpack(_receive_all(receive, _LENGTH.size))
    launch: Launch = pickle.loads(_receive_all(receive, length))
    return launch


def _receive_all(receive: Callable[[int], bytes], size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = receive(size - len(data))
        if not more:
            raise EOFError("the host is gone")
        data += more
    return bytes(data)


def one_line(text: str | None) -> str | None:
    """A text without line ends, cut to `ERROR_LIMIT`."""
    if text is None:
        return None
    text = " ".join(text.split())
    if len(text) <= ERROR_LIMIT:
        return text
    said = f"... ({len(text)} characters)"
    return text[: ERROR_LIMIT - len(said)] + said


def shown(text: str) -> str:
    """A text as it may be shown to somebody.

    It has no characters that move a terminal's cursor, and none that UTF-8 cannot encode.
    """
    return _UNSHOWN.sub("?", text)


# The checks of fields, by their annotations.

_UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def _integer(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("not a count")
    return value


def _number(value: Any) -> float:
    # Comparing is safe for an int of any size, and False for NaN.
    if type(value) not in (int, float) or not 0 <= value < 1e15:
        raise ValueError("not a time")
    return float(value)


def _lag_counts(value: Any) -> LagCounts:
    if type(value) is not list or len(value) != len(LAG_BOUNDS) + 1:
        raise ValueError("not one count for each bucket")
    return tuple(map(_integer, value))


def _truth(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("neither true nor false")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("not a text")
    return shown(value)


def _line(value: Any) -> str:
    return one_line(_text(value)) or ""


def _optional_line(value: Any) -> str | None:
    return None if value is None else _line(value)


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "int": _integer,
    "float": _number,
    "LagCounts": _lag_counts,
    "bool": _truth,
    "Line": _line,
    "Text": _text,
    "Line | None": _optional_line,
}
