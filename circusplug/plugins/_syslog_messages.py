# An event in the forms of syslog (RFC 5424, RFC 3164) and of journald's own protocol
# (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/).

from __future__ import annotations

import re
import socket
import time
from collections.abc import Mapping
from logging.handlers import SysLogHandler
from typing import Any

from ._line_formats import Format, iso_time, plain

_APP = "circus"
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
#: What is not allowed in a field of RFC 5424's header, and in a field's name of journald's.
_NOT_IN_HEADER = re.compile(r"[^!-~]")
_NOT_IN_NAME = re.compile(r"[^A-Z0-9_]")
#: How many fields of a payload journald gets.
_MOST_FIELDS = 50


def severity(action: str, payload: Mapping[str, Any]) -> int:
    """Warning for what went wrong, else informational."""
    bad = action in ("hook_failure", "reconnect", "unreadable") or (
        action == "reap" and payload.get("exit_code") != 0
    )
    return SysLogHandler.LOG_WARNING if bad else SysLogHandler.LOG_INFO


class Rfc5424:
    """An event as RFC 5424 says.

    Args:
        form: The line in it.
        facility: The facility's name.
    """

    def __init__(self, form: Format, facility: str) -> None:
        self._form = form
        self._facility = SysLogHandler.facility_names[facility] << 3
        self._host = _NOT_IN_HEADER.sub("_", socket.gethostname())[:255] or "-"

    def __call__(
        self, moment: float, watcher: str, action: str, payload: Mapping[str, Any]
    ) -> bytes:
        pid = payload.get("process_pid")
        head = (
            f"<{self._facility | severity(action, payload)}>1 {iso_time(moment)} {self._host} "
            f"{_APP} {pid if isinstance(pid, int) else '-'} "
            f"{_NOT_IN_HEADER.sub('_', action)[:32] or '-'} - "
        )
        return (head + self._form(moment, watcher, action, payload)).encode()


class Rfc3164:
    """An event as RFC 3164 says.

    Args:
        form: The line in it.
        facility: The facility's name.
        local: Whether it goes to this machine's own syslog, which wants no host's name.
    """

    def __init__(self, form: Format, facility: str, local: bool) -> None:
        self._form = form
        self._facility = SysLogHandler.facility_names[facility] << 3
        self._host = "" if local else _NOT_IN_HEADER.sub("_", socket.gethostname()) + " "

    def __call__(
        self, moment: float, watcher: str, action: str, payload: Mapping[str, Any]
    ) -> bytes:
        pid = payload.get("process_pid")
        tag = f"{_APP}[{pid}]" if isinstance(pid, int) else _APP
        text = self._form(moment, watcher, action, payload)
        priority = self._facility | severity(action, payload)
        return f"<{priority}>{_bsd_time(moment)} {self._host}{tag}: {text}".encode()


class Journal:
    """An event with fields, for journald: ``CIRCUS_WATCHER``, ``CIRCUS_ACTION``, ``CIRCUS_PID``
    and what else its payload holds.

    Args:
        form: The line in it.
    """

    def __init__(self, form: Format) -> None:
        self._form = form

    def __call__(
        self, moment: float, watcher: str, action: str, payload: Mapping[str, Any]
    ) -> bytes:
        fields = {
            "MESSAGE": self._form(moment, watcher, action, payload),
            "PRIORITY": str(severity(action, payload)),
            "SYSLOG_IDENTIFIER": _APP,
        }
        for key, value in list(payload.items())[:_MOST_FIELDS]:
            name = "PID" if key == "process_pid" else _NOT_IN_NAME.sub("_", key.upper())
            fields[f"CIRCUS_{name}"[:64]] = plain(value)
        fields |= {"CIRCUS_ACTION": plain(action)}
        if watcher:
            fields["CIRCUS_WATCHER"] = plain(watcher)
        return b"".join(_journal_field(name, value.encode()) for name, value in fields.items())


def _journal_field(name: str, value: bytes) -> bytes:
    if b"\n" not in value:
        return b"%s=%s\n" % (name.encode(), value)
    return b"%s\n%s%s\n" % (name.encode(), len(value).to_bytes(8, "little"), value)


def _bsd_time(moment: float) -> str:
    try:
        local = time.localtime(moment)
    except OSError as error:
        raise ValueError(str(error)) from None
    return f"{_MONTHS[local.tm_mon - 1]} {local.tm_mday:2} {time.strftime('%H:%M:%S', local)}"
