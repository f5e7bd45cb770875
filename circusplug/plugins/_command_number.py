# The number that a command prints: a queue's length, for one.
#
# Owner: `run` has a thread of its own, see _delivery.py; the plugin's thread reads `number` when
# that is done.

from __future__ import annotations

import math
import subprocess
from collections.abc import Sequence

from ._delivery import CommandDelivery, DeliveryError

#: How much of what a command prints is read, in bytes; no number is longer.
_MOST = 1000
#: How much of it is shown, in characters.
_SHOWN = 50


class CommandNumber(CommandDelivery):
    """Runs a command, without a shell, that prints one number; an abort kills it.

    Args:
        command: The program and its arguments.

    Attributes:
        number: What it has printed.
    """

    number: float

    def __init__(self, command: Sequence[str]) -> None:
        super().__init__(command, "", {})

    def run(self) -> None:
        with subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        ) as self._process:
            if self._aborted:
                self.abort()
            assert self._process.stdout is not None
            printed = self._process.stdout.read(_MOST + 1)  # who prints more meets a closed pipe
        text = printed.decode(errors="backslashreplace").strip()
        if len(printed) <= _MOST and self._process.returncode:
            raise DeliveryError(f"exit code {self._process.returncode}")
        try:
            self.number = float(text)
        except ValueError:
            self.number = math.nan
        if not math.isfinite(self.number):
            raise DeliveryError(f"it printed no number, but {text[:_SHOWN]!r}")
