# A stand-in for ssh, which needs no server, and a tunnel through it.

from __future__ import annotations

import json
import queue
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
from patience import PATIENCE

from circusplug._wire.endpoints import Link
from circusplug._wire.ssh_tunnel import Tunnel

ENDS = "tcp://127.0.0.1:5555", "tcp://127.0.0.1:5556"

#: As much of ssh as a tunnel takes. It tells of its start, and does what a file beside it says.
STAND_IN = """\
#!{python} -SE
import json, os, pathlib, signal, socket, sys
here = pathlib.Path(__file__).parent
what = (here / "what").read_text()
pairs = list(zip(sys.argv, sys.argv[1:]))
options = dict(value.split("=", 1) for flag, value in pairs if flag == "-o")
ends = [value.split(":", 1)[0] for flag, value in pairs if flag == "-L"]
if what == "silent":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
told = json.dumps({{"pid": os.getpid(), "arguments": sys.argv[1:]}})
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as teller:
    teller.sendto(told.encode(), str(here / "starts"))
if what == "refuse":
    sys.exit("no entry\\nfor you")
if what == "end":
    os._exit(7)
if what == "talk":
    os.write(2, b"one moment\\n")
if what in ("silent", "talk"):
    signal.pause()
if what == "chatty":
    for _ in range(20000):
        print("x" * 100, file=sys.stderr)
os.umask(int(options["StreamLocalBindMask"], 8))
sockets = []
for end in ends:
    if options["StreamLocalBindUnlink"] == "yes" and os.path.exists(end):
        os.unlink(end)
    sockets.append(socket.socket(socket.AF_UNIX))
    sockets[-1].bind(end)
    sockets[-1].listen()
if options["PermitLocalCommand"] == "yes":
    os.system(options["LocalCommand"])
signal.pause()
"""


class StandIn:
    """An `ssh` that pretends; a context manager."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        program = directory / "ssh"
        program.write_text(STAND_IN.format(python=sys.executable))
        program.chmod(0o755)
        self.will("stand")
        self._starts = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._starts.bind(str(directory / "starts"))
        self._starts.settimeout(PATIENCE)

    def will(self, what: str) -> None:
        """Say what those do that are started from now on."""
        (self._directory / "what").write_text(what)

    def wait_started(self) -> psutil.Process:
        """Wait for one more to be started, and return it."""
        return psutil.Process(json.loads(self._starts.recv(100_000))["pid"])

    def close(self) -> None:
        self._starts.close()


class Opening:
    """A tunnel, and what it calls."""

    def __init__(self, **options: Any) -> None:
        self.calls: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self.tunnel = Tunnel(
            "host",
            *ENDS,
            on_up=lambda: self._note("up"),
            on_failed=lambda reason: self._note(f"failed: {reason}"),
            **options,
        )

    def _note(self, what: str) -> None:
        self.calls.put((what, threading.current_thread().name))

    def __enter__(self) -> Opening:
        self.tunnel.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.tunnel.close()


def paths(link: Link) -> list[Path]:
    return [Path(end.removeprefix("ipc://")) for end in (link.endpoint, link.pubsub_endpoint)]
