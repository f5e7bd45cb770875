# A host with a number of plugins that do nothing: started, looked at from outside, stopped.
#
#   ours      circusplug run, against the stand-in for circusd
#   isolated  the same, with isolate = true for each plugin
#   circus    a real circusd that starts the same plugins its own way, a process each
#   bare      threads with the two sockets and nothing else

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

import zmq

from .processes import all_cpu_seconds, end, pss, tree, wait_quiet
from .standin import StandIn

#: How long a fleet may take to get ready, in seconds.
READY_WAIT = 120.0

_SCRIPTS = {
    "ours": "import sys; from circusplug._cli.main import main; sys.exit(main())",
    "circus": "from circus.circusd import main; main()",
}


class Fleet:
    """A host with its plugins; a context manager, which waits until all are ready.

    Args:
        kind: Which host, see above.
        count: How many plugins. A circusd without any is ready when it answers.
        stand_in: What the plugins connect to, unless circusd is real.

    Attributes:
        ready_seconds: From exec until the last plugin was ready.
        ready_cpu: CPU seconds of all its processes until then.
    """

    def __init__(self, kind: str, count: int, stand_in: StandIn) -> None:
        self.kind = kind
        self.count = count
        self.endpoint, self.pubsub = stand_in.endpoint, stand_in.pubsub[0]
        if kind == "circus":
            self.endpoint, self.pubsub = (f"tcp://127.0.0.1:{_free_port()}" for _ in range(2))
        self.ready_seconds = self.ready_cpu = 0.0

    def __enter__(self) -> Fleet:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        self._report = folder / "report"
        self._report.touch()
        command = self._command(folder)
        began = time.monotonic()
        # circusd tells of a conflict with itself when it is stopped, ours of nothing.
        errors = subprocess.DEVNULL if self.kind == "circus" else None
        self.process = subprocess.Popen(command, stderr=errors)
        try:
            self._wait_ready(began + READY_WAIT)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.ready_cpu = all_cpu_seconds(self.pids)
        last = max(self._noted("ready")) if self.count else time.monotonic()
        self.ready_seconds = last - began
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        end(self.process)
        self._folder.cleanup()

    @property
    def pids(self) -> list[int]:
        """All its processes."""
        return tree(self.process.pid)

    def pss(self) -> float:
        """Its memory in bytes, once it is at rest, shared pages counted by their share."""
        wait_quiet(self.process.pid, 0.2)
        return pss(self.pids)

    def stop(self) -> tuple[float, int]:
        """Send SIGTERM; return the seconds until it has ended, and how many handle_stop ran."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        seconds = time.monotonic() - began
        return seconds, len(self._noted("stop"))

    def _command(self, folder: Path) -> list[str]:
        if self.kind == "bare":
            count, report = str(self.count), str(self._report)
            program = ["-m", "benchmarks.fleet_bare", count, self.endpoint, self.pubsub, report]
            return [sys.executable, *program]
        ini = folder / "circus.ini"
        ini.write_text(self._ini())
        script = _SCRIPTS["circus" if self.kind == "circus" else "ours"]
        options = [] if self.kind == "circus" else ["run"]
        return [sys.executable, "-c", script, *options, "--log-level", "error", str(ini)]

    def _ini(self) -> str:
        module = "fleet_circus" if self.kind == "circus" else "fleet_ours"
        sections = [
            "[circus]",
            f"endpoint = {self.endpoint}",
            f"pubsub_endpoint = {self.pubsub}",
        ]
        for number in range(self.count):
            sections += [
                f"[plugin:p{number:03}]",
                f"use = benchmarks.{module}.Trivial",
                f"report = {self._report}",
            ]
            if self.kind == "isolated":
                sections.append("isolate = true")
        return "\n".join(sections) + "\n"

    def _wait_ready(self, deadline: float) -> None:
        if not self.count:
            _ask(self.endpoint, deadline)
        while len(self._noted("ready")) < self.count:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.kind}: {self.count} plugins do not get ready")
            time.sleep(0.002)

    def _noted(self, what: str) -> list[float]:
        # The last line may be half written.
        lines = self._report.read_text().split("\n")[:-1]
        return [float(line.split()[1]) for line in lines if line.startswith(what)]


def _ask(endpoint: str, deadline: float) -> None:
    """Wait until a circusd answers."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as client:
        client.setsockopt(zmq.LINGER, 0)
        client.setsockopt(zmq.RECONNECT_IVL, 2)
        client.connect(endpoint)
        client.send(b'{"id": 1, "command": "numwatchers", "properties": {}}')
        if not client.poll(int(1000 * (deadline - time.monotonic()))):
            raise RuntimeError("circusd does not answer")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
