# A host with a number of plugins, or what does the same elsewhere: started, looked at from
# outside, stopped. All of them get their events from the stand-in for circusd.
#
#   ours      circusplug run
#   isolated  the same, with isolate = true for each plugin
#   circus    a real circusd that starts the same plugins its own way, a process each
#   bare      threads with the two sockets and nothing else

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import zmq

from .plugins import BASE
from .processes import all_cpu_seconds, end, pss, tree, wait_quiet
from .standin import StandIn

#: How long a fleet may take to get ready, or to handle its events, in seconds.
PATIENCE = 120.0

#: Hosts that do not receive events themselves.
APART = ("circus", "supervisor")

_SCRIPTS = {
    "ours": "import sys; from circusplug._cli.main import main; sys.exit(main())",
    "circus": "from circus.circusd import main; main()",
}


class Fleet:
    """A host with its plugins; a context manager, which waits until all are ready.

    Args:
        kind: Which host, see above.
        count: How many plugins. A circusd without any is ready when it answers.
        stand_in: What the plugins connect to.
        publisher: Which of its event sockets.
        use: Their class, one of `plugins`.
        beside: Options of one more plugin, none if empty.
        options: Options of each.

    Attributes:
        ready_seconds: From exec until the last plugin was ready.
        ready_cpu: CPU seconds of all its processes until then.
        folder: Where its file is, ``circus.ini``.
        members: The processes that receive events: without circusd and supervisord.
    """

    def __init__(
        self,
        kind: str,
        count: int,
        stand_in: StandIn,
        publisher: int = 0,
        *,
        use: str = "Member",
        beside: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.kind = kind
        self.count = count
        self.endpoint, self.pubsub = stand_in.endpoint, stand_in.pubsub[publisher]
        if kind == "circus":
            self.endpoint, self.pubsub = (f"tcp://127.0.0.1:{_free_port()}" for _ in range(2))
            options["events_from"] = stand_in.pubsub[publisher]
        if kind == "isolated":
            options["isolate"] = "true"
        plugins = {f"p{number:04}": {"use": use, **options} for number in range(count)}
        if beside:
            plugins["beside"] = beside
        self._plugins = plugins
        self._stand_in = stand_in
        self._publisher = publisher
        self.ready_seconds = self.ready_cpu = 0.0

    def __enter__(self) -> Fleet:
        self._folder = tempfile.TemporaryDirectory()
        folder = self.folder = Path(self._folder.name)
        self._report = folder / "report"
        self._report.touch()
        command = self._command(folder)
        environment = {**os.environ, BASE: "circus.plugins"} if self.kind == "circus" else None
        began = time.monotonic()
        # circusd tells of a conflict with itself when it is stopped, ours of nothing.
        errors = subprocess.DEVNULL if self.kind == "circus" else None
        self.process = subprocess.Popen(command, stderr=errors, env=environment)
        try:
            self._wait_ready()
            self.ready_cpu = all_cpu_seconds(tree(self.process.pid))
            self._wait_subscribed()
        except BaseException:
            self.__exit__()
            raise
        ready = [when for when, _ in self.noted("ready")] or [time.monotonic()]
        self.ready_seconds = max(ready) - began
        self.members = tree(self.process.pid)[self.kind in APART :]
        return self

    def __exit__(self, *_: object) -> None:
        end(self.process)
        self._folder.cleanup()

    def pss(self) -> float:
        """Its memory in bytes, once it is at rest, shared pages counted by their share."""
        wait_quiet([self.process.pid], 0.2)
        return pss(tree(self.process.pid))

    def cpu(self) -> float:
        """CPU seconds of what receives, so far, once that is at rest."""
        wait_quiet(self.members, 0.2)
        return all_cpu_seconds(self.members)

    def noted(self, what: str) -> list[tuple[float, Any]]:
        """The notes of a kind, with the time of each."""
        # The last line may be half written.
        lines = (line.split() for line in self._report.read_text().split("\n")[:-1])
        return [(float(when), json.loads(more)) for kind, when, more in lines if kind == what]

    def wait_noted(self, what: str, count: int, pause: float = 0.02) -> float:
        """Wait for so many notes of a kind; return the time of the last, by the monotonic clock.

        Raises:
            RuntimeError: They do not come, or the host has ended.
        """
        deadline = time.monotonic() + PATIENCE
        while (found := self._report.read_text().count(f"{what} ")) < count:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.kind}: {found} of {count} plugins are {what}")
            time.sleep(pause)
        return max(when for when, _ in self.noted(what))

    def stop(self) -> tuple[float, list[Any]]:
        """Send SIGTERM; return the seconds until it has ended, and what handle_stop noted."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        seconds = time.monotonic() - began
        return seconds, [more for _, more in self.noted("stop")]

    def _command(self, folder: Path) -> list[str]:
        if self.kind == "bare":
            count, report = str(self.count), str(self._report)
            program = ["-m", "benchmarks.fleet_bare", count, self.endpoint, self.pubsub, report]
            return [sys.executable, *program]
        lines = ["[circus]", f"endpoint = {self.endpoint}", f"pubsub_endpoint = {self.pubsub}"]
        for name, options in self._plugins.items():
            lines += [f"[plugin:{name}]", f"report = {self._report}"]
            lines += [f"use = benchmarks.plugins.{options['use']}"]
            lines += [f"{key} = {value}" for key, value in options.items() if key != "use"]
        ini = folder / "circus.ini"
        ini.write_text("\n".join(lines) + "\n")
        script = _SCRIPTS["circus" if self.kind == "circus" else "ours"]
        options = [] if self.kind == "circus" else ["run"]
        return [sys.executable, "-c", script, *options, "--log-level", "error", str(ini)]

    def _wait_ready(self) -> None:
        if self._plugins:
            self.wait_noted("ready", len(self._plugins), pause=0.002)
        else:
            _ask(self.endpoint)

    def _wait_subscribed(self) -> None:
        self._stand_in.wait_subscribed(self._publisher, len(self._plugins))


def _ask(endpoint: str) -> None:
    """Wait until a circusd answers."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as client:
        client.setsockopt(zmq.LINGER, 0)
        client.setsockopt(zmq.RECONNECT_IVL, 2)
        client.connect(endpoint)
        client.send(b'{"id": 1, "command": "numwatchers", "properties": {}}')
        if not client.poll(int(1000 * PATIENCE)):
            raise RuntimeError("circusd does not answer")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
