# The watchers of a FakeCircusd: their state, and the events that a change of it publishes, in
# circusd's order. What may take time is a coroutine, as it is in circusd. No sockets, no threads.
# Checked against a real circusd by tests/real_circusd/test_contract*.py.
#
# Owner: the serving thread.

from __future__ import annotations

import functools
import itertools
import signal
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from circusplug._wire.watcher_names import to_res_name

from ._life import Life
from ._process import Process, process_figures
from ._steps import Pending, all_of, run

#: A watcher's options as circusd 0.19 lists them, with its defaults.
DEFAULT_OPTIONS: Mapping[str, Any] = {
    "args": "",
    "close_child_stderr": False,
    "close_child_stdin": True,
    "close_child_stdout": False,
    "cmd": "sleep 1000",
    "copy_env": False,
    "env": {},
    "executable": None,
    "gid": None,
    "graceful_timeout": 30.0,
    "max_age": 0,
    "max_age_variance": 30,
    "max_retry": 5,
    "numprocesses": 1,
    "on_demand": False,
    "priority": 0,
    "respawn": True,
    "send_hup": False,
    "shell": False,
    "shell_args": None,
    "singleton": False,
    "stderr_stream_conf": {},
    "stdout_stream_conf": {},
    "stop_children": False,
    "stop_signal": int(signal.SIGTERM),
    "uid": None,
    "use_sockets": False,
    "warmup_delay": 0,
    "working_dir": "/",
}

#: A change of one of these makes circusd replace the processes.
_RELOADING = frozenset(
    ("working_dir", "uid", "gid", "shell", "env", "cmd", "args", "max_age", "max_age_variance")
)

_FLOATS = frozenset(("graceful_timeout", "warmup_delay"))


class Circusd(Protocol):
    """What a watcher needs of its circusd."""

    def now(self) -> float:
        """The time of day, in seconds since the epoch."""

    def publish(self, name: str, action: str, payload: dict[str, Any]) -> None:
        """Publish an event; *name* is a res_name."""

    def next_pid(self) -> int:
        """A process id that nobody has."""

    def call_later(self, seconds: float, function: Callable[[], object]) -> None:
        """Have something done in a while."""

    def pause(self, seconds: float) -> Pending[None]:
        """Something to await that comes in a while."""


