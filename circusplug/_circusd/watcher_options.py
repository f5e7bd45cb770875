# From what a program says of watchers, as Circus's `get_arbiter` takes it, to a text that circusd's
# process can read, see `run_watchers` in circusd_main.py. In Circus both are one process; here
# nothing gets across that is not data.
#
# Owner: nobody; a plan is frozen.

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from .._config.specs import HostConfig
from .._config.values import did_you_mean, seconds
from .._errors import SpecError
from .._logs import LEVELS, logger


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: The options that a watcher of Circus 0.19 has; of any others it only tells who asks.
WATCHER_OPTIONS = _words(
    """
    name cmd args numprocesses warmup_delay working_dir shell shell_args uid max_retry gid send_hup
    stop_signal stop_children env graceful_timeout prereload_fn rlimits executable stdout_stream
    stderr_stream priority singleton use_sockets copy_env copy_path max_age max_age_variance hooks
    respawn autostart on_demand virtualenv stdin_socket close_child_stdin close_child_stdout
    close_child_stderr virtualenv_py_ver
    """
)
#: What can be said of circusd itself, besides endpoints and `check_delay`; Circus's names.
CIRCUSD_OPTIONS = _words(
    """
    statsd stats_endpoint statsd_close_outputs multicast_endpoint stream_backend httpd httpd_host
    httpd_port httpd_close_outputs debug debug_gc proc_name prereload_fn sockets warmup_delay
    pidfile loglevel logoutput loggerconfig fqdn_prefix umask endpoint_owner
    """
)
#: How long circusd gives a process to stop, unless its watcher says otherwise, in seconds.
_GRACEFUL_TIMEOUT = 30.0
#: What circusd needs to end besides its watchers, in seconds.
_MARGIN = 5.0

_OTHER_PROCESS = "circusd is another process, where this cannot go"


@dataclass(frozen=True)
class CircusdPlan:
    """A circusd to be started.

    Attributes:
        text: What it shall run, for `CircusdProcess`.
        grace: How long it may take to stop its watchers, in seconds.
        start_timeout: How long it may take to start, in seconds.
    """

    text: str
    grace: float
    start_timeout: float


def plan_circusd(
    config: HostConfig,
    watchers: Iterable[Mapping[str, Any]],
    options: Mapping[str, Any],
    *,
    strict: bool = True,
) -> CircusdPlan:
    """Check watchers and options, and say them in a text.

    Args:
        config: Where the host will look for circusd.
        watchers: Each as a mapping of `WATCHER_OPTIONS`; its own for plugins have a dot.
        options: Some of `CIRCUSD_OPTIONS`.
        strict: Whether a watcher's option that Circus does not know is refused; if not, a line in
            the log tells of it.

    Raises:
        SpecError: Something is missing, unknown, or no data.
    """
    if config.ssh_server:
        raise SpecError(
            "'ssh_server' leads to a circusd on another machine, 'watchers' are for one that is "
            "started here; give one of them",
            key="ssh_server",
        )
    if isinstance(watchers, Mapping | str):
        raise SpecError('\'watchers\' is a list; write watchers=[{"name": ..., "cmd": ...}]')
    for key in options:
        if key not in CIRCUSD_OPTIONS:
            hint = did_you_mean(key, CIRCUSD_OPTIONS)
            raise SpecError(f"circusd has no option '{key}'{hint}", key=key)
    plain = _options(options)
    found = [_watcher(watcher, number, strict) for number, watcher in enumerate(watchers)]
    _warn_of_doubles([watcher["name"] for watcher in found])
    plan = {
        "options": {
            **plain,
            "controller": config.endpoint,
            "pubsub_endpoint": config.pubsub_endpoint,
            "check_delay": config.check_delay,
        },
        "watchers": found,
        "loglevel": _level_of_program(),
        "path": sys.path,
    }
    graces = [float(item.get("graceful_timeout", _GRACEFUL_TIMEOUT)) for item in found]
    grace = max(graces, default=0.0) + _MARGIN
    return CircusdPlan(json.dumps(plan), grace, config.circusd_timeout)


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for key, value in options.items():
        try:
            if key == "prereload_fn":
                plain[key] = _dotted(value)
            elif key == "sockets":
                plain[key] = [_socket(socket) for socket in value or ()]
            else:
                plain[key] = _plain(value)
        except ValueError as error:
            raise SpecError(f"'{key}': {error}", key=key) from None
    return plain


