# How the system's ssh is called for a tunnel, and what it may be told: which server, and which
# endpoints can be forwarded.
#
# Not by zmq.ssh: it forwards one port an ssh, forks a terminal in a process that has threads,
# asks for passwords there, and forgets the tunnel once it stands. The system's `ssh` does all
# that is needed, with the user's own keys and configuration.

from __future__ import annotations

import re
from collections.abc import Mapping

from .._errors import HostError
from .endpoints import connectable

#: What it prints when the sockets are listened on.
READY = b"circusplug-tunnel-is-up"
_OPTIONS = {
    "BatchMode": "yes",  # never ask for anything: there is nobody to answer
    "ConnectTimeout": "10",
    "ControlMaster": "no",  # this process is the tunnel, not a client of another one
    "ControlPath": "none",
    "ExitOnForwardFailure": "yes",
    "LocalCommand": f"echo {READY.decode()}",
    "LogLevel": "ERROR",
    "PermitLocalCommand": "yes",
    # As between circusd and a plugin on two machines: a silent end is noticed after 4 s.
    "ServerAliveCountMax": "2",
    "ServerAliveInterval": "2",
    "StreamLocalBindMask": "0177",
    "StreamLocalBindUnlink": "yes",
}
_SERVER = re.compile(
    r"(?P<user>[^@\s]+@)?(?P<host>\[[^\]]+\]|[^@:\[\]\s]+|[0-9A-Fa-f:]+)(?::(?P<port>\d+))?"
)
# A line tells it to end. The ssh and its directory also end with this process, however that ends:
# a subshell sees the end of our pipe.
_SCRIPT = """\
exec 3<&0
directory=$0
"$@" </dev/null 3<&- & ssh=$!
(read -r _ || rm -rf "$directory"; kill $ssh) <&3 3<&- >/dev/null 2>&1 & guard=$!
wait $ssh; status=$?
kill -9 $guard 2>/dev/null
wait
exit $status
"""


def ssh_command(
    ssh: str, destination: list[str], forwards: Mapping[str, str], directory: str
) -> list[str]:
    """The command that forwards sockets; it reads a line that tells it to end.

    Args:
        ssh: The path of the ssh command.
        destination: The server, as by `destination`.
        forwards: From a socket's path to its target, as by `target`.
        directory: What is removed if this process ends without telling.
    """
    command = ["/bin/sh", "-c", _SCRIPT, directory, ssh, "-N", "-T"]
    for option, value in _OPTIONS.items():
        command += ["-o", f"{option}={value}"]
    for path, far in forwards.items():
        command += ["-L", f"{path}:{far}"]
    return [*command, *destination]


def target(endpoint: str) -> str:
    """An endpoint as `ssh -L` wants it: HOST:PORT, or a socket's path.

    Raises:
        HostError: It cannot be tunnelled.
    """
    scheme, _, address = connectable(endpoint).partition("://")
    if scheme == "tcp" or (scheme == "ipc" and address.startswith("/")):
        return address
    raise HostError(
        f"{endpoint} cannot be tunnelled by ssh; only tcp://HOST:PORT and ipc:///PATH can, "
        "as seen from the ssh server"
    )


def destination(server: str) -> list[str]:
    """``[USER@]HOST[:PORT]`` as arguments of ssh; an IPv6 address with a port is in brackets.

    Raises:
        HostError: It is written otherwise.
    """
    found = _SERVER.fullmatch(server)
    if found is None:
        raise HostError(f"'ssh_server': {server!r} is not USER@HOST, nor USER@HOST:PORT")
    port = ["-p", found["port"]] if found["port"] else []
    return [*port, "--", (found["user"] or "") + found["host"].strip("[]")]
