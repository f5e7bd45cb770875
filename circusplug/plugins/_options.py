# From a plugin's config to typed values. From a file every option is text, from Python it may
# be typed already; both are read by the same functions and refused in the same words: one
# line that names the option, so that the host has one line to print.

from __future__ import annotations

import difflib
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from circusplug import CircusPlugin, HostConfig, SpecError

_Value = TypeVar("_Value")


_YES_NO = {"yes": True, "true": True, "on": True, "1": True}
_YES_NO |= {"no": False, "false": False, "off": False, "0": False}


#: What circusd reads in a plugin's section, besides the plugin.
_CIRCUS_OPTIONS = frozenset(
    """
    active args autostart check_flapping close_child_stderr close_child_stdin close_child_stdout
    cmd copy_env copy_path env executable gid graceful_timeout hooks max_age max_age_variance
    max_retry name numprocesses on_demand priority respawn rlimits send_hup shell shell_args
    singleton stderr_stream stdin_socket stdout_stream stop_children stop_signal uid use
    use_sockets virtualenv virtualenv_py_ver warmup_delay working_dir
    """.split()  # noqa: SIM905 - a list would be five times as long
)
_CIRCUS_PREFIXES = ("rlimit_", "hooks.", "stdout_stream.", "stderr_stream.")


@classmethod  # type: ignore[misc]  # of the class that takes it
def check_by_construction(cls: type[CircusPlugin], config: Mapping[str, Any]) -> None:
    """Check options as the constructor does, which reads them all and opens nothing.

    What it does not read is an error. A subclass's own constructor may do anything, so it is
    left alone.
    """
    if not cls.__init__.__module__.startswith(__package__ or ""):
        return
    plugin, host = cls.__new__(cls), HostConfig()
    try:
        plugin.__init__(  # type: ignore[misc]
            host.endpoint, host.pubsub_endpoint, host.check_delay, None, **config
        )
        if unknown := plugin._options.unknown():  # type: ignore[attr-defined]
            raise SpecError(unknown)
    except TypeError as error:
        raise SpecError(str(error)) from None
    finally:
        if hasattr(plugin, "loop"):
            plugin.loop.close()


class Options:
    """Reads a plugin's options; each method raises SpecError for a value that does not fit.

    Args:
        config: The plugin's `config`.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._known: set[str] = set()

    def text(self, key: str, default: str = "") -> str:
        """Text, without the white space around it."""
        return self._read(key, default, lambda value: str(value).strip())

    def required(self, key: str, meaning: str) -> str:
        """Text that must be there."""
        value = self.text(key)
        if not value:
            raise SpecError(f"'{key}' is missing; give {meaning}", key=key)
        return value

    def choice(self, key: str, default: str, words: Sequence[str]) -> str:
        """One of several words."""
        return self._read(key, default, lambda value: _choice(value, words))

    def flag(self, key: str, default: bool) -> bool:
        """Yes or no, in Circus's words: yes, true, on, 1, no, false, off, 0."""
        return self._read(key, default, _flag)

    def integer(self, key: str, default: int, minimum: int = 0, maximum: int | None = None) -> int:
        """A whole number."""
        return self._read(key, default, lambda value: _integer(value, minimum, maximum))

    def number(self, key: str, default: float, unit: str = "", above: float | None = None) -> float:
        """A number of 0 or more; with `above`, of more than that."""
        return self._read(key, default, lambda value: _number(value, unit, above))

    def seconds(self, key: str, default: float, above: float | None = None) -> float:
        """A time in seconds, of 0 or more; with `above`, of more than that."""
        return self.number(key, default, "seconds", above)

    def names(self, key: str, default: str = "") -> tuple[str, ...]:
        """Names separated by commas; from Python also a list."""
        return self._read(key, default, _names)

    def command(self, key: str) -> tuple[str, ...]:
        """A command and its arguments, quoted as for a shell; from Python also a list."""
        return self._read(key, "", _command)

    def misspelt(self) -> list[str]:
        """A line for each option that nobody asked for and that looks like one that is known."""
        return [
            f"there is no option '{key}' (did you mean '{close[0]}'?)"
            for key in sorted(self._config.keys() - self._known)
            if (close := difflib.get_close_matches(key, self._known, 1, 0.8))
        ]

    def unknown(self) -> str:
        """A line on the options that nobody asked for, and that are not Circus's own; or none."""
        words, guessed = [], True
        for key in sorted(self._config.keys() - self._known - _CIRCUS_OPTIONS):
            if not key.startswith(_CIRCUS_PREFIXES):
                close = difflib.get_close_matches(key, self._known, 1)
                words.append(f"'{key}'" + (f" (did you mean '{close[0]}'?)" if close else ""))
                guessed = guessed and bool(close)
        if not words:
            return ""
        known = "" if guessed else f"; there are {', '.join(sorted(self._known))}"
        return f"there is no option {', '.join(words)}{known}"

    def _read(self, key: str, default: Any, parse: Callable[[Any], _Value]) -> _Value:
        self._known.add(key)
        try:
            return parse(self._config.get(key, default))
        except (TypeError, ValueError) as error:
            raise SpecError(f"'{key}': {error}", key=key) from None


def _choice(value: Any, words: Sequence[str]) -> str:
    word = str(value).strip().lower()
    if word not in words:
        raise ValueError(f"{value!r} is none of {', '.join(words)}")
    return word


def _flag(value: Any) -> bool:
    try:
        return _YES_NO[str(value).strip().lower()]
    except KeyError:
        raise ValueError(f"{value!r} is not yes or no") from None


def _integer(value: Any, minimum: int, maximum: int | None) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{value!r} is not a whole number") from None
    if isinstance(value, float) and number != value:
        raise ValueError(f"{value!r} is not a whole number")
    if number < minimum:
        raise ValueError(f"{value!r} is less than {minimum}")
    if maximum is not None and number > maximum:
        raise ValueError(f"{value!r} is more than {maximum}")
    return number


def _number(value: Any, unit: str, above: float | None) -> float:
    of_what = f" of {unit}" if unit else ""
    try:
        number = float(value.strip().removesuffix("%") if _is_percent(value, unit) else value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{value!r} is not a number{of_what}") from None
    if not math.isfinite(number) or number < 0 or (above is not None and number <= above):
        limit = "0 or more" if above is None else f"more than {above:g}"
        raise ValueError(f"{value!r} is not a number{of_what}: it must be {limit}")
    return number


def _is_percent(value: Any, unit: str) -> bool:
    return unit == "percent" and isinstance(value, str)


def _names(value: Any) -> tuple[str, ...]:
    parts = value.replace("\n", ",").split(",") if isinstance(value, str) else value
    return tuple(name for part in _sequence(parts) if (name := str(part).strip()))


def _command(value: Any) -> tuple[str, ...]:
    if not isinstance(value, str):
        return tuple(str(part) for part in _sequence(value))
    try:
        return tuple(shlex.split(value))
    except ValueError as error:
        raise ValueError(f"{value!r} cannot be split into arguments: {error}") from None


def _sequence(value: Any) -> Sequence[Any]:
    if not isinstance(value, Sequence):
        raise TypeError(f"{value!r} is neither text nor a list")
    return value
