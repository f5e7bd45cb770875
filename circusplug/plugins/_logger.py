# Writes each event as one line: to a file or standard output (_linefile.py), to syslog or to
# journald (_log_socket.py). How a line looks is in _line_formats.py and _syslog_messages.py.
#
# Owner: the plugin's thread; all is closed by `handle_stop`, when that thread is parked.

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from circusplug import CircusPlugin, SpecError
from circusplug.options import Bytes, Names, declare, option

from ._line_formats import FORMATS, Format, format_untimed
from ._linefile import LineFile, StandardOutput, open_file
from ._log_socket import Address, LogSocket
from ._losses import Losses
from ._syslog_messages import Journal, Rfc3164, Rfc5424
from ._watchers import Patterns

#: How much of a message that is no event is shown, in bytes.
_SHOWN = 500

Facility = Literal[
    "user", "daemon", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"
]


@dataclass(frozen=True)
class LoggerOptions:
    """What a `Logger` can be told."""

    target: Literal["file", "syslog", "journald"] = option("file", meaning="where lines go")
    filename: str = option(
        "-",
        meaning="the file to append to, - for standard output",
        example="/var/log/circus-events.log",
    )
    format: Literal["text", "json", "logfmt"] = option("text", meaning="how a line looks")
    watchers: Names = option("*", meaning="names of watchers, with * and ?")
    actions: Names = option(
        "*", meaning="what events to write, with * and ?", example="reap, hook_failure"
    )
    rotate_size: Bytes | None = option(
        None, meaning="begin a new file before it is larger than this"
    )
    rotate_every: Literal["never", "hour", "day", "week"] = option(
        "never", meaning="begin a new file each hour, at midnight, or on Mondays"
    )
    keep: int = option(5, minimum=1, meaning="how many older files to keep")
    syslog: str = option(
        "/dev/log", meaning="where syslog listens: udp://HOST:PORT, tcp://HOST:PORT or a path"
    )
    syslog_format: Literal["rfc5424", "rfc3164"] | None = option(
        None, meaning="the form of a message, by default rfc3164 at a path, else rfc5424"
    )
    facility: Facility = option("daemon", meaning="syslog's facility")
    journal: Path = option("/run/systemd/journal/socket", meaning="the path of journald's socket")

    def __post_init__(self) -> None:
        rotated = "rotate_size" if self.rotate_size is not None else "rotate_every"
        if self.rotate_size is not None or self.rotate_every != "never":
            if self.rotate_size is not None and self.rotate_every != "never":
                raise SpecError("give 'rotate_size' or 'rotate_every', not both", key=rotated)
            if self.target != "file" or self.filename in ("", "-"):
                raise SpecError(f"{rotated!r} is for a file; give 'filename'", key=rotated)
        try:
            Address.read(self.syslog)
        except ValueError as error:
            raise SpecError(f"'syslog': {error}", key="syslog") from None


class Logger(CircusPlugin):
    """Writes each event of circusd as one line: to a file, standard output, syslog or journald.

    As text, ``2026-01-02 03:04:05 web reap pid=123 exit_code=-9``: the time is local, a value
    that would be ambiguous is quoted as JSON does. As JSON, an object with ``time`` (seconds
    since the epoch), ``watcher``, ``action`` and what circusd's payload holds. As logfmt,
    ``time=2026-01-02T03:04:05.000+00:00 watcher=web action=reap pid=123 exit_code=-9``.

    A line of action ``reconnect``, of no watcher, tells that circusd came back and that events
    may be missing before it; a line of action ``unreadable`` shows a message that is no event.

    A file that was moved away or removed, as by logrotate, is made anew: no signal is needed. One
    that cannot be opened is a SpecError at the start. syslog and journald may come later, and go:
    up to 10,000 lines wait for them. How many lines were lost is told, at a stop, too.
    """

    name = "logger"
    options = declare(LoggerOptions)

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self.filename = self.options.filename or "-"
        self._is_meant = Patterns(self.options.watchers, with_plugins=True).match
        self._is_wanted = Patterns(self.options.actions).match
        self._format: Callable[[float, str, str, Mapping[str, Any]], bytes]
        self._file: LineFile | LogSocket | None = None
        self._losses = Losses("", self.logger)

    def handle_init(self) -> None:
        options = self.options
        form = FORMATS[options.format]
        if self.replaying:
            self._format = _encoded(form)
            return
        if options.target == "file":
            self._losses = Losses(self.filename, self.logger)
            self._format = _encoded(form)
            try:
                self._file = self._open()
            except OSError as error:
                raise SpecError(f"'filename': {error}", key="filename") from None
            return
        if options.format == "text":  # whoever gets it has a time of its own
            form = format_untimed
        address = Address("unix", str(options.journal))
        if options.target == "journald":
            self._format = Journal(form)
        else:
            address = Address.read(options.syslog)
            local = address.kind == "unix"
            if (options.syslog_format or ("rfc3164" if local else "rfc5424")) == "rfc3164":
                self._format = Rfc3164(form, options.facility, local)
            else:
                self._format = Rfc5424(form, options.facility)
        self._losses = Losses(str(address), self.logger)
        self._file = LogSocket(address, self.loop, self.logger, self._losses)

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        try:
            event = self.parse_event(data)
            if not self._is_meant(event.watcher) or not self._is_wanted(event.action):
                return
            line = self._format(
                event.time or self.now(), event.watcher, event.action, event.payload
            )
        except (ValueError, OverflowError, RecursionError) as error:
            line = self._format(self.now(), "", "unreadable", _describe(data, error))
        self._write(line)

    def handle_reconnect(self) -> None:
        note = {"note": "circusd came back; events before this line may be missing"}
        self._write(self._format(self.now(), "", "reconnect", note))

    def handle_stop(self) -> None:
        if self._file is not None:
            self._file.close()
        self._losses.end()

    def _open(self) -> LineFile:
        options = self.options
        if self.filename == "-":
            return StandardOutput()
        return open_file(
            self.filename, options.keep, options.rotate_size, options.rotate_every, self.logger
        )

    def _write(self, line: bytes) -> None:
        if self._file is None:  # a replay only tells
            self.logger.info("%s", line.decode())
            return
        if isinstance(self._file, LogSocket):
            self._file.write(line)
            return
        self._losses.write(self._file, line)


def _encoded(form: Format) -> Callable[[float, str, str, Mapping[str, Any]], bytes]:
    return lambda *event: form(*event).encode()


def _describe(data: tuple[bytes, bytes], error: Exception) -> dict[str, str]:
    topic, message = (part[:_SHOWN].decode("utf-8", "backslashreplace") for part in data)
    return {"topic": topic, "message": message, "error": str(error)[:_SHOWN]}
