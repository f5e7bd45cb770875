# What the commands of the workshop take: record, replay and dev. Each has a file of its own, which
# is imported when it is asked for.

from __future__ import annotations

import argparse
import contextlib
import math
from typing import Any

from .._errors import SpecError
from . import circusd_ends

COMMANDS = ("record", "replay", "dev")

_RECORD_HELP = "record what circusd publishes, to be replayed"
_RECORD = """\
Writes each event of a running circusd, the watchers' options and states, and with --stats what
their processes use, into a file of JSON lines that 'circusplug replay' reads. Ctrl-C ends it. A
file whose name ends in .gz is compressed. What looks like a secret is masked. To record all the
time, put the plugin circusplug.plugins.Recorder into the circus.ini instead.
"""
_REPLAY_HELP = "run a plugin against a recording"
_REPLAY = """\
Runs a plugin against a recording of 'circusplug record', by a clock of its own, so that a day takes
seconds, and prints what it would have done: commands, alerts, errors and lines of its log, each
with its moment, in seconds since the start of the recording. Nothing is sent to anybody. With
--json it is a JSON object a line, which assert_same_commands of circusplug.testing compares with.
The exit status is 1 if the plugin failed, or raised something.
"""
_DEV_HELP = "host a plugin while it is being written"
_DEV = """\
Hosts a plugin against a fake circusd whose watchers live by a script, or against a given one, and
shows its events, commands, log and exceptions, each with its moment in seconds. When a file is
saved the plugin is loaded anew, and its state is handed over if it can; new code that fails to load
leaves the old life running. Saved files are noticed with the package watchfiles:
pip install 'circusplug[watch]'.
"""


def add_commands(commands: Any) -> None:
    """Add the commands."""
    record = _add(commands, "record", _RECORD_HELP, _RECORD)
    record.add_argument("file", metavar="circus.ini", help="the configuration file")
    _add_record_options(record)
    circusd_ends.add_options(record)
    _add_replay_options(_add(commands, "replay", _REPLAY_HELP, _REPLAY))
    dev = _add(commands, "dev", _DEV_HELP, _DEV)
    _add_dev_options(dev)
    dev.add_argument(
        "--endpoint", type=circusd_ends.read, help="a running circusd's command endpoint"
    )
    dev.add_argument("--pubsub", type=circusd_ends.read, help="its event endpoint")


def run(given: argparse.Namespace) -> int:
    """Run one of them; returns the exit status."""
    if given.command == "record":
        from . import record

        return record.record(given)
    if given.command == "replay":
        from . import replay

        return replay.replay(given)
    from . import dev

    return dev.dev(given)


def read_option(text: str) -> tuple[str, Any]:
    """Read what was given as ``--option KEY=VALUE``.

    Raises:
        SpecError: It is not that.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise SpecError(f"--option: {text!r} is not KEY=VALUE")
    return key, value


def _add(commands: Any, name: str, short: str, long: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=short, description=long, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    return command


def _add_record_options(command: argparse.ArgumentParser) -> None:
    """Add the options of `record` but the file."""
    command.add_argument(
        "-o", "--output", metavar="FILE", required=True, help="the recording to make"
    )
    command.add_argument("--seconds", metavar="N", help="end after this time: 90, 10 min, 1 h")
    command.add_argument(
        "--stats", metavar="N", help="write what the processes use every so often: 5, 1 min"
    )
    command.add_argument(
        "--rotate", metavar="SIZE", help="begin a new file before one is larger: 100M"
    )
    command.add_argument("--keep", metavar="COUNT", help="how many older files to keep (5)")


def _add_replay_options(command: argparse.ArgumentParser) -> None:
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


def _add_dev_options(command: argparse.ArgumentParser) -> None:
    """Add the options of `dev`."""
    command.add_argument(
        "target", metavar="USE|FILE", help="the plugin, as in 'use', or a circus.ini with it"
    )
    command.add_argument("--plugin", metavar="NAME", help="which plugin of the file")
    command.add_argument(
        "--option", metavar="KEY=VALUE", action="append", default=[], help="an option of the plugin"
    )
    command.add_argument(
        "--fleet", metavar="SCRIPT", help="how the watchers live: a file of sentences"
    )


def _speed(text: str) -> float:
    if text == "max":
        return math.inf
    with contextlib.suppress(ValueError):
        speed = float(text)
        if 0 < speed < math.inf:
            return speed
    raise argparse.ArgumentTypeError(f"{text!r} is neither a number more than 0 nor max")
