# Every exception that circusplug raises. One base class, so that one `except` is enough;
# `zmq.ZMQError` and friends are translated where they occur and never reach a plugin.
# Each error carries what it is about as attributes, not only in its text.

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ._secrets import shown

#: circusd's error numbers (the ``errno`` of an error reply).
INVALID_JSON = 1
UNKNOWN_COMMAND = 2
MESSAGE_ERROR = 3
COMMAND_ERROR = 5


class CircusPlugError(Exception):
    """Base class of all errors that circusplug raises."""


class SpecError(CircusPlugError):
    """A plugin specification or an option, of a plugin's or of the host's, is not valid.

    Attributes:
        message: What is wrong; of several problems all, in one line.
        where: What the problem is in, e.g. ``[plugin:logger]`` or ``plugin 'logger'``;
            empty when it concerns no plugin.
        key: The option at fault, or None; of several the first.
        problems: Each problem as an error of its own; this one if there is only one.
    """

    def __init__(self, message: str, *, where: str = "", key: str | None = None) -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.message = message
        self.where = where
        self.key = key
        self._parts: tuple[SpecError, ...] = ()

    @property
    def problems(self) -> tuple[SpecError, ...]:
        return self._parts or (self,)

    @classmethod
    def of(cls, problems: Iterable[SpecError], where: str = "") -> SpecError:
        """One error for all that is wrong in one place.

        Args:
            problems: At least one.
            where: What it is in, for those that do not say so.
        """
        placed = tuple(
            one if one.where or not where else cls(one.message, where=where, key=one.key)
            for error in problems
            for one in error.problems
        )
        if len(placed) == 1:
            return placed[0]
        message = "; ".join(one.message for one in placed)
        joined = cls(message, where=placed[0].where, key=placed[0].key)
        joined._parts = placed
        return joined


class ConfigError(CircusPlugError):
    """A configuration file cannot be used; holds every problem found in it.

    Attributes:
        problems: One line each: file, section, key, what is wrong, what to do.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class PluginLoadError(CircusPlugError):
    """The ``use`` of a plugin cannot be turned into a plugin class."""


class PluginStateError(CircusPlugError):
    """The operation makes no sense in the state the plugin is in."""


class HostError(CircusPlugError):
    """The host (arbiter) cannot do what it was asked."""


class CircusdError(CircusPlugError):
    """A circusd that circusplug started itself failed."""


class EventError(CircusPlugError, ValueError):
    """A message received is not a circusd event.

    Attributes:
        topic: The first frame, as received.
        payload: The second frame, as received.
    """

    def __init__(self, message: str, topic: bytes = b"", payload: bytes = b"") -> None:
        super().__init__(message)
        self.topic = topic
        self.payload = payload


class CallError(CircusPlugError):
    """circusd answered a command with an error, or the command could not be carried out.

    Attributes:
        command: The command's name, e.g. ``"incr"``.
        properties: What was sent with it.
        reason: circusd's own words, e.g. ``"program absent not found"``.
        errno: circusd's error number (1 not JSON, 2 unknown command, 3 message error,
            4 operating system error, 5 conflict or failing command), or None.
        reply: The whole reply, or None if there was none.
    """

    def __init__(
        self,
        command: str,
        properties: Mapping[str, Any] | None = None,
        reason: str = "unknown",
        errno: int | None = None,
        reply: Mapping[str, Any] | None = None,
    ) -> None:
        self.command = command
        self.properties = dict(properties or {})
        self.reason = reason
        self.errno = errno
        self.reply = dict(reply) if reply is not None else None
        super().__init__(f"{describe_command(command, self.properties)}: {_without_frame(reason)}")

    @property
    def retryable(self) -> bool:
        """Whether the same command may well succeed a moment later."""
        return False


class CallConflict(CallError):
    """circusd was busy with commands that exclude this one, each time that it was sent."""

    @property
    def retryable(self) -> bool:
        return True


class CallTimeout(CallError, TimeoutError):
    """No reply came within the deadline, or circusd could not be reached within it.

    Attributes:
        timeout: The deadline that passed, in seconds.
    """

    def __init__(
        self,
        command: str,
        properties: Mapping[str, Any] | None = None,
        timeout: float = 0.0,
        reason: str = "no reply",
    ) -> None:
        super().__init__(command, properties, f"{reason} within {timeout:g} s")
        self.timeout = timeout

    @property
    def retryable(self) -> bool:
        return True


def describe_command(command: str, properties: Mapping[str, Any]) -> str:
    """Say a command as a person would, ``incr name='web'``; long values are cut, secrets masked."""
    parts = [command]
    for key, value in properties.items():
        text = repr(shown(key, value))
        parts.append(f"{key}={text if len(text) <= 60 else text[:57] + '...'}")
    return " ".join(parts)


#: An exception's description is cut to so many characters.
DESCRIPTION_LIMIT = 1000


def describe(error: object) -> str:
    """Say an exception in one line of at most `DESCRIPTION_LIMIT` characters; never raises."""
    name = "exception"
    try:
        name = str(type(error).__name__)
        text = str.split(str(error)[: 2 * DESCRIPTION_LIMIT])
        line = f"{name}: {' '.join(text)}" if text else name
    except BaseException as problem:  # noqa: BLE001 - a plugin's __str__ may do anything
        line = f"{name} (its text cannot be shown: {type(problem).__name__})"
    return line if len(line) <= DESCRIPTION_LIMIT else line[: DESCRIPTION_LIMIT - 3] + "..."


def _without_frame(reason: str) -> str:
    """circusd's words for a command that failed, without the whole message that they repeat."""
    return re.sub(r"^command b?(['\"])\{.*\}\1: ", "", reason, flags=re.DOTALL)