class Watcher:
    """One watcher and its processes.

    Args:
        name: Its name as configured.
        options: Its options; what circusd does not know becomes a string, as from an ini file.
        circusd: Where it lives.

    Attributes:
        status: As circusd tells it: ``active``, ``stopped``, ``starting`` or ``stopping``.
        processes: Those that circusd knows, oldest first; one that has ended is reaped in time.
        figures: What a test has said of the figures of a process, or of all (None).
        life: What the processes do by themselves.
    """

    def __init__(self, name: str, options: Mapping[str, Any], circusd: Circusd) -> None:
        options = dict(options)
        self.name = name
        self.autostart = bool(options.pop("autostart", True))
        self.options = {**DEFAULT_OPTIONS}
        for key, value in options.items():
            self.options[key] = value if key in DEFAULT_OPTIONS else str(value)
        self.status = "stopped"
        self.processes: list[Process] = []
        self.figures: dict[int | None, dict[str, Any]] = {}
        self.life = Life()
        self._circusd = circusd

    @property
    def alive(self) -> list[Process]:
        """The processes that have not ended, oldest first."""
        return [process for process in self.processes if process.alive]

    @property
    def pids(self) -> list[int]:
        """The ids of all processes that circusd knows, oldest first."""
        return [process.pid for process in self.processes]

    @property
    def numprocesses(self) -> int:
        """How many processes there should be."""
        return int(self.options["numprocesses"])

    def emit(self, action: str, **payload: Any) -> None:
        """Publish an event of this watcher."""
        self._circusd.publish(to_res_name(self.name), action, payload)

    # What circusd does.

    async def start(self) -> None:
        """Start, unless it is started; then the processes that are missing."""
        if self.status != "stopped":
            self.reap()
            await self._spawn_missing()
            return
        self.status = "starting"
        await self._spawn_missing()
        if not self.processes:
            await self.stop()
        if self.status == "starting":
            self.status = "active"
            self.emit("start")

    def begin_stop(self) -> list[Pending[bool]]:
        """The first half of a stop: signal every process; for the second half."""
        self.status = "stopping"
        return [run(self.kill_process(process)) for process in self.alive]

    async def finish_stop(self, kills: list[Pending[bool]]) -> None:
        """The second half of a stop: collect the processes and be stopped."""
        await all_of(kills)
        await all_of(process.gone for process in self.processes)  # somebody else's kill
        self.reap()
        self.emit("stop")
        self.status = "stopped"

    async def stop(self) -> None:
        """Stop, unless it is stopped."""
        if self.status != "stopped":
            await self.finish_stop(self.begin_stop())

    async def restart(self) -> None:
        """Stop and start."""
        await self.stop()
        await self.start()

    async def reload(self, graceful: bool = True, sequential: bool = False) -> None:
        """Replace the processes by new ones."""
        if not graceful:
            await self.restart()
            return
        if self.status == "stopped":
            await self.start()
        elif sequential and not self.options["send_hup"]:
            for process in self.alive:
                await self.kill_process(process)
                self._reap(process)
                self._spawn()
                await self._circusd.pause(self.options["warmup_delay"])
        elif not self.options["send_hup"]:
            for _ in range(self.numprocesses):
                self._spawn()
            await self.manage()
        self.emit("reload")

    async def set(self, options: Mapping[str, Any]) -> None:
        """Change options and do what follows from that."""
        for key, value in options.items():
            value = float(value) if key in _FLOATS else value
            self.options[key] = max(0, value) if key == "numprocesses" else value
            self.emit("updated")
        if self.status != "stopped" and not _RELOADING.isdisjoint(options):
            await self.reload()
        else:
            await self.manage()

    async def scale(self, numprocesses: int) -> int:
        """Have *numprocesses* processes, now or once it is started; return the number."""
        self.options["numprocesses"] = max(0, numprocesses)
        await self.manage()
        return self.numprocesses

    async def kill(
        self, signum: int | None, pid: int | None = None, graceful_timeout: float | None = None
    ) -> None:
        """Signal the process *pid*, or all, and wait for their end.

        A real circusd finds some of these processes gone before it could collect them, and
        then publishes no reap: a plugin cannot count on one.
        """
        chosen = [process for process in self.alive if pid is None or process.pid == pid]
        await all_of(
            [run(self.kill_process(process, signum, graceful_timeout)) for process in chosen]
        )

    async def kill_process(
        self, process: Process, signum: int | None = None, graceful_timeout: float | None = None
    ) -> bool:
        """End a process, with SIGKILL in the end; returns whether it was this that did it."""
        if process.stopping or not process.alive:
            return False
        self.emit("kill", process_pid=process.pid)
        process.stopping = True
        self.signal(process, self.options["stop_signal"] if signum is None else signum)
        if process.alive:
            timeout = self.options["graceful_timeout"]
            run(self._insist(process, timeout if graceful_timeout is None else graceful_timeout))
        await process.gone
        process.stopping = False
        return True

    async def _insist(self, process: Process, graceful_timeout: float) -> None:
        await self._circusd.pause(graceful_timeout)
        if process.alive:
            self.emit("kill", process_pid=process.pid)
            self.end(process, -signal.SIGKILL)

    def reap(self) -> None:
        """Collect the processes that have ended."""
        for process in [*self.processes]:
            if not process.alive:
                self._reap(process)

    async def manage(self) -> None:
        """Bring the processes to the wanted number; the oldest go, without a reap."""
        if self.status == "stopped":
            return
        if self.options["respawn"]:
            await self._spawn_missing()
        elif not self.processes:
            await self.stop()
        extra = self.processes[::-1][self.numprocesses :]
        kills = [(process, run(self.kill_process(process))) for process in extra]
        for process, kill in kills:
            if await kill:
                self.processes.remove(process)

    # What processes do.

    def signal(self, process: Process, signum: int) -> None:
        """Let a process get a signal that it ends of, sooner or later."""
        if self.life.stop_seconds and signum != signal.SIGKILL:
            self._circusd.call_later(self.life.stop_seconds, lambda: self.end(process, 0))
        else:
            self.end(process, -signum)

    def end(self, process: Process, exit_code: int) -> None:
        """Let a process have ended, unless it has."""
        if process.alive:
            process.gone.set_result(exit_code)

    def live(self, process: Process) -> None:
        """Let a process do what its life says, from now on."""
        age = self._circusd.now() - process.started
        for seconds, exit_code in self.life.ends:
            end = functools.partial(self.end, process, exit_code)
            self._circusd.call_later(max(0.0, seconds - age), end)

    def info(self, process: Process) -> dict[str, Any] | str:
        """Return the figures that ``stats`` gives for a process."""
        if not process.alive:
            return "No such process (stopped?)"
        command, now = str(self.options["cmd"]).split(), self._circusd.now()
        return {
            **process_figures(
                process.pid,
                process.started,
                command[0] if command else "N/A",
                now,
                self.life.memory_of(now - process.started),
                self.life.cpu_now(),
            ),
            "started": process.started,
            "wid": process.wid,
            **self.figures.get(None, {}),
            **self.figures.get(process.pid, {}),
        }

    async def _spawn_missing(self) -> None:
        for _ in range(self.numprocesses - len(self.processes)):
            if not self._spawn():
                await self.stop()
                return
            await self._circusd.pause(self.options["warmup_delay"])

    def _spawn(self) -> bool:
        if not self.life.can_start:
            return False
        used = {process.wid for process in self.processes}
        wid = next(number for number in itertools.count(1) if number not in used)
        process = Process(self._circusd.next_pid(), wid, self._circusd.now())
        self.processes.append(process)
        self.emit("spawn", process_pid=process.pid, time=process.started)
        self.live(process)
        return True

    def _reap(self, process: Process) -> None:
        self.processes.remove(process)
        self.emit("reap", process_pid=process.pid, exit_code=process.gone.result())
