# A real circusd for tests: started as a child of the test process on free loopback ports,
# asked until it answers, and taken down with every process it started, whatever happens.
# The test's thread owns everything here: the child, the client socket, the files.

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import zmq
from patience import wait_while

from circusplug.testing._server import part_of

#: A watcher's command that does nothing until it is signalled.
IDLE_COMMAND = "sleep 1000"

_PROGRAM = "from circus.circusd import main; main()"


class RealCircusd:
    """A circusd child process; a context manager.

    Args:
        watchers: Options by watcher name; ``cmd`` and ``graceful_timeout`` have defaults.
            Or the text of the ini's watcher sections, used as it is.
        plugins: Options by plugin name, for ``[plugin:NAME]`` sections.
        check_delay: Seconds between two looks of circusd at its processes.
        start_timeout: Seconds that circusd gets until it must have answered.
        options: Further keys of the ``[circus]`` section.
    """

    def __init__(
        self,
        watchers: Mapping[str, Mapping[str, Any]] | str = "",
        *,
        plugins: Mapping[str, Mapping[str, Any]] | None = None,
        check_delay: float = 0.2,
        start_timeout: float = 30.0,
        **options: Any,
    ) -> None:
        self._watchers = watchers
        self._plugins = plugins or {}
        self._check_delay = check_delay
        self._start_timeout = start_timeout
        self._options = options
        self._exit = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._last_id = 0
        self.endpoint = ""
        self.pubsub_endpoint = ""

    def __enter__(self) -> RealCircusd:
        with contextlib.ExitStack() as stack:
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self.ini_path = self.directory / "circus.ini"
            self.log_path = self.directory / "circusd.log"
            self.endpoint, self.pubsub_endpoint = free_endpoints(2)
            self.ini_path.write_text(self.ini())
            self._context = stack.enter_context(zmq.Context())
            stack.callback(self.kill)
            self.start()
            self._exit = stack.pop_all()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exit.close()

    def ini(self) -> str:
        """Return the text of circus.ini."""
        circus = {
            "endpoint": self.endpoint,
            "pubsub_endpoint": self.pubsub_endpoint,
            "multicast_endpoint": '""',
            "check_delay": self._check_delay,
            **self._options,
        }
        parts = [_section("circus", circus)]
        if isinstance(self._watchers, str):
            parts.append(self._watchers)
        else:
            for name, options in self._watchers.items():
                defaults = {"cmd": IDLE_COMMAND, "graceful_timeout": 2}
                parts.append(_section(f"watcher:{name}", {**defaults, **options}))
        parts += [_section(f"plugin:{name}", options) for name, options in self._plugins.items()]
        return "\n".join(parts)

    @property
    def pid(self) -> int:
        """circusd's process id."""
        if self._process is None:
            raise RuntimeError("this circusd is not running")
        return self._process.pid

    @property
    def log(self) -> str:
        """What circusd wrote to its stdout and stderr."""
        return self.log_path.read_text(errors="replace")

    def start(self) -> None:
        """Start circusd on its ports and wait until its watchers have been started."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(self.ini_path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,
            )
        deadline = time.monotonic() + self._start_timeout
        while True:
            try:
                reply = self.call("status", timeout=0.2)
            except TimeoutError:
                if self._process.poll() is None and time.monotonic() < deadline:
                    continue
                log_text = self.log
                self.kill()
                raise RuntimeError(f"circusd did not start:\n{log_text}") from None
            if "starting" not in reply["statuses"].values():
                return

    def kill(self) -> None:
        """Kill circusd and all that it started with SIGKILL; nothing happens when it is down."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            circusd = psutil.Process(process.pid)
            circusd.suspend()  # so that it starts nothing between the look and the kill
            children = circusd.children(recursive=True)
            circusd.kill()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            wait_while(lambda: not all(map(_has_ended, children)))
        process.wait(timeout=10)

    def terminate(self, timeout: float = 10.0) -> None:
        """Stop circusd with SIGTERM, as a service manager does, and wait until it is gone."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        self.kill()

    def restart(self) -> None:
        """Kill circusd and start it anew on the same ports."""
        self.kill()
        self.start()

    def call(self, command: str, *, timeout: float = 10.0, **properties: Any) -> dict[str, Any]:
        """Send one command on a connection of its own and return the reply, errors included.

        Raises:
            TimeoutError: No reply within *timeout* seconds.
        """
        self._last_id += 1
        request = {"id": self._last_id, "command": command, "properties": properties}
        with self._context.socket(zmq.DEALER) as dealer:
            dealer.linger = 0
            dealer.connect(self.endpoint)
            dealer.send(json.dumps(request).encode())
            if not dealer.poll(int(timeout * 1000)):
                raise TimeoutError(f"circusd did not answer {command!r} within {timeout:g} s")
            reply: dict[str, Any] = json.loads(dealer.recv())
        if reply["id"] != self._last_id:
            raise AssertionError(f"not the reply to {request}: {reply}")
        return reply


@contextlib.contextmanager
def real_circusd(
    watchers: Mapping[str, Mapping[str, Any]] | str = "", **kwargs: Any
) -> Iterator[RealCircusd]:
    """Run a real circusd for the ``with`` block; takes what `RealCircusd` takes."""
    with RealCircusd(watchers, **kwargs) as circusd:
        yield circusd


def free_endpoints(count: int) -> list[str]:
    """Return *count* loopback endpoints that nobody listens on.

    The kernel takes the local ports of outgoing connections from 32768 upwards; a client
    that keeps trying a dead port up there will, one day, connect to itself.
    """
    with contextlib.ExitStack() as stack:
        ports = []
        for port in _shuffled(part_of(range(28_000, 32_000))):
            probe = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                ports.append(port)
            if len(ports) == count:
                return [f"tcp://127.0.0.1:{port}" for port in ports]
    raise RuntimeError("no free port between 28000 and 32000")


def _shuffled(numbers: range) -> list[int]:
    import random

    return random.sample(numbers, len(numbers))


def _has_ended(process: psutil.Process) -> bool:
    """Whether it has, even if whoever inherited it takes his time to reap it."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _section(name: str, options: Mapping[str, Any]) -> str:
    lines = [f"[{name}]", *(f"{key} = {value}" for key, value in options.items())]
    return "\n".join(lines) + "\n"
