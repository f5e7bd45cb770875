# The options that a host has for one plugin: the ``host.`` options of its section.

from __future__ import annotations

import dataclasses
import resource
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from .._errors import SpecError
from .._logs import LEVELS
from .values import (
    choice,
    did_you_mean,
    directory,
    group_id,
    integer,
    limit,
    output_file,
    search_path,
    seconds,
    signal_number,
    size,
    to_bool,
    user_id,
)


def _option(
    default: Any,
    parse: Callable[[Any], Any] | None,
    text: str,
    *,
    values: tuple[str, ...] = (),
    circus: bool = False,
    isolated_only: bool = False,
    isolated_values: tuple[Any, ...] = (),
) -> Any:
    """Declare a host option.

    Args:
        default: Its value if it is not given.
        parse: Reads a value; not needed with `values`.
        text: What it means, for people.
        values: The words that it can be, if it is one of several.
        circus: Whether Circus knows it without the prefix.
        isolated_only: Whether only a process of its own can have it.
        isolated_values: Of one that any plugin can have, the values that need a process.
    """
    return field(
        default=default,
        metadata={
            "parse": parse or choice(*values),
            "help": text,
            "values": values,
            "circus": circus,
            "isolated_only": isolated_only,
            "isolated_values": isolated_values,
        },
    )


@dataclass(frozen=True)
class HostOptions:
    """What the host does with one plugin: the ``host.`` options of its section.

    Times are in seconds. docs/options.md has the table.
    """

    start_timeout: float = _option(
        10.0,
        seconds,
        "how long constructor and handle_init may take before it counts as failed",
    )
    graceful_timeout: float = _option(
        5.0,
        seconds,
        "how long the event in hand may take once a stop was asked for",
        circus=True,
    )
    restart: str = _option(
        "on-failure",
        None,
        "when to start it again",
        values=("on-failure", "always", "never"),
    )
    restart_delay: float = _option(1.0, seconds, "longest delay before the first restart")
    restart_delay_max: float = _option(60.0, seconds, "the doubling delay stops growing here")
    restart_reset: float = _option(
        60.0, seconds, "a plugin that ran this long has its failures forgotten"
    )
    max_restarts: int = _option(
        5,
        integer(-1),
        "restarts in a row that may fail before it is given up; -1: any number",
    )
    on_error: str = _option(
        "continue",
        None,
        "what an exception in a handler leads to, once there were max_errors of them",
        values=("continue", "restart", "stop"),
    )
    max_errors: int = _option(1, integer(1), "how many exceptions on_error waits for")
    critical: bool = _option(False, to_bool, "when this plugin gives up, the host stops and fails")
    stall_timeout: float = _option(
        10.0, seconds, "a callback running longer is reported with its stack; 0: never"
    )
    on_stall: str = _option(
        "report",
        None,
        "report it, or kill the plugin and start it again",
        values=("report", "restart"),
        isolated_values=("restart",),
    )
    max_message: int = _option(
        16 * 1024**2, size, "largest event or reply accepted, in bytes; 250K and 16M are sizes, too"
    )
    loglevel: str | None = _option(
        None, None, "lowest level that it logs, default the host's", values=LEVELS
    )
    working_dir: str | None = _option(
        None, directory, "directory to run in", circus=True, isolated_only=True
    )
    uid: int | None = _option(None, user_id, "user to run as", circus=True, isolated_only=True)
    gid: int | None = _option(None, group_id, "group to run as", circus=True, isolated_only=True)
    nice: int | None = _option(None, integer(-20, 19), "niceness to run with", isolated_only=True)
    python_path: tuple[str, ...] = _option(
        (), search_path, "put in front of sys.path, separated by ':'", isolated_only=True
    )
    stop_signal: int = _option(
        int(signal.SIGTERM),
        signal_number,
        "sent when parking took too long",
        isolated_only=True,
        circus=True,
    )
    copy_env: bool = _option(
        False,
        to_bool,
        "whether it gets the host's environment although it runs as another user",
        circus=True,
        isolated_only=True,
    )
    stdout: str = _option(
        "", output_file, "file for what it prints, default the host's", isolated_only=True
    )
    stderr: str = _option("", output_file, "the same for its standard error", isolated_only=True)
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    rlimits: Mapping[str, int] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "env", MappingProxyType(dict(self.env)))
        object.__setattr__(self, "rlimits", MappingProxyType(dict(self.rlimits)))

    def __reduce__(self) -> tuple[Any, ...]:
        return restore, (HostOptions, plain_fields(self))

    def to_dict(self) -> dict[str, Any]:
        """The options that differ from their defaults, as plain data."""
        default = HostOptions()
        plain = plain_fields(self)
        return {key: value for key, value in plain.items() if value != getattr(default, key)}


