# A host that is steered from outside: what its control endpoint (the room `_control`) asks of it
# and hears from it.
#
# Owner: `note` is called on the supervising thread, all else on the thread that serves the
# endpoint. Each change that is asked for has a thread of its own, which waits for the one before
# it that concerns the same plugin; `_lock` guards what is under way.

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Protocol

from .._config.specs import HostConfig
from .._control.control_server import ControlServer
from .._control.door import Door
from .._errors import HostError
from .._status import PluginStatus
from .managed_plugin import ManagedPlugin
from .reloads import Reloadable, Reloads

#: How many changes may be under way at the same time.
_MOST_CHANGES = 100


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


class Steering:
    """Carries out for a control endpoint what is asked there, and announces what happens."""

    def __init__(self, host: Host, reloads: Reloads) -> None:
        self._host = host
        self._reloads = reloads
        self._server: ControlServer | None = None
        self._door: Door | None = None
        self._lock = threading.Lock()
        self._under_way: dict[str, threading.Thread] = {}
        self._ends: Future[None] = Future()
        self._announced: dict[str, tuple[str, int | None, int]] = {}

    @classmethod
    def opened(
        cls, host: Host, reloads: Reloads, config: HostConfig, circusd_endpoint: str | None
    ) -> Steering:
        """Open what a configuration asks for.

        Args:
            host: The host.
            reloads: Its reloads.
            config: What it is to run.
            circusd_endpoint: Where its circusd takes commands, if the host takes them in its place.

        Raises:
            HostError: It cannot be opened; there is another host for the same file, for one.
        """
        steering = cls(host, reloads)
        try:
            steering._server = ControlServer.for_config(steering, config)
            if steering._server is not None:
                steering._server.open()
            if circusd_endpoint is not None:
                steering._door = Door(steering, config.endpoint, circusd_endpoint)
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
        """Start, stop or restart plugins; at the same time, if there are several."""
        how = {
            "start": self._host.start_plugin,
            "stop": self._host.stop_plugin,
            "restart": self._host.restart_plugin,
        }[what]
        return _all_of([self._aside(name, functools.partial(how, name)) for name in names])

    def reload(self) -> Future[None]:
        """Read the configuration again."""
        return self._aside("", self._reloads.run)

    def quit(self) -> Future[None]:
        """Stop the host; done when all plugins have stopped."""
        threading.Thread(target=self._host.stop, name="circusplug-quit", daemon=True).start()
        return self._ends

    def _aside(self, key: str, change: Callable[[], object]) -> Future[None]:
        done: Future[None] = Future()
        with self._lock:
            self._under_way = {
                name: thread for name, thread in self._under_way.items() if thread.is_alive()
            }
            if len(self._under_way) >= _MOST_CHANGES:
                done.set_exception(HostError("too much is under way; try again"))
                return done
            before = self._under_way.get(key)
            thread = threading.Thread(
                target=_carry_out, args=(change, before, done), name="circusplug-order", daemon=True
            )
            thread.start()
            self._under_way[key] = thread
        return done

    # What happens.

    def note(self, plugin: ManagedPlugin | None) -> None:
        """Announce what has become of a plugin; None: of all, or the host has ended."""
        if plugin is None or self._server is None:
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


def _carry_out(
    change: Callable[[], object], before: threading.Thread | None, done: Future[None]
) -> None:
    if before is not None:
        before.join()
    try:
        change()
    except Exception as error:  # noqa: BLE001 - handed to who waits, which is told
        done.set_exception(error)
    else:
        done.set_result(None)


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
