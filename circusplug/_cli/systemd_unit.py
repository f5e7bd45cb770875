# `circusplug systemd FILE`: prints a unit by which systemd runs `circusplug run`, or `up`. Why it
# forbids what it forbids, and no more, is said beside each list.

from __future__ import annotations

import argparse
import math
import os
import sys

from .._config.specs import HostConfig
from .._errors import ConfigError

HELP = "print a unit for systemd"
DESCRIPTION = """\
Prints a unit that hosts the plugins of a circus.ini as a service of systemd's. Save it as
/etc/systemd/system/NAME.service and start it with 'systemctl enable --now NAME'. It is told when
the plugins are ready, reload or stop, and how they are; see 'systemctl status'.
"""

_UNIT = """\
# Made by 'circusplug systemd'.
[Unit]
Description={description}
Wants=network-online.target
After=network-online.target{after}

[Service]
Type=notify
NotifyAccess=main
ExecStart={program} -m circusplug {command} {file}
ExecReload=/bin/kill -HUP $MAINPID
WorkingDirectory={directory}
{user}Restart=on-failure
RestartSec=5
TimeoutStartSec={start}
# The host stops its plugins in order; what is left after this time is killed.
KillMode=mixed
TimeoutStopSec={stop}
# If the host or a plugin on a thread hangs: log where, stop what can be stopped, start again.
WatchdogSec={watchdog}
WatchdogSignal=SIGQUIT
# An isolated plugin that takes too much memory ends alone.
OOMPolicy=continue

# /usr, /boot and /etc can only be read, but for these directories.
ProtectSystem=full
ReadWritePaths={written}
ProtectControlGroups=yes
{hardening}
[Install]
WantedBy=multi-user.target
"""

#: What plugins have no reason to do. It is not said to circusd's watchers, which are any programs.
#: Left out is what isolated plugins of other users need, and what would hide from a host its
#: devices (PrivateDevices, ProtectClock), ssh's keys (ProtectHome) or sockets in /tmp
#: (PrivateTmp). For a user who is not root, most of these bring NoNewPrivileges with them.
_HARDENING = """\
# Take out what one of your plugins needs: NoNewPrivileges, if it runs sudo or sendmail.
NoNewPrivileges=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectHostname=yes
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
"""

#: What the end takes beyond the plugins' `stop_timeout`, in seconds: the last output, processes
#: that are killed; with a circusd, its own stop and its watchers'.
_END = 15
_END_WITH_CIRCUSD = 35
#: What a start takes beyond circusd's, in seconds: systemd's own default.
_START = 90
#: What the watchdog allows beyond two `stop_timeout`, in seconds. The host says that it lives
#: twice in its time, and a `handle_stop` may keep it from that for one.
_WATCHDOG = 60
#: More than this is not worth a number, in seconds.
_LONG = 86400.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let the command take its options."""
    parser.add_argument("--up", action="store_true", help="for 'circusplug up' instead of 'run'")


def print_unit(path: str, *, with_circusd: bool) -> int:
    """Print a unit for a circus.ini; returns the exit status.

    Raises:
        ConfigError: The file has errors, or a unit cannot name it.
    """
    from .._config import ini_file
    from .hosting import refuse_hosts

    config = ini_file.load(path)
    refuse_hosts(config)
    path = os.path.abspath(path)
    places = _written(path, config)
    for name in (sys.executable, path, *places):
        if not name.isprintable():
            raise ConfigError(f"{name!r}: a unit cannot hold such a name; give it another one")
    end = _END_WITH_CIRCUSD if with_circusd else _END
    print(
        _UNIT.format(
            description=("circusd and plugins of " if with_circusd else "Circus plugins of ")
            + _percent(path),
            after="" if with_circusd else " circusd.service",
            program=_word(sys.executable),
            command="up" if with_circusd else "run",
            file=_word(path).replace("$", "$$"),
            directory=_percent(os.path.dirname(path)),
            user=_user(),
            start=_seconds(_START + config.circusd_timeout * with_circusd),
            stop=_seconds(config.stop_timeout + end),
            watchdog=_seconds(_WATCHDOG + 2 * config.stop_timeout),
            written=" ".join(_word(f"-{place}") for place in places),
            hardening="" if with_circusd else _HARDENING,
        ),
        end="",
    )
    return 0


def _user() -> str:
    """Who it runs as: whoever asks, but root, who alone can start plugins of other users."""
    import pwd

    uid = os.getuid()
    if not uid:
        return ""
    try:
        return f"User={pwd.getpwuid(uid).pw_name}\n"
    except KeyError:
        return f"User={uid}\n"


def _written(path: str, config: HostConfig) -> list[str]:
    """The directories where the host writes: beside the file, and those of logs."""
    beside = os.path.dirname(path)
    files = [spec.host.stdout for spec in config.plugins]
    files += [spec.host.stderr for spec in config.plugins]
    if not config.logoutput.startswith("syslog://"):
        files.append(os.path.expanduser(config.logoutput))
    places = [os.path.dirname(os.path.join(beside, file)) for file in files if file]
    return [place for place in dict.fromkeys([beside, *places]) if place != "/dev"]


def _seconds(seconds: float) -> str:
    return str(math.ceil(seconds)) if seconds < _LONG else "infinity"


def _percent(text: str) -> str:
    return text.replace("%", "%%")


def _word(text: str) -> str:
    """One word as a unit holds it, see systemd.syntax(7)."""
    text = _percent(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"' if any(character in text for character in " '\"\\;") else text
