# The commands `circusplug` and `circus-plugin`: arguments in, exit status out. Errors that
# are the user's to mend come out as one line each on standard error, never as a traceback.

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import logging
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from .. import __version__, _logs
from .._errors import CircusPlugError
from .._plugin.plugin_path import find_plugins_here
from .._wire.commands import DEFAULT_ENDPOINT, DEFAULT_PUBSUB_ENDPOINT
from . import circusd_ends, pid_file, steer, systemd_unit, workshop
from .container_init import leave_init_behind

EXIT_FAILURE = 1
EXIT_INTERRUPTED = 130

#: What the system says if there is nobody to read the output any more, or no room for it.
_CANNOT_WRITE = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO})

_RUN = """\
Hosts the [plugin:NAME] sections of a circus.ini against the circusd that the file names,
which must be running, or may come later. All plugins run in this one process, a thread
each; those with 'isolate = true' in a process of their own. Ctrl-C or SIGTERM stops all of
them cleanly, a second Ctrl-C ends at once. SIGHUP reads the file again and restarts only
the plugins that changed.

Take care that circusd does not run the same plugins itself: give it a file without them, or
use 'circusplug up'.
"""
_UP = """\
Starts a real circusd for the watchers of a circus.ini, without its plugin sections, waits
until it answers, and hosts the plugins as 'circusplug run' does. Ctrl-C stops both, the
plugins first; if circusd ends, so does the host. SIGHUP reads the whole file again. The host
takes circusd's commands at the file's endpoint, so that circusctl finds watchers and plugins
together. Needs circus itself: pip install 'circusplug[circusd]'.
"""
_CHECK = """\
Reads a circus.ini as circusd would, imports the plugins, and prints which options each of
them would get. Tells every problem at once and then exits with status 1. A plugin's own
options are checked if it declares them (circusplug.options) or has a check_config; what they
name is looked for when it starts.
"""
_DESCRIBE = """\
Prints what a plugin is for, the options that it declares, and a section to paste into a
circus.ini. Without a plugin: those that come along, and those that other installed packages have
registered as entry points of the group circusplug.plugins.
"""
_ALERT_TEST = """\
Sends a test alert to each receiver that the sections of the plugin circusplug.plugins.Alert name,
and prints what has become of it. The exit status is 1 if one did not get it. Neither circusd nor
the host need to run. A secret that is env:NAME is taken from this command's environment.
"""
_MIGRATE = """\
Moves the plugin sections of a circus.ini to a file of their own, and leaves the one section
that lets an unmodified circusd run the host: [plugin:circusplug]. Shows the changes first;
keeps the original as a backup, which --undo puts back.
"""
_NEW = """\
Makes a Python package with one plugin in it: its options declared, a test of it, a circus.ini to
try it with, and an entry point, so that 'use = NAME' finds it where the package is installed.
Nothing that is there already is changed.
"""
_PLUGIN = """\
Runs one plugin against a running circusd, as Circus's own circus-plugin does. Ctrl-C or
SIGTERM stops it cleanly; if it fails, the exit status is 1.
"""
_PLUGIN_EXAMPLE = "Example: %(prog)s --config filename:events.log circusplug.plugins.Logger"
_PLUGIN_CONFIG = """\
the plugin's options, as key:value:::key:value, or as a JSON object, which can hold any
value: '{"filename": "a b.log"}'; 'isolate' and 'host.…' are the host's, as in a section
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the `circusplug` command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="circusplug",
        description="Host the plugins of Circus in one process, a thread each.",
        epilog="Try 'circusplug check circus.ini' first; 'circusplug COMMAND --help' tells more.",
    )
    parser.add_argument("--version", action="version", version=f"circusplug {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    run = _add(commands, "run", "host the plugins of a circus.ini", _RUN)
    up = _add(commands, "up", "the same, and start a real circusd first", _UP)
    for command in (run, up):
        _add_log_options(command)
        pid_file.add_option(command)
    circusd_ends.add_options(run)

    check = _add(commands, "check", "tell what is wrong with a circus.ini", _CHECK)
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.add_argument("--no-import", action="store_true", help="do not import the plugins")

    _add_describe(commands)

    alert = _add(commands, "alert-test", "send a test alert to everybody", _ALERT_TEST)
    alert.add_argument("name", nargs="?", metavar="NAME", help="only this section's alerts")

    plugin = commands.add_parser(
        "plugin",
        help="host one plugin, as circus-plugin does",
        description=_PLUGIN,
        epilog=_PLUGIN_EXAMPLE,
    )
    _add_plugin_options(plugin)

    migrate = _add(commands, "migrate", "let circusd run the host in one section", _MIGRATE)
    migrate.add_argument("--to", metavar="FILE", help="where the plugins go (plugins.ini)")
    migrate.add_argument("--yes", action="store_true", help="do it without asking")
    migrate.add_argument("--undo", action="store_true", help="put the original back")

    package = commands.add_parser(
        "new", help="make a package with a plugin, its test and a circus.ini", description=_NEW
    )
    package.add_argument("name", metavar="NAME", help="of the package and of the plugin")
    package.add_argument("directory", nargs="?", help="where to make it (NAME)")

    pages = commands.add_parser("docs", help="print a page of the reference")
    pages.add_argument("topic", nargs="?", metavar="TOPIC", help="without it, the topics")

    unit = _add(commands, "systemd", systemd_unit.HELP, systemd_unit.DESCRIPTION)
    systemd_unit.add_options(unit)

    workshop.add_commands(commands)
    steer.add_commands(commands)

    given = parser.parse_args(arguments)
    if given.command == "migrate" and given.undo and given.to:
        migrate.error("--undo finds out where the plugins went; leave out --to")
    return _guarded("circusplug", lambda: _dispatch(given))


def _add_describe(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "describe", help="print a plugin's options and a section to paste", description=_DESCRIBE
    )
    command.add_argument("use", nargs="?", metavar="USE", help="a plugin's 'use'; without it, all")
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a list of JSON objects")
    form.add_argument("--markdown", action="store_true", help="print Markdown")


def _dispatch(given: argparse.Namespace) -> int:
    # Each command imports what it needs, and pays for nothing else.
    if given.command in ("run", "up"):
        from . import hosting

        return hosting.host_file(
            given.file,
            with_circusd=given.command == "up",
            endpoint=getattr(given, "endpoint", None),
            pubsub_endpoint=getattr(given, "pubsub", None),
            loglevel=given.loglevel,
            logoutput=given.logoutput,
            pidfile=given.pidfile,
        )
    if given.command in workshop.COMMANDS:
        return workshop.run(given)
    if given.command == "new":
        from . import new

        return new.make(given.name, given.directory)
    if given.command == "docs":
        from . import docs

        return docs.print_page(given.topic)
    if given.command == "systemd":
        return systemd_unit.print_unit(given.file, with_circusd=given.up)
    if given.command == "check":
        from . import check

        return check.check(given.file, as_json=given.json, imports=not given.no_import)
    if given.command == "describe":
        from . import describe

        return describe.describe(given.use, as_json=given.json, as_markdown=given.markdown)
    if given.command == "alert-test":
        from . import alert_test

        return alert_test.send(given.file, given.name)
    if given.command == "plugin":
        return _host_plugin(given)
    if given.command in steer.COMMANDS:
        return steer.steer(given)
    from . import migrate

    return migrate.migrate(given.file, given.to or "plugins.ini", undo=given.undo, yes=given.yes)


def plugin_main(arguments: Sequence[str] | None = None) -> int:
    """Run the `circus-plugin` command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="circus-plugin", description=_PLUGIN, epilog=_PLUGIN_EXAMPLE
    )
    _add_plugin_options(parser)
    given = parser.parse_args(arguments)
    return _guarded("circus-plugin", lambda: _host_plugin(given))


