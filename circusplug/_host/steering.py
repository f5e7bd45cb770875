# A host that is steered from outside: what its control endpoint (the room `_control`) asks of it
# and hears from it.
#
# Owner: `note` is called on the supervising thread, all else on the thread that serves the
# endpoint. What is asked of one plugin is done in order, on a thread that lasts as long as there is
# something to do; `_lock` guards what is still to be done.

from __future__ import annotations

import contextlib
import functools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import NamedTuple, Protocol

from .._config.specs import HostConfig
from .._control.control_server import ControlServer
from .._control.door import Door
from .._errors import HostError
from .._logs import logger
from .._plugin.status import PluginStatus
from .managed_plugin import ManagedPlugin
from .own_process import OwnProcess
from .reloads import Reloadable, Reloads

#: How many changes may wait to be made.
_MOST_CHANGES = 10_000


class Host(Reloadable, Protocol):
    """A host; see `Arbiter`."""

    @property
    def config(self) -> HostConfig:
        """What it runs."""

    def statuses(self, fresh: bool) -> Mapping[str, PluginStatus]:
        """What each plugin is doing."""

    def stack(self, name: str) -> str:
        """What a plugin's thread is at."""

    def start_plugin(self, name: str) -> None:
        """Start a plugin."""

    def stop_plugin(self, name: str) -> None:
        """Stop a plugin."""

    def restart_plugin(self, name: str) -> None:
        """Restart a plugin."""

    def stop(self) -> None:
        """Stop the host."""


class _Change(NamedTuple):
    action: Callable[[], object]
    done: Future[None]


