# Kills processes that have not sent a heartbeat for too long. How heartbeats come is in
# _heartbeats.py.
#
# Owner: the plugin's thread.

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

from circusplug import CallError, CircusPlugin, SpecError
from circusplug.options import Path, Regex, Seconds, Signal, declare, option

from ._heartbeats import Heartbeats, parent_of
from ._restarts import PATIENCE
from ._watchers import PLUGIN, in_events


@dataclass(frozen=True)
class WatchDogOptions:
    """What `WatchDog` can be told."""

    loop_rate: Seconds = option(60, above=0, meaning="how often to look for silent processes")
    max_count: int = option(3, minimum=1, meaning="for how many loop_rates a process may be silent")
    watchers_regex: Regex = option(".*", meaning="whose processes are looked at, by their names")
    msg_regex: Regex = option(
        r"^(?P<pid>.*);(?P<timestamp>.*)$", meaning="what a heartbeat looks like; with a group pid"
    )
    ip: str = option("127.0.0.1", meaning="where to listen; empty: not over UDP")
    port: int = option(1664, minimum=0, maximum=65535, meaning="the UDP port")
    socket: Path | None = option(
        None,
        meaning="a Unix socket to listen at as well; with NOTIFY_SOCKET set to it, "
        "systemd's WATCHDOG=1 is a heartbeat",
    )
    watchers_stop_signal: Signal | None = option(
        None, meaning="what a silent process gets; empty: its watcher's stop_signal"
    )
    watchers_graceful_timeout: Seconds | None = option(
        None, meaning="how long it gets to end; empty: as its watcher says"
    )

    def __post_init__(self) -> None:
        if "pid" not in self.msg_regex.groupindex:
            raise SpecError("'msg_regex' has no group (?P<pid>…)", key="msg_regex")
        if not self.ip and self.socket is None:
            raise SpecError("'ip' and 'socket' are both empty: nobody could be heard", key="ip")


class WatchDog(CircusPlugin):
    """Kills processes that have sent no heartbeat for `loop_rate` times `max_count`.

    A heartbeat is a datagram of ``PID;TIME`` to the UDP port or the Unix socket, or systemd's
    ``WATCHDOG=1`` to the latter, of a process itself or one that it has started;
    ``WATCHDOG=trigger`` says that it is broken. circusd starts another process. Those of circusd's
    own plugins are never looked at. What was missed while circusd was away is asked for when it is
    back; processes get a whole turn again then.
    """

    name = "watchdog"
    options = declare(WatchDogOptions)

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self._alive: dict[int, tuple[str, float]] = {}  # the watcher, and when it was heard of
        self._heartbeats = Heartbeats(self.options.msg_regex, self._heard)

    def handle_init(self) -> None:
        try:
            self._listen()
        except SpecError:
            self._heartbeats.close()
            raise
        self.periodic(self.look, self.options.loop_rate)

    def _listen(self) -> None:
        options = self.options
        if self.replaying:
            return  # nobody would send any
        if options.ip:
            port = self._heartbeats.listen_at(options.ip, options.port)
            self.logger.info("waiting for heartbeats at %s, port %d", options.ip, port)
        if options.socket is not None:
            self._heartbeats.listen_on(options.socket)
            self.logger.info("waiting for heartbeats at %s", options.socket)
        for fileno in self._heartbeats.filenos():
            self.loop.add_reader(fileno, self._heartbeats.read, fileno)

    async def handle_connect(self) -> None:
        """Find out which processes there are."""
        self._alive.clear()
        for name in (await self.call_async("list"))["watchers"]:
            if self._watches(name):
                for pid in (await self.call_async("list", name=name)).get("pids", ()):
                    self._alive[pid] = name, self.clock()

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        watcher, action, _ = self.split_data(data)
        if action not in ("spawn", "reap"):
            return
        pid = self.parse_event(data).pid
        if pid is None:
            return
        if action == "reap":
            self._alive.pop(pid, None)
            return
        with contextlib.suppress(CallError):  # its name in events does for most commands
            watcher = self.watcher_name(watcher)
        if self._watches(watcher):
            self._alive[pid] = watcher, self.clock()

    def handle_stop(self) -> None:
        self._heartbeats.close()

    def clock(self) -> float:
        """Seconds that only ever go forward."""
        moment: float = self.loop.time()
        return moment

    async def look(self) -> None:
        """Kill all processes that are silent."""
        since = self.clock() - self.options.loop_rate * self.options.max_count
        silent = [pid for pid, (_, heard) in self._alive.items() if heard < since]
        await asyncio.gather(*(self._kill(pid, "is silent") for pid in silent))

    def _watches(self, name: str) -> bool:
        match = self.options.watchers_regex.match
        return not name.startswith(PLUGIN) and bool(match(name) or match(in_events(name)))

    def _heard(self, pid: int, broken: bool) -> None:
        for _ in range(3):  # one that it has started may speak for it
            if pid in self._alive or not pid:
                break
            pid = parent_of(pid)
        if pid not in self._alive:
            self.logger.debug("a heartbeat of a process that is not looked at")
        elif broken:
            self.loop.add_callback(self._kill, pid, "says that it is broken")
        else:
            self._alive[pid] = self._alive[pid][0], self.clock()

    async def _kill(self, pid: int, why: str) -> None:
        name, _ = self._alive.pop(pid, ("", 0.0))
        if not name:
            return  # it is killed already
        options = self.options
        props: dict[str, Any] = {"name": name, "pid": pid}
        if options.watchers_stop_signal is not None:
            props["signum"] = options.watchers_stop_signal
        if options.watchers_graceful_timeout is not None:
            props["graceful_timeout"] = options.watchers_graceful_timeout
        self.logger.warning("%s: process %d %s; kill", name, pid, why)
        try:
            await self.call_async("kill", patience=PATIENCE, **props)
        except CallError as error:
            self.logger.error("%s: process %d is not killed: %s", name, pid, error)
            self._alive.setdefault(pid, (name, self.clock()))  # it is tried again a turn later
