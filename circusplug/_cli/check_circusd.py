# Asking Circus's own parser, if it is installed, what circusd refuses of a file: in a process of
# its own, as Circus and what it imports are nothing to this one.

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from .._config.ini_for_circusd import flattened
from .._config.ini_includes import CIRCUS_SECTION, Ini
from .._errors import describe

#: How long Circus may take to read a file, in seconds; a check goes on without it.
_TIMEOUT = 60.0


def circusd_problem(ini: Ini, known: Sequence[str]) -> str:
    """What circusd would refuse in a file, its plugins left out, in one line; or nothing.

    Args:
        ini: The file; its lines can all be read.
        known: The problems that are told already.
    """
    for_circusd = (CIRCUS_SECTION, "watcher:", "socket:")
    if not any(section.startswith(for_circusd) for section in ini.sections.store):
        return ""
    if importlib.util.find_spec("circus") is None:
        return ""
    program = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main()"
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=flattened(ini).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONUTF8": "1"},
            timeout=_TIMEOUT,
            check=False,
        )
        section, key, error = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):  # Circus cannot be asked
        return ""
    if not error:
        return ""
    place = f"{ini.place(section, key)}: " + (f"'{key}': " if key else "")
    if key and any(problem.startswith(place) for problem in known):
        return ""
    return f"{place}circusd refuses it: {error}"


def main() -> None:
    """Be the process of its own: an ini on standard input; section, key and error on output."""
    warnings.simplefilter("ignore")
    from circus import config

    at = [CIRCUS_SECTION, ""]

    class Parser(config.DefaultConfigParser):  # type: ignore[misc]
        """Circus's own, which knows what it was asked for last."""

        def dget(self, section: str, option: str, *args: Any, **kwargs: Any) -> Any:
            at[:] = section, option
            value = super().dget(section, option, *args, **kwargs)
            at[1] = ""
            return value

        def items(self, section: str, *args: Any, **kwargs: Any) -> Any:
            at[:] = section, ""
            return super().items(section, *args, **kwargs)

    config.DefaultConfigParser = Parser
    error = ""
    try:
        config.get_config("/dev/stdin")
    except Exception as problem:  # noqa: BLE001 - any is a refusal
        error = describe(problem)
    print(json.dumps([*at, error]))
