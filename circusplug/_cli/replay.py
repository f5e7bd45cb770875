# `circusplug replay`: what a plugin would have done, had it been there when a recording was made.

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from typing import TYPE_CHECKING, Any

from .._errors import HostError, SpecError
from .._plugin.load import load_plugin_class

if TYPE_CHECKING:
    from ..testing import Deed

HELP = "run a plugin against a recording"
DESCRIPTION = """\
Runs a plugin against a recording of 'circusplug record', by a clock of its own, so that a day takes
seconds, and prints what it would have done: commands, alerts, errors and lines of its log, each
with its moment, in seconds since the start of the recording. Nothing is sent to anybody. With
--json it is a JSON object a line, which assert_same_commands of circusplug.testing compares with.
The exit status is 1 if the plugin failed, or raised something.
"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of `replay`."""
    command.add_argument("recording", metavar="RECORDING", help="the file, as it is or as .gz")
    command.add_argument("use", metavar="USE", help="the plugin, as in 'use'")
    command.add_argument(
        "--option",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="an option of the plugin; may be given several times",
    )
    command.add_argument(
        "--speed",
        type=_speed,
        default=math.inf,
        metavar="N",
        help="N times as fast as it was, 1 for instance, or max (max)",
    )
    command.add_argument("--json", action="store_true", help="print a JSON object a line")
    command.add_argument(
        "--strict",
        action="store_true",
        help="fail if the plugin reads the real clock, and tell where; slower",
    )


def replay(given: argparse.Namespace) -> int:
    """Replay, and print what is done; returns the exit status.

    Raises:
        PluginLoadError: There is no such plugin.
        RecordingError: The file is no recording.
        SpecError: An option is not valid.
        HostError: The plugin does not come to rest.
    """
    from .. import testing

    plugin_class = load_plugin_class(given.use)
    options = dict(map(_option, given.option))
    bad = 0

    def show(deed: Deed) -> None:
        nonlocal bad
        bad += deed.kind in ("error", "clock")
        print(deed.to_json() if given.json else deed)

    try:
        result = testing.replay(
            given.recording,
            plugin_class,
            speed=given.speed,
            strict=given.strict,
            on_deed=show,
            **options,
        )
    except AssertionError as error:
        raise HostError(f"{given.use}: {error}") from None
    sys.stdout.flush()
    for line in result.warnings:
        print(f"circusplug: warning: {line}", file=sys.stderr)
    print(f"{result.events} events in {result.seconds:.0f} s", file=sys.stderr)
    return 1 if bad else 0


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise SpecError(f"--option: {text!r} is not KEY=VALUE")
    return key, value


def _speed(text: str) -> float:
    if text == "max":
        return math.inf
    with contextlib.suppress(ValueError):
        speed = float(text)
        if 0 < speed < math.inf:
            return speed
    raise argparse.ArgumentTypeError(f"{text!r} is neither a number more than 0 nor max")
