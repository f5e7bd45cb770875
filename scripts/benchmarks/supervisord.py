# A real supervisord with event listeners, as a fleet. A program that it runs makes the events.

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any
from xmlrpc.client import ServerProxy

from .fleet import PATIENCE, Fleet
from .standin import StandIn

#: Each listener has a pool of its own, so that it gets every event, and gets them as soon as it
#: runs. All else is as it comes: a pool keeps ten events for a listener that is busy.
_CONF = """\
[supervisord]
logfile = /dev/null
logfile_maxbytes = 0
pidfile = {folder}/pid
[unix_http_server]
file = {folder}/socket
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[program:producer]
command = {python} -m benchmarks.listener produce {events} {rate}
autostart = false
autorestart = false
startsecs = 0
stdout_capture_maxbytes = 1MB
stdout_logfile = NONE
stderr_logfile = NONE
"""
_LISTENER = """\
[eventlistener:p{number}]
command = {python} -m benchmarks.listener listen {report} {block}
events = PROCESS_COMMUNICATION
startsecs = 0
stdout_logfile = NONE
stderr_logfile = NONE
"""


class Supervisord(Fleet):
    """Listeners under supervisord; see `Fleet`.

    Args:
        count: How many listeners.
        events, rate: What `produce` makes; events, and how many a second.
        block: For how many seconds each listener sleeps at its first event.
    """

    def __init__(
        self, count: int, stand_in: StandIn, *, events: int = 0, rate: float = 1, block: float = 0
    ) -> None:
        super().__init__("supervisor", count, stand_in)  # whose endpoints stay unused
        self._facts: dict[str, Any] = {"events": events, "rate": rate, "block": block}

    def produce(self) -> None:
        """Make all events; return when supervisord has them."""
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, f"unix://{self._folder.name}/socket")
        with ServerProxy("http://127.0.0.1", transport) as server:
            server.supervisor.startProcess("producer", False)
            deadline = time.monotonic() + PATIENCE
            while server.supervisor.getProcessInfo("producer")["statename"] != "EXITED":
                if time.monotonic() > deadline:
                    raise RuntimeError("Supervisor's producer of events does not end")
                time.sleep(0.2)

    def _wait_subscribed(self) -> None:
        """A listener that has started gets events."""

    def _command(self, folder: Path) -> list[str]:
        facts = {**self._facts, "folder": folder, "python": sys.executable, "report": self._report}
        listeners = (_LISTENER.format(number=number, **facts) for number in range(self.count))
        conf = folder / "supervisord.conf"
        conf.write_text(_CONF.format(**facts) + "".join(listeners))
        return [sys.executable, "-m", "supervisor.supervisord", "-n", "-s", "-c", str(conf)]