def _watcher(given: Mapping[str, Any], number: int, strict: bool) -> dict[str, Any]:
    place = f"watchers[{number}]"
    if not isinstance(given, Mapping):
        raise SpecError(
            f'{given!r} is no watcher; write {{"name": ..., "cmd": ...}} (plugins go into '
            "'plugins')",
            where=place,
        )
    cmd = given.get("cmd")
    if isinstance(cmd, PurePath):
        cmd = str(cmd)
    name = given.get("name")
    if name:
        place = f"watcher {name!r}"
    if not isinstance(cmd, str) or not cmd.strip():
        use = "; what has a 'use' is a plugin and goes into 'plugins'" if "use" in given else ""
        problem = "'cmd' is missing" if cmd in (None, "") else f"'cmd' is {cmd!r}"
        raise SpecError(
            f"{problem}; give the command to run as text{use}",
            where=place,
            key="cmd",
        )
    name = name or os.path.basename(cmd.split()[0])  # as Circus does
    place = f"watcher {name!r}"
    if not isinstance(name, str):
        raise SpecError("'name' is not text", where=place, key="name")
    watcher: dict[str, Any] = {}
    for key, value in {**given, "cmd": cmd, "name": name}.items():
        try:
            if key in WATCHER_OPTIONS:
                watcher[key] = _READERS.get(key, _plain)(value)
            else:
                _unknown(key, place, strict)
                watcher[str(key)] = _plain(value)
        except ValueError as error:
            raise SpecError(f"'{key}': {error}", where=place, key=key) from None
    return watcher


def _unknown(key: Any, place: str, strict: bool) -> None:
    """Complain of an option that Circus would pass over without a word; plugins' have a dot."""
    group, dot, inner = str(key).partition(".")
    if group in ("stdout_stream", "stderr_stream", "hooks", "env", "rlimits"):
        problem = f"write '{group}': {{'{inner}': ...}}"
    elif str(key).startswith("rlimit_"):
        problem = f"write 'rlimits': {{'{key[7:]}': ...}}"
    elif dot:
        return
    else:
        hint = did_you_mean(str(key), WATCHER_OPTIONS)
        problem = f"a watcher has no such option{hint}"
    if strict:
        raise ValueError(problem)
    logger.warning("%s: '%s' does nothing: %s", place, key, problem)


def _plain(value: Any) -> Any:
    """A value as JSON has it.

    Raises:
        ValueError: It is no data.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {_text(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    raise ValueError(f"{value!r} is no text, number, list or mapping; {_OTHER_PROCESS}")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise ValueError(f"{value!r} is not text")


def _environment(value: Any) -> Any:
    return {_text(key): _text(inner) for key, inner in _mapping(value).items()}


def _mapping(value: Any) -> Mapping[Any, Any]:
    if value is None or isinstance(value, Mapping):
        return value or {}
    raise ValueError(f"{value!r} is no mapping")


def _hooks(value: Any) -> Any:
    """Hooks by name, each as ``(function, whether a failure of it is ignored)``."""
    found = {}
    for name, hook in _mapping(value).items():
        if not isinstance(hook, list | tuple) or len(hook) != 2:
            raise ValueError(f"'{name}' is {hook!r}; write ('module.function', False)")
        found[_text(name)] = [_dotted(hook[0]), bool(hook[1])]
    return found


def _dotted(function: Any) -> str | None:
    """A function by a name under which circusd can import it; a name as it is."""
    if function is None or isinstance(function, str):
        return function
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", None)
    if module == "__main__":
        raise ValueError(
            f"{name} is in the program that was started; put it into a module, from where circusd, "
            "another process, can import it"
        )
    if not name or getattr(sys.modules.get(str(module)), name, None) is not function:
        raise ValueError(
            f"{function!r} has no name in a module; {_OTHER_PROCESS}; give a function of a "
            "module's, or its dotted name"
        )
    return f"{module}:{name}"


def _stream(value: Any) -> Any:
    if isinstance(value, Mapping) and "stream" in value:
        raise ValueError(
            f"'stream' is an object of this program's; {_OTHER_PROCESS}; name a 'class' or a "
            "'filename'"
        )
    return _plain(value)


def _seconds(value: Any) -> float:
    return seconds(value)


def _socket(value: Any) -> Any:
    if not isinstance(value, Mapping) or "name" not in value:
        raise ValueError(f"{value!r} is no socket; write {{'name': ..., 'host': ..., 'port': ...}}")
    return _plain(value)


_READERS = {
    "env": _environment,
    "graceful_timeout": _seconds,
    "hooks": _hooks,
    "prereload_fn": _dotted,
    "stderr_stream": _stream,
    "stdout_stream": _stream,
}


def _warn_of_doubles(names: list[str]) -> None:
    lower = [name.lower() for name in names]
    for name in sorted({name for name in lower if lower.count(name) > 1}):
        logger.warning(
            "watchers share the name %r; commands reach the last one: give each a 'name'",
            name,
        )


def _level_of_program() -> str:
    """The lowest level that this program logs of circusd, as circusd calls it."""
    level = logging.getLogger("circus").getEffectiveLevel()
    fit = [name for name in LEVELS if getattr(logging, name.upper()) <= level]
    return fit[-1] if fit else LEVELS[0]