def _add_plugin_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plugin", help="dotted name of the plugin class: package.module.Class")
    parser.add_argument(
        "--endpoint",
        type=circusd_ends.read,
        default=DEFAULT_ENDPOINT,
        help="circusd's command endpoint (%(default)s)",
    )
    parser.add_argument(
        "--pubsub",
        type=circusd_ends.read,
        default=DEFAULT_PUBSUB_ENDPOINT,
        help="its event endpoint (%(default)s)",
    )
    parser.add_argument("--config", default="", help=_PLUGIN_CONFIG)
    parser.add_argument(
        "--check-delay",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="circusd's check period, told to the plugin (%(default)s)",
    )
    _add_log_options(parser, level="info", output="-")
    parser.add_argument("--ssh", metavar="SERVER", help="tunnel through this ssh server")
    parser.add_argument("--version", action="version", version=f"circusplug {__version__}")


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        seconds = float(text)
        if seconds >= 0 and math.isfinite(seconds):
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds of 0 or more")


def _host_plugin(given: argparse.Namespace) -> int:
    from . import hosting

    return hosting.host_plugin(
        given.plugin,
        given.config,
        endpoint=given.endpoint,
        pubsub_endpoint=given.pubsub,
        check_delay=given.check_delay,
        ssh_server=given.ssh,
        loglevel=given.loglevel,
        logoutput=given.logoutput,
    )


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, short: str, long: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=short,
        description=long,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("file", metavar="circus.ini", help="the configuration file")
    return command


def _add_log_options(
    parser: argparse.ArgumentParser, level: str | None = None, output: str | None = None
) -> None:
    parser.add_argument(
        "--log-level",
        dest="loglevel",
        type=str.lower,
        choices=_logs.LEVELS,
        default=level,
        help=f"lowest level to log ({level or 'what the file says, or info'})",
    )
    parser.add_argument(
        "--log-output",
        dest="logoutput",
        default=output,
        metavar="FILE",
        help=f"a file, syslog://…, or - for standard error ({output or 'what the file says'})",
    )


def _guarded(program: str, action: Callable[[], int]) -> int:
    """Run a command; what the user can mend becomes one line a problem."""
    _prepare_streams()
    find_plugins_here()
    try:
        return action()
    except CircusPlugError as error:
        priority = "<3>" if _logs.is_journal(sys.stderr) else ""
        for line in str(error).splitlines():
            print(f"{priority}{program}: {line}", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        if error.errno != errno.EPIPE:
            print(f"{program}: cannot write the output: {error.strerror}", file=sys.stderr)
        return EXIT_FAILURE


def _prepare_streams() -> None:
    """Let nothing that is printed be lost, or go where it does not belong."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:  # closed by our caller: the next pipe opened would take its place
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - stays open
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A line that we or a plugin print is seen at once, and whatever its characters.
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")


def run() -> NoReturn:
    """Be the `circusplug` command: its process ends with it."""
    _end_process(main)


def run_plugin() -> NoReturn:
    """Be the `circus-plugin` command: its process ends with it."""
    _end_process(plugin_main)


def _end_process(command: Callable[[], int]) -> NoReturn:
    """End this process with a command's exit status, at once when the command is over.

    A thread that a plugin has left behind, be it a daemon or one of an executor, keeps nothing.
    """
    leave_init_behind()
    try:
        status = command()
    except SystemExit as error:  # argparse has said what is wrong with the arguments
        status = error.code if isinstance(error.code, int) else EXIT_FAILURE
    logging.shutdown()
    _logs.end_lines()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    run()