#: Option name -> dataclass field, for the options that are one value.
OPTIONS = {item.name: item for item in dataclasses.fields(HostOptions) if item.metadata}
#: Those that mean the same in a Circus plugin section, without the prefix.
CIRCUS_OPTIONS = frozenset(name for name, item in OPTIONS.items() if item.metadata["circus"])
#: Those that only a process of its own can have.
ISOLATED_ONLY = frozenset(name for name, item in OPTIONS.items() if item.metadata["isolated_only"])
#: What Circus obeys in a plugin's section without the prefix, and a thread cannot have.
CIRCUS_PROCESS_OPTIONS = frozenset({"uid", "gid", "working_dir", "copy_env"})


def needs_process(key: str, value: Any) -> bool:
    """Whether a host option, named without its prefix, needs a process of its own."""
    if key not in OPTIONS:
        return key.startswith(("env.", "rlimit_"))
    values = OPTIONS[key].metadata["isolated_values"]
    return key in ISOLATED_ONLY or str(value).strip().lower() in values


def refuse_isolated_only(given: Mapping[str, Any], place: str) -> None:
    """Refuse what a plugin on a thread cannot have.

    Args:
        given: Its ``host.`` options, without the prefix.
        place: For messages.

    Raises:
        SpecError: One of them needs a process.
    """
    for key, value in given.items():
        if needs_process(key, value):
            shown = (
                f"host.{key}"
                if key in ISOLATED_ONLY or key not in OPTIONS
                else (f"host.{key} = {value}")
            )
            raise SpecError(
                f"'{shown}' needs a process of its own; add 'isolate = true'",
                where=place,
                key=f"host.{key}",
            )


def parse_host_options(
    options: Mapping[str, Any], prefixed: Mapping[str, Any], place: str
) -> HostOptions:
    """Read host options.

    Args:
        options: Names without the prefix, and values.
        prefixed: Those of them that were written with it, for messages.
        place: For messages.

    Raises:
        SpecError: An option is unknown or has a value that does not fit.
    """
    values: dict[str, Any] = {}
    env: dict[str, str] = {}
    rlimits: dict[str, int] = {}
    for key, value in options.items():
        shown = f"host.{key}" if key in prefixed else key
        try:
            if key in OPTIONS:
                values[key] = OPTIONS[key].metadata["parse"](value)
            elif key.startswith("env.") and len(key) > 4:
                env[key[4:]] = str(value)
            elif key.startswith("rlimit_"):
                rlimits[_rlimit_name(key)] = limit(value)
            else:
                known = [*OPTIONS, "env.NAME", "rlimit_NAME"]
                # Which has no prefix, and is looked for among these all the same.
                guess = did_you_mean(key, known, "host.") or did_you_mean(key, ["isolate"])
                listed = ", ".join(f"host.{name}" for name in known)
                raise SpecError(
                    f"'{shown}' is no host option{guess or '; there are ' + listed}",
                    where=place,
                    key=shown,
                )
        except ValueError as error:
            raise SpecError(f"'{shown}': {error}", where=place, key=shown) from None
        except TypeError:
            raise SpecError(f"'{shown}': {value!r} does not fit", where=place, key=shown) from None
    return HostOptions(**values, env=env, rlimits=rlimits)


def _rlimit_name(key: str) -> str:
    name = key[len("rlimit_") :].lower()
    known = [item[7:].lower() for item in dir(resource) if item.startswith("RLIMIT_")]
    if name not in known:
        raise ValueError(f"no such limit{did_you_mean(name, known)}; there are {', '.join(known)}")
    return name


def plain_fields(item: Any) -> dict[str, Any]:
    """A dataclass's fields, with mappings that can be pickled."""
    values = {entry.name: getattr(item, entry.name) for entry in dataclasses.fields(item)}
    return {key: dict(v) if isinstance(v, Mapping) else v for key, v in values.items()}


def restore(cls: type, values: dict[str, Any]) -> Any:
    """What unpickling calls: make an object of its fields."""
    return cls(**values)
