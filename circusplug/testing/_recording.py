# Reads what the plugin Recorder has written, line by line: a recording may be larger than memory,
# torn, or damaged. What the lines mean is in circusplug/docs/recordings.md.

from __future__ import annotations

import base64
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

from circusplug._errors import CircusPlugError

#: The version of the form that this reads.
VERSION = 1
#: The longest line, in bytes; it takes some 100,000 processes to fill it.
_LONGEST = 64 * 1024 * 1024
#: How a file begins that gzip has made.
_GZIP = b"\x1f\x8b"
#: A line of an event, as Recorder writes it.
_EVENT = re.compile(rb'\{"at": ([0-9.]+), "event": "([^"\\]+)", "payload": (.*)\}\n?')


class RecordingError(CircusPlugError):
    """A file is no recording, or none that can be read."""


class Event(NamedTuple):
    """circusd has published something; `at` is in seconds since the start, as in all records."""

    at: float
    topic: bytes
    payload: bytes


class Options(NamedTuple):
    """Options of watchers, by their names, and circusd's own."""

    at: float
    options: Mapping[str, Mapping[str, Any]]
    globaloptions: Mapping[str, Any]


class Figures(NamedTuple):
    """What circusd told of all watchers: their states, their processes, and its own figures."""

    at: float
    status: Mapping[str, str]
    stats: Mapping[str, Mapping[str, Any]]
    dstats: Mapping[str, Any]


class Back(NamedTuple):
    """circusd came back."""

    at: float


class End(NamedTuple):
    """The recording was ended."""

    at: float


Record = Event | Options | Figures | Back | End


class Recording:
    """A recording that is being read; a context manager, and an iterator over its records.

    The moments of the records never go back. What cannot be read is told of and left out.

    Args:
        path: The file.
        warn: Is told, in a line, what is wrong with a part of it.

    Attributes:
        started: When it was begun, in seconds since the epoch.
        check_delay: circusd's check period, in seconds.

    Raises:
        RecordingError: There is no such file, or it is no recording of this version.
    """

    def __init__(self, path: Path | str, warn: Callable[[str], object]) -> None:
        self._path = path
        self._warn = warn
        self._number = 0
        self._bad = self._backwards = 0
        self._last = self._offset = 0.0
        try:
            with open(path, "rb") as file:
                compressed = file.read(len(_GZIP)) == _GZIP
            self._file: IO[bytes] = (gzip.open if compressed else open)(path, "rb")  # type: ignore[assignment]
        except OSError as error:
            raise RecordingError(f"{path}: {error.strerror or error}") from None
        try:
            self.started, self.check_delay = self._head(self._decode(self._next_line()))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __iter__(self) -> Iterator[Record]:
        while line := self._next_line():
            record = self._fast(line) or self._read(line)
            if record is None:
                continue
            at = record.at + self._offset
            if at < self._last:
                self._backwards += 1
                if self._backwards == 1:
                    self._tell(f"the time goes back by {self._last - at:g} s; read as no time")
                at = self._last
            self._last = at
            yield record if at == record.at else record._replace(at=at)
        for count, what in ((self._bad, "cannot be read"), (self._backwards, "went back in time")):
            if count > 1:
                self._warn(f"{self._path}: {count} lines {what}")

    def _next_line(self) -> bytes:
        """The next line; empty at the end of the file."""
        try:
            line = self._file.readline(_LONGEST)
        except (EOFError, OSError, zlib.error) as error:
            if self._number:
                self._tell(f"torn or damaged from here on: {error}", 1)
                return b""
            raise RecordingError(f"{self._path}: cannot be read: {error}") from None
        self._number += bool(line)
        return line

    def _head(self, head: Any) -> tuple[float, float]:
        if not isinstance(head, dict) or head.get("recording") != "circusplug":
            raise RecordingError(
                f"{self._path}: is no recording; its first line is not what 'circusplug record' "
                "writes there"
            )
        if head.get("version") != VERSION:
            raise RecordingError(
                f"{self._path}: is a recording of version {head.get('version')!r}, made by "
                f"{head.get('program')!r}; this program reads version {VERSION}"
            )
        started, delay = head.get("started"), head.get("check_delay")
        if not isinstance(started, int | float) or not isinstance(delay, int | float):
            raise RecordingError(f"{self._path}: line {self._number}: 'started' is no number")
        return float(started), float(delay)

    @staticmethod
    def _fast(line: bytes) -> Event | None:
        """An event, if the line is one as Recorder writes it."""
        match = _EVENT.fullmatch(line)
        if match is None:
            return None
        at, topic, payload = match.groups()
        try:
            json.loads(payload)
            return Event(float(at), topic, payload)
        except (ValueError, RecursionError):
            return None

    def _read(self, line: bytes) -> Record | None:
        """What a line says; None if that is nothing, or not to be understood."""
        found = self._decode(line)
        try:
            if "recording" in found:  # Recorder has gone on with a file that was there
                self._offset = self._head(found)[0] - self.started
                return None
            return _record(found)
        except (AttributeError, KeyError, TypeError, ValueError):
            self._bad += 1
            if self._bad == 1:
                torn = not line.endswith(b"\n")
                self._tell("is torn, as by a crash" if torn else "is no record; left out")
            return None

    def _decode(self, line: bytes) -> Any:
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            return ()

    def _tell(self, what: str, ahead: int = 0) -> None:
        self._warn(f"{self._path}: line {self._number + ahead}: {what}")


def _record(found: Mapping[str, Any]) -> Record | None:
    """Raises what an odd value makes it trip over."""
    at = float(found["at"])
    if not 0 <= at < 1e12:
        raise ValueError(at)
    if "event" in found:
        return Event(at, found["event"].encode(), json.dumps(found["payload"]).encode())
    if "frames" in found:
        topic, payload = (base64.b64decode(part, validate=True) for part in found["frames"])
        return Event(at, topic, payload)
    if "options" in found:
        options = {name: _object(one) for name, one in found["options"].items()}
        return Options(at, options, _object(found.get("globaloptions", {})))
    if "status" in found:
        stats = {name: _object(one) for name, one in found.get("stats", {}).items()}
        return Figures(at, _object(found["status"]), stats, _object(found.get("dstats") or {}))
    if found.get("circusd") == "back":
        return Back(at)
    if "end" in found:
        return End(at)
    return None  # of a later program, perhaps


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(value)
    return value
