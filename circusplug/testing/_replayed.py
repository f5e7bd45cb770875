# What a plugin did in a replay, and the comparison with what it did in another one.

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from circusplug._errors import describe_command
from circusplug._secrets import masked

#: In this order, if things are done at one moment.
KINDS = ("event", "command", "alert", "error", "clock", "log")


@dataclass(frozen=True)
class Deed:
    """Something that a plugin has done.

    Attributes:
        at: When, in seconds since the start of the recording.
        kind: ``command``, ``alert`` (what `Alert` would have told), ``error`` (an exception, or
            its failure), ``clock`` (it has read the real clock, see `replay`) or ``log``;
            ``event`` in `circusplug dev` only.
        text: The same in words.
        facts: What there is more: a command's name and properties, a log line's level, where an
            exception was raised and its traceback.
    """

    at: float
    kind: Literal["event", "command", "alert", "error", "clock", "log"]
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.at:12.3f} {self.kind:8}{self.text}"

    def to_json(self) -> str:
        """It as a JSON object."""
        said = {"at": round(self.at, 6), "kind": self.kind, "text": self.text, **self.facts}
        return json.dumps(said)


@dataclass
class Replayed:
    """What a replay has brought.

    Attributes:
        deeds: All that the plugin has done, in order.
        events: How many events it has got.
        seconds: How long the recording is, in seconds.
        warnings: What is to be said of the recording, and of the replay.
        plugin: The plugin itself; it is stopped.
    """

    deeds: list[Deed] = field(default_factory=list)
    events: int = 0
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    plugin: Any = None

    @property
    def commands(self) -> list[Deed]:
        """The commands that would have changed something; those that only ask are left out."""
        return self.of("command")

    @property
    def alerts(self) -> list[Deed]:
        """What `Alert` would have told."""
        return self.of("alert")

    @property
    def errors(self) -> list[Deed]:
        """What the plugin has raised, and its failure."""
        return self.of("error")

    @property
    def log(self) -> list[Deed]:
        """What it has logged."""
        return self.of("log")

    def of(self, kind: str) -> list[Deed]:
        """The deeds of one kind."""
        return [deed for deed in self.deeds if deed.kind == kind]

    def save(self, path: Path | str) -> None:
        """Write all deeds to a file, as ``circusplug replay --json`` does."""
        Path(path).write_text("".join(deed.to_json() + "\n" for deed in self.deeds))

    def assert_same_commands(self, golden: Path | str | Replayed) -> None:
        """Compare the commands with those of another replay: which, to whom, and when.

        Args:
            golden: A file that `save` or ``circusplug replay --json`` has written, or a result.

        Raises:
            AssertionError: There is no such file, or they differ; it shows where.
        """
        if isinstance(golden, Replayed):
            name, expected = "golden", [_line(*_of_deed(deed)) for deed in golden.commands]
        else:
            name, expected = str(golden), _read(Path(golden))
        found = [_line(*_of_deed(deed)) for deed in self.commands]
        if found != expected:
            lines = difflib.unified_diff(expected, found, name, "this replay", lineterm="", n=2)
            raise AssertionError("other commands than before:\n" + "\n".join(lines))


def command_deed(at: float, command: str, properties: Mapping[str, Any], cast: bool) -> Deed:
    """The deed of a command; secrets are masked."""
    facts = {"command": command, "properties": masked(properties), "cast": cast}
    text = describe_command(command, properties) + (" (cast)" if cast else "")
    return Deed(at, "command", text, facts)


def _of_deed(deed: Deed) -> tuple[float, str, Mapping[str, Any]]:
    return deed.at, deed.facts["command"], deed.facts["properties"]


def _line(at: float, command: str, properties: Mapping[str, Any]) -> str:
    told = " ".join(f"{key}={json.dumps(value)}" for key, value in sorted(properties.items()))
    return f"{at:12.3f} {command} {told}".rstrip()


def _read(path: Path) -> list[str]:
    try:
        lines: Iterable[str] = path.read_text().splitlines()
    except OSError as error:
        raise AssertionError(
            f"{path}: {error.strerror}; make it with 'circusplug replay --json > {path}'"
        ) from None
    found = []
    for number, line in enumerate(lines, 1):
        try:
            said = json.loads(line)
            if said["kind"] == "command":
                found.append(_line(float(said["at"]), said["command"], said["properties"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise AssertionError(f"{path}: line {number}: is not of a replay") from None
    return found
