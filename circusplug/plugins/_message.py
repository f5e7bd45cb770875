# What somebody reads of troubles: a subject, a text, and the facts for programs. No sockets.

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from string import Formatter
from typing import Any

from circusplug import SpecError

from ._troubles import Trouble

SUBJECT_FIELDS = ("host", "summary", "watchers", "kinds", "count")
TEXT_FIELDS = (
    "host", "watcher", "kind", "what", "time", "count", "pid", "exit_code", "deaths", "seconds",
    "hook", "error", "output",
)  # fmt: skip
_WORDS = {
    "crash": "crashed",
    "flapping": "dies too often",
    "gave_up": "was given up",
    "start_failed": "did not start",
    "hook_failed": "has a hook that failed",
    "plugin_failed": "failed",
    "well_again": "is well again",
    "test": "was asked for",
}
#: How many watchers a subject names.
_NAMED = 3
#: The longest value of a variable in a command's environment, in characters: less than the 128 KB
#: that Linux takes.
_LONGEST_VARIABLE = 30_000
#: What no mail, no terminal and no environment should have in it.
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class Message:
    """One message to somebody.

    Attributes:
        subject: One line.
        text: Some lines.
        alerts: The facts, an object for each alert.
    """

    subject: str
    text: str
    alerts: Sequence[Mapping[str, Any]]

    @property
    def is_good(self) -> bool:
        """Whether it tells of nothing bad."""
        return all(alert["kind"] == "well_again" for alert in self.alerts)

    def as_json(self) -> str:
        """All of it as one JSON object."""
        return json.dumps({"subject": self.subject, "text": self.text, "alerts": self.alerts})

    def as_environment(self) -> dict[str, str]:
        """Subject, text, and the facts of the first alert; what is too long is cut."""
        facts = {"subject": self.subject, "text": self.text, "alerts": len(self.alerts)}
        facts |= {key: value for key, value in self.alerts[0].items() if key != "output"}
        return {
            f"CIRCUSPLUG_{key.upper()}": str(value)[:_LONGEST_VARIABLE]
            for key, value in facts.items()
        }


def describe(trouble: Trouble, name: str) -> str:
    """Say a trouble in a line, with the watcher's real name."""
    more = f" (the last of {trouble.count})" if trouble.count > 1 else ""
    return clean(f"{name}: {trouble.what}{more}")


def make_alert(trouble: Trouble, name: str, host: str, output: Sequence[str]) -> dict[str, Any]:
    """The facts of a trouble, as JSON has them.

    Args:
        trouble: The trouble.
        name: The watcher's real name.
        host: The name of this machine.
        output: The last lines that its processes have printed.
    """
    facts = {key: clean(v) if isinstance(v, str) else v for key, v in trouble.facts.items()}
    return {
        "host": host,
        "watcher": clean(name),
        "kind": trouble.kind,
        "what": describe(trouble, name).removeprefix(f"{clean(name)}: "),
        "time": _moment(trouble.time or time.time()),
        "count": trouble.count,
        **{key: value for key, value in facts.items() if value is not None},
        "output": [clean(line) for line in output],
    }


def make_message(alerts: Sequence[Mapping[str, Any]], subject: str, text: str) -> Message:
    """Write a message about some alerts.

    Args:
        alerts: At least one, from `make_alert`.
        subject: The template of the subject.
        text: The template of the text about each one.
    """
    summary = [f"{alert['watcher']} {_WORDS[alert['kind']]}" for alert in alerts]
    more = len(summary) - _NAMED
    fields = {
        "host": alerts[0]["host"],
        "summary": ", ".join(summary[:_NAMED]) + (f" and {more} more" if more > 0 else ""),
        "watchers": ", ".join(dict.fromkeys(alert["watcher"] for alert in alerts)),
        "kinds": ", ".join(dict.fromkeys(alert["kind"] for alert in alerts)),
        "count": str(len(alerts)),
    }
    return Message(
        " ".join(subject.format(**fields).split()),
        "\n".join(_text_of(alert, text) for alert in alerts),
        alerts,
    )


def check_template(key: str, template: str, fields: Iterable[str]) -> None:
    """Look whether a template can be filled.

    Raises:
        SpecError: It names a field that there is not, or is no template.
    """
    try:
        for _, name, _, _ in Formatter().parse(template):
            if name is not None and name not in fields:
                known = ", ".join(f"{{{field}}}" for field in fields)
                raise SpecError(f"'{key}': there is no {{{name}}}; there are {known}", key=key)
        template.format(**dict.fromkeys(fields, ""))
    except (ValueError, LookupError) as error:
        text = f"'{key}': {template!r} cannot be filled in: {error}; write {{{{ for a brace"
        raise SpecError(text, key=key) from None


def clean(text: str) -> str:
    """Text without control characters and halves of characters."""
    return _CONTROL.sub("?", text)


def _text_of(alert: Mapping[str, Any], template: str) -> str:
    fields = {field: str(alert.get(field, "")) for field in TEXT_FIELDS}
    fields["output"] = "\n".join(f"    | {line}" for line in alert["output"])
    return template.replace(r"\n", "\n").format(**fields).rstrip()


def _moment(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g}"
