# A plugin that forks (os.fork). A module of its own, since isolated plugins import it.

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from patience import PATIENCE
from troublemakers import Frames, Talker


def _leave(code: object = None) -> Callable[[], None]:
    return lambda: sys.exit(code)  # type: ignore[arg-type]


def _fail() -> None:
    raise LookupError("in the child")


#: What a child can do in the end, and the exit status that this means.
ENDS: dict[str, tuple[Callable[[], Any], int]] = {
    "return": (lambda: None, 0),
    "sys.exit()": (_leave(), 0),
    "sys.exit(3)": (_leave(3), 3),
    "sys.exit(300)": (_leave(300), 300 & 0xFF),
    "sys.exit('why')": (_leave("why"), 1),
    "raise": (_fail, 1),
    "os._exit(5)": (lambda: os._exit(5), 5),
}


def exit_status(pid: int) -> int:
    """Wait for a child's end; one that does not end in time is killed."""
    handle = os.pidfd_open(pid)
    try:
        if not select.select([handle], [], [], PATIENCE)[0]:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(handle)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Forker(Talker):
    """Forks in the ``place`` that its options name, and tells how the child has ended."""

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self.home = os.getpid()
        self.status: int | None = None
        if config["place"] == "async handle_init":
            self.handle_init = self.async_init  # type: ignore[method-assign]
        elif config["place"] == "async handle_recv":
            self.handle_recv = self.async_recv  # type: ignore[method-assign]
        self.fork_in("__init__")

    def fork_in(self, place: str) -> None:
        if self.config["place"] != place or self.status is not None:
            return
        pid = os.fork()
        if pid == 0:
            ENDS[self.config["end"]][0]()
            self.loop.call_soon(self.go_astray)
            return
        self.status = exit_status(pid)
        if place in ("callback", "periodic"):
            self.say("forked")

    def go_astray(self) -> None:
        if os.getpid() != self.home:
            Path(self.config["astray"]).write_text(self.config["place"])

    def handle_init(self) -> None:
        self.go_astray()
        self.fork_in("handle_init")

    async def async_init(self) -> None:
        await asyncio.sleep(0)
        self.fork_in("async handle_init")

    def handle_connect(self) -> None:
        self.go_astray()
        self.fork_in("handle_connect")

    def handle_recv(self, data: Frames) -> None:
        self.go_astray()
        self.fork_in("handle_recv")
        if self.config["place"] == "callback":
            self.loop.call_soon(self.fork_in, "callback")
            self.loop.call_soon(self.go_astray)
        elif self.config["place"] == "periodic":
            self.periodic(lambda: self.fork_in("periodic"), 0.01)

    async def async_recv(self, data: Frames) -> None:
        self.go_astray()
        await asyncio.sleep(0)
        self.fork_in("async handle_recv")

    def handle_stop(self) -> None:
        self.go_astray()
        self.fork_in("handle_stop")
        if os.getpid() == self.home:
            self.say("stopped", status=self.status)
