# The watchers of a FakeCircusd: their state, and the events that a change of it publishes, in
# circusd's order. Processes are made-up numbers. No sockets, no threads: events go to a
# callback. Checked against a real circusd by tests/real_circusd/test_contract.py.

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from circusplug._wire.watcher_names import to_res_name

#: Called with a watcher's res_name, an action and a payload.
Emit = Callable[[str, str, dict[str, Any]], None]

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


@dataclass(frozen=True)
class Process:
    """A made-up process."""

    pid: int
    wid: int
    started: float


class Watcher:
    """One watcher and its processes.

    Args:
        name: Its name as configured.
        options: Its options; what circusd does not know becomes a string, as from an ini file.
        emit: Takes the events.
        pids: Where new process ids come from.
        now: Tells the time of day, in seconds since the epoch.
    """

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any],
        emit: Emit,
        pids: Iterable[int],
        now: Callable[[], float],
    ) -> None:
        options = dict(options)
        self.name = name
        self.autostart = bool(options.pop("autostart", True))
        self.options = {**DEFAULT_OPTIONS}
        for key, value in options.items():
            self.options[key] = value if key in DEFAULT_OPTIONS else str(value)
        self.processes: list[Process] = []
        self.active = False
        self.figures: dict[int | None, dict[str, Any]] = {}
        self._emit = emit
        self._pids = iter(pids)
        self._now = now

    @property
    def status(self) -> str:
        """``active`` or ``stopped``; what lies between takes no time here."""
        return "active" if self.active else "stopped"

    @property
    def pids(self) -> list[int]:
        """The processes' ids, oldest first."""
        return [process.pid for process in self.processes]

    @property
    def numprocesses(self) -> int:
        """How many processes there should be."""
        return int(self.options["numprocesses"])

    def start(self) -> None:
        """Start, unless it is active."""
        if not self.active:
            self.active = True
            self._manage()
            self.emit("start")

    def kill_all(self) -> None:
        """The first half of a stop: signal every process."""
        for process in self.processes:
            self.emit("kill", process_pid=process.pid)

    def reap_all(self) -> None:
        """The second half of a stop: collect the processes and be stopped."""
        if self.active:
            for process in [*self.processes]:
                self._reap(process, -self.options["stop_signal"])
            self.active = False
            self.emit("stop")

    def stop(self) -> None:
        """Stop, unless it is stopped."""
        self.kill_all()
        self.reap_all()

    def scale(self, numprocesses: int) -> int:
        """Have *numprocesses* processes, now or once it is started; return the number."""
        self.options["numprocesses"] = max(0, numprocesses)
        self._manage()
        return self.numprocesses

    def reload(self, graceful: bool = True, sequential: bool = False) -> None:
        """Replace the processes by new ones."""
        if not graceful:
            self.stop()
            self.start()
            return
        if not self.active:
            self.start()
        elif sequential:
            for process in [*self.processes]:
                self.emit("kill", process_pid=process.pid)
                self._reap(process, -self.options["stop_signal"])
                self._spawn()
        elif not self.options["send_hup"]:
            for _ in range(self.numprocesses):
                self._spawn()
            self._manage()
        self.emit("reload")

    def set(self, options: Mapping[str, Any]) -> None:
        """Change options and do what follows from that."""
        for key, value in options.items():
            self.options[key] = max(0, value) if key == "numprocesses" else value
            self.emit("updated")
        if self.active and not _RELOADING.isdisjoint(options):
            self.reload()
        else:
            self._manage()

    def kill(self, signum: int, pid: int | None = None) -> None:
        """Signal the process *pid*, or all, collect them and start others in their place.

        A real circusd finds some of these processes gone before it could collect them, and
        then publishes no reap: a plugin cannot count on one.
        """
        for process in [*self.processes]:
            if pid is None or process.pid == pid:
                self.emit("kill", process_pid=process.pid)
                self._reap(process, -signum)
        self._manage()

    def exit(self, exit_code: int, pid: int | None = None) -> None:
        """Let the process *pid*, or all, exit by itself, and start others in their place."""
        for process in [*self.processes]:
            if pid is None or process.pid == pid:
                self._reap(process, exit_code)
        if self.options["respawn"] or not self.active:
            self._manage()
        elif not self.processes:
            self.stop()

    def emit(self, action: str, **payload: Any) -> None:
        """Publish an event of this watcher."""
        self._emit(to_res_name(self.name), action, payload)

    def info(self, process: Process) -> dict[str, Any]:
        """Return the figures that ``stats`` gives for a process."""
        figures = {**self.figures.get(None, {}), **self.figures.get(process.pid, {})}
        command = str(self.options["cmd"]).split()
        return {
            **process_figures(
                process.pid, process.started, command[0] if command else "N/A", self._now()
            ),
            "started": process.started,
            "wid": process.wid,
            **figures,
        }

    def begin_anew(self) -> None:
        """Let all processes have been started this moment."""
        self.processes = [replace(process, started=self._now()) for process in self.processes]

    def _spawn(self) -> None:
        used = {process.wid for process in self.processes}
        wid = next(number for number in itertools.count(1) if number not in used)
        process = Process(next(self._pids), wid, self._now())
        self.processes.append(process)
        self.emit("spawn", process_pid=process.pid, time=process.started)

    def _reap(self, process: Process, exit_code: int) -> None:
        self.processes.remove(process)
        self.emit("reap", process_pid=process.pid, exit_code=exit_code)

    def _manage(self) -> None:
        """Bring the processes to the wanted number; the oldest go, without a reap."""
        if not self.active:
            return
        while len(self.processes) < self.numprocesses:
            self._spawn()
        newest_first = self.processes[::-1]
        for process in newest_first[self.numprocesses :]:
            self.emit("kill", process_pid=process.pid)
            self.processes.remove(process)


def process_figures(pid: int, started: float, cmdline: str, now: float) -> dict[str, Any]:
    """Return made-up figures for one process, in the form of circusd's."""
    return {
        "mem_info1": "1.50M",
        "mem_info2": "2.44M",
        "cpu": 0.0,
        "mem": 0.006,
        "ctime": "0:00.0",
        "pid": pid,
        "username": "nobody",
        "nice": 0,
        "create_time": started,
        "age": now - started,
        "cmdline": cmdline,
        "children": [],
    }