class Steering:
    """Carries out for a control endpoint what is asked there, and announces what happens."""

    def __init__(self, host: Host, reloads: Reloads) -> None:
        self._host = host
        self._reloads = reloads
        self._server: ControlServer | None = None
        self._door: Door | None = None
        self._lock = threading.Lock()
        self._to_do: dict[str, deque[_Change]] = {}  # by plugin; the first is under way
        self._ends: Future[None] = Future()
        self._announced: dict[str, tuple[str, int | None, int]] = {}

    @classmethod
    def opened(
        cls, host: Host, reloads: Reloads, config: HostConfig, process: OwnProcess
    ) -> Steering:
        """Open what a configuration asks for.

        Args:
            host: The host.
            reloads: Its reloads.
            config: What it is to run.
            process: What is known of the process.

        Raises:
            HostError: It cannot be opened; there is another host for the same file, for one.
        """
        steering = cls(host, reloads)
        try:
            steering._server = ControlServer.for_config(steering, config)
            if steering._server is not None:
                steering._server.open()
            if process.circusd_endpoint is not None:
                ends = config.endpoint, process.circusd_endpoint
                steering._door = Door(steering, *ends, process.endpoint_owner)
                steering._door.open()
        except BaseException:
            steering.close()
            raise
        return steering

    def close(self) -> None:
        """Close the endpoint: the host has ended."""
        if not self._ends.done():
            self._ends.set_result(None)
        for server in (self._server, self._door):
            if server is not None:
                server.close()

    @property
    def endpoint(self) -> str:
        """Where commands are taken, the door first; empty: nowhere."""
        server = self._door or self._server
        return "" if server is None else server.endpoint

    # What is asked for; see `Steered`.

    @property
    def config(self) -> HostConfig:
        """What the host runs."""
        return self._host.config

    def statuses(self, fresh: bool) -> Mapping[str, PluginStatus]:
        """What each plugin is doing."""
        return self._host.statuses(fresh)

    def stack(self, name: str) -> str:
        """What a plugin's thread or process is at."""
        with contextlib.suppress(HostError):
            return self._host.stack(name)
        return ""

    def change(self, what: str, names: Iterable[str]) -> Future[None]:
        """Start, stop or restart plugins; at the same time, if there are several.

        Raises:
            HostError: Too much is still to be done.
        """
        self._refuse_too_much()
        how = {
            "start": self._host.start_plugin,
            "stop": self._host.stop_plugin,
            "restart": self._host.restart_plugin,
        }[what]
        return _all_of([self._aside(name, functools.partial(how, name)) for name in names])

    def reload(self) -> Future[None]:
        """Read the configuration again; raises as `change`."""
        self._refuse_too_much()
        return self._aside("", self._reloads.run)

    def quit(self) -> Future[None]:
        """Stop the host; done when all plugins have stopped."""
        threading.Thread(target=self._host.stop, name="circusplug-quit", daemon=True).start()
        return self._ends

    def _refuse_too_much(self) -> None:
        with self._lock:
            if sum(map(len, self._to_do.values())) >= _MOST_CHANGES:
                raise HostError("too much is still to be done; try again")

    def _aside(self, key: str, action: Callable[[], object]) -> Future[None]:
        change = _Change(action, Future())
        with self._lock:
            waiting = self._to_do.get(key)
            if waiting is not None:
                waiting.append(change)
                return change.done
            self._to_do[key] = deque([change])
        thread = threading.Thread(
            target=self._make_changes, args=(key,), name="circusplug-order", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # no more threads
            with self._lock:
                del self._to_do[key]
            change.done.set_exception(HostError(f"not done: {error}"))
        return change.done

    def _make_changes(self, key: str) -> None:
        change: _Change | None = self._to_do[key][0]
        while change is not None:
            try:
                change.action()
            except Exception as error:  # noqa: BLE001 - handed to who waits
                outcome: Exception | None = error
                if key:  # else it has been logged
                    logger.error("control: what was asked of %s was not done: %s", key, error)
            else:
                outcome = None
            # Before the answer: who has it and asks for more shall find nothing in the way.
            with self._lock:
                waiting = self._to_do[key]
                waiting.popleft()
                following = waiting[0] if waiting else None
                if following is None:
                    del self._to_do[key]
            if outcome is None:
                change.done.set_result(None)
            else:
                change.done.set_exception(outcome)
            change = following

    # What happens.

    def note(self, plugin: ManagedPlugin | None) -> None:
        """Announce what has become of a plugin; None: some may be gone, or the host has ended."""
        if self._server is None:
            return
        if plugin is None:
            gone = self._announced.keys() - {spec.name for spec in self._host.config.plugins}
            if gone:  # some of them may not have stopped yet
                gone -= self._host.statuses(False).keys()
            for name in gone:
                _, pid, _ = self._announced.pop(name)
                if pid is not None:
                    self._server.announce(name, "reap", process_pid=pid, exit_code=0)
                self._server.announce(name, "stop")
            return
        name, state = plugin.spec.name, plugin.state
        runner = plugin.runner
        old, pid, stalls = self._announced.get(name, ("", None, 0))
        said = self._server.announce
        if plugin.counters.stalls > stalls:
            said(name, "stalled", stalls=plugin.counters.stalls)
        if state != old:
            if state == "running":
                pid = runner.pid if runner is not None else None
                said(name, "spawn", process_pid=pid)
                said(name, "start")
            elif state != "stopping" and pid is not None:
                clean = old == "stopping" or state == "stopped"
                said(name, "reap", process_pid=pid, exit_code=0 if clean else 1)
                pid = None
            if state in ("stopped", "abandoned") and old not in ("", "inactive"):
                said(name, "stop")
            elif state == "failed":
                said(name, "failed", error=plugin.last_error)
        self._announced[name] = state, pid, plugin.counters.stalls


def _all_of(parts: list[Future[None]]) -> Future[None]:
    """Done when all parts are; failed if one of them is."""
    whole: Future[None] = Future()
    left = len(parts)
    lock = threading.Lock()

    def count(_: Future[None]) -> None:
        nonlocal left
        with lock:
            left -= 1
            if left:
                return
        errors = [str(error) for part in parts if (error := part.exception()) is not None]
        if errors:
            whole.set_exception(HostError("; ".join(errors)))
        else:
            whole.set_result(None)

    if not parts:
        whole.set_result(None)
    for part in parts:
        part.add_done_callback(count)
    return whole
