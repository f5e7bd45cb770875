# A managed circusd whose watchers' processes hold the writing end of a FIFO: a line in it says
# that one has started, and its end that every last one is gone, the ones that hide from circusd
# included. So no test with it looks at a clock or counts processes.

from __future__ import annotations

import contextlib
import json
import os
import select
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import zmq
from circusd_real import free_endpoints
from patience import PATIENCE

from circusplug._circusd.process import CircusdProcess
from circusplug._wire.commands import encode_command

#: Long enough for any test, and not left for long by one that fails.
IDLE = "echo up >&3; exec sleep 120"

#: A child that nobody at circusd knows of, below a process that ends by itself.
WITH_GRANDCHILD = f"sleep 120 & {IDLE}"

WITH_DETACHED = f"(setsid sleep 120 &) & {IDLE}"

STUBBORN = f"trap '' TERM; {IDLE}"

#: What w0, w1 and w2 run where all of these have to end.
ALL_SORTS = (IDLE, WITH_GRANDCHILD, WITH_DETACHED)


class Bench:
    """The ini file of one circusd, and the FIFOs that its watchers' processes hold."""

    def __init__(self, directory: Path) -> None:
        self.endpoint, self.pubsub_endpoint = free_endpoints(2)
        self._directory = directory
        self._alive: dict[str, int] = {}  # the reading end of each watcher's FIFO

    def close(self) -> None:
        for fd in self._alive.values():
            os.close(fd)

    def ini(self, *scripts: str, **circus: Any) -> str:
        lines = [
            "[circus]",
            f"endpoint = {self.endpoint}",
            f"pubsub_endpoint = {self.pubsub_endpoint}",
            'multicast_endpoint = ""',
            "check_delay = 0.2",
            *(f"{key} = {value}" for key, value in circus.items()),
        ]
        for number, script in enumerate(scripts):
            name = f"w{number}"
            lines += [f"[watcher:{name}]", f'cmd = sh -c "exec 3>{self._fifo(name)}; {script}"']
        return "\n".join(lines) + "\n"

    def _fifo(self, name: str) -> Path:
        path = self._directory / name
        if name not in self._alive:
            os.mkfifo(path)
            self._alive[name] = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        return path

    def wait_started(self, count: int = 1, only: str = "") -> None:
        """Wait until so many processes of each watcher have started, or of one."""
        for name in [only] if only else self._alive:
            seen = b""
            while seen.count(b"up\n") < count:
                seen += self.read(name)

    def wait_all_gone(self) -> None:
        for name in self._alive:
            while self.read(name):
                pass

    def read(self, name: str = "w0") -> bytes:
        """What a watcher's processes say next; nothing once they are gone."""
        fd = self._alive[name]
        assert select.select([fd], [], [], PATIENCE)[0], f"nothing happens to {name}'s processes"
        return os.read(fd, 1000)

    def call(self, command: str, **properties: Any) -> dict[str, Any]:
        with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
            dealer.linger = 0
            dealer.connect(self.endpoint)
            dealer.send(encode_command(1, command, properties))
            assert dealer.poll(int(PATIENCE * 1000)), "no answer from circusd"
            reply: dict[str, Any] = json.loads(dealer.recv())
            return reply

    def list_watchers(self) -> list[str]:
        watchers: list[str] = self.call("list")["watchers"]
        return watchers


class Exits:
    """Notices the end of processes that are not our children; made before they end."""

    def __init__(self, *pids: int | None) -> None:
        self._fds = [os.pidfd_open(pid) for pid in pids if pid]

    def __enter__(self) -> Exits:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for fd in self._fds:
            os.close(fd)

    def wait(self) -> None:
        for fd in self._fds:
            assert select.select([fd], [], [], PATIENCE)[0], "a process did not end"


@contextlib.contextmanager
def running(ini: str, **kwargs: Any) -> Iterator[CircusdProcess]:
    with CircusdProcess(ini, **kwargs) as circusd:
        yield circusd
