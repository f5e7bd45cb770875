# Delivers an alert, to a command for one, without keeping the plugin's loop waiting.
#
# A delivery blocks, so each runs on a thread of its own and is ended from the plugin's thread by
# `abort`: a command by a signal, a mail by the loss of its connection.

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from circusplug import CircusPlugError, SpecError

from ._message import Message
from ._on_thread import on_thread

#: What a command prints belongs with the host's log, not with what the Logger may print.
_STDERR = 2


class DeliveryError(CircusPlugError):
    """An alert could not be delivered.

    Attributes:
        final: Whether it is of no use to try again.
    """

    def __init__(self, message: str, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class Delivery(Protocol):
    """One alert on one way to somebody.

    Attributes:
        to: Who or what gets it, for messages.
    """

    to: str

    def run(self) -> None:
        """Deliver it; blocks, on a thread of its own. May raise anything."""

    def abort(self) -> None:
        """Have `run` return soon; from another thread, also before it began or when it is over."""


@dataclass(frozen=True)
class Receiver:
    """Somebody or something that gets messages.

    Attributes:
        to: What it is, for messages.
        make: Makes a delivery of a message to it.
    """

    to: str
    make: Callable[[Message], Delivery]


async def deliver(delivery: Delivery, deadline: float) -> None:
    """Deliver an alert; when the awaiting is cancelled, it is aborted.

    Args:
        delivery: What to deliver, and how.
        deadline: How long it may take, in seconds; then it is aborted.

    Raises:
        DeliveryError: It fails or takes too long.
    """
    try:
        await on_thread(delivery.run, delivery.abort, deadline, f"delivery to {delivery.to}")
    except Exception as error:
        text = str(error) or type(error).__name__
        final = isinstance(error, DeliveryError) and error.final
        raise DeliveryError(f"{delivery.to}: {text}", final) from error


def need_program(command: Sequence[str]) -> None:
    """Make sure that the program of the option 'command' is here.

    Raises:
        SpecError: It is not.
    """
    if shutil.which(command[0]) is None:
        raise SpecError(f"'command': there is no program {command[0]!r} here", key="command")


class CommandDelivery:
    """Runs a command, without a shell; an abort kills it with all that it started.

    Args:
        command: The program and its arguments.
        text: What it reads from its standard input.
        env: Variables added to its environment.
    """

    def __init__(self, command: Sequence[str], text: str, env: Mapping[str, str]) -> None:
        self.to = f"command {command[0]!r}"
        self._command = command
        self._text = text
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None
        self._aborted = False

    def run(self) -> None:
        with subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=_STDERR,
            env={**os.environ, **self._env},
            start_new_session=True,
        ) as self._process:
            if self._aborted:
                self.abort()
            self._process.communicate(self._text.encode())
        if self._process.returncode:
            raise DeliveryError(f"exit code {self._process.returncode}")

    def abort(self) -> None:
        self._aborted = True
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
